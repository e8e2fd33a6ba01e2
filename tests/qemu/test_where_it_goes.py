"""How the data goes and what goes with it: addresses, Unix sockets, displays and passwords."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from qemu.moving import GUEST, QUICK, check_moved, check_stayed, migrate_words
from support.fixtures import MakeGuest, TwoHosts
from support.serial import SerialTap

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

VNC = "<graphics type='vnc' port='-1' autoport='yes' passwd='secret'/>"
VNC_AUTHENTICATION = 2


@pytest.fixture
def running(two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> TwoHosts:
    two_hosts.source.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks(5)
    return two_hosts


def migrate(hosts: TwoHosts, *options: str) -> None:
    hosts.source.said(*migrate_words(hosts.destination, *options), timeout_s=90)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="one"),
        # QEMU connects itself then, to the same path.
        pytest.param(("--parallel", "--parallel-connections", "2"), id="parallel"),
    ],
)
def test_over_a_unix_socket(
    running: TwoHosts, serial_tap: SerialTap, short_dir: Path, options: tuple[str, ...]
) -> None:
    """There and back at the same path: nothing that stays behind is in the way."""
    where = short_dir / "wire"
    where.mkdir()
    where.chmod(0o777)  # QEMU makes the socket, as whatever user it runs
    uri = f"unix://{where}/m.sock"
    migrate(running, "--migrateuri", uri, *options)
    check_moved(running, serial_tap)
    back = TwoHosts(running.destination, running.source)
    migrate(back, "--migrateuri", uri, *options)
    check_moved(back, serial_tap)


def test_a_unix_socket_that_cannot_be_made(
    running: TwoHosts, serial_tap: SerialTap, short_dir: Path
) -> None:
    uri = f"unix://{short_dir}/nowhere/m.sock"
    told = running.source.refused(*migrate_words(running.destination, "--migrateuri", uri))
    assert "Failed to bind socket to" in told
    check_stayed(running, serial_tap)


def test_listen_address(running: TwoHosts, serial_tap: SerialTap) -> None:
    words = ("--listen-address", "127.0.0.1", "--migrateuri", "tcp://127.0.0.1")
    migrate(running, *words)
    check_moved(running, serial_tap)


def test_a_listen_address_that_is_not_ours(running: TwoHosts, serial_tap: SerialTap) -> None:
    words = migrate_words(running.destination, "--listen-address", "192.0.2.1")
    running.source.refused(*words)
    check_stayed(running, serial_tap)


def test_abort_on_error_of_a_guest_without_errors(running: TwoHosts, serial_tap: SerialTap) -> None:
    migrate(running, "--abort-on-error")
    check_moved(running, serial_tap)


def test_a_vnc_password_goes_with_the_guest(
    two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    xml = tick_guest_xml(GUEST, QUICK).replace("</devices>", f"{VNC}</devices>")
    two_hosts.source.create(xml)
    serial_tap.wait_more_ticks(5)
    assert security_types(two_hosts.source.said("vncdisplay", GUEST)) == [VNC_AUTHENTICATION]
    migrate(two_hosts)
    check_moved(two_hosts, serial_tap)
    assert security_types(two_hosts.destination.said("vncdisplay", GUEST)) == [VNC_AUTHENTICATION]
    kept = two_hosts.destination.said("dumpxml", GUEST, "--security-info")
    assert "passwd='secret'" in kept
    display = two_hosts.destination.said("vncdisplay", GUEST)
    assert admitted(display, "secret")
    assert not admitted(display, "other")


def handshake(display: str) -> tuple[socket.socket, list[int]]:
    """A viewer that has heard how it may prove itself (RFB 3.8)."""
    host, _, number = display.partition(":")
    viewer = socket.create_connection((host or "127.0.0.1", 5900 + int(number)), timeout=20)
    viewer.recv(12, socket.MSG_WAITALL)
    viewer.sendall(b"RFB 003.008\n")
    [count] = viewer.recv(1, socket.MSG_WAITALL)
    return viewer, list(viewer.recv(count, socket.MSG_WAITALL))


def security_types(display: str) -> list[int]:
    viewer, types = handshake(display)
    viewer.close()
    return types


def admitted(display: str, password: str) -> bool:
    """Whether a viewer with that password gets in: DES of the challenge, its key bits mirrored."""
    viewer, _types = handshake(display)
    with viewer:
        viewer.sendall(bytes([VNC_AUTHENTICATION]))
        challenge = viewer.recv(16, socket.MSG_WAITALL)
        key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.encode().ljust(8, b"\0"))
        # Triple DES of one key three times is DES, which openssl does not offer any more.
        encrypt = ("enc", "-des-ede3-ecb", "-nopad", "-K", (key * 3).hex())
        answer = subprocess.run(
            ["openssl", *encrypt], input=challenge, capture_output=True, check=True, timeout=20
        )
        viewer.sendall(answer.stdout)
        return viewer.recv(4, socket.MSG_WAITALL) == bytes(4)
