"""A migration that fails says what failed, in which phase, on which side, and what is now. (L8)"""

from __future__ import annotations

import signal
import socket

import pytest

from qemu.moving import (
    GUEST,
    LONG,
    QUICK,
    SLOWLY,
    check_moved,
    check_stayed,
    is_copying,
    migrate_words,
)
from support.fixtures import MakeGuest, TwoHosts
from support.processes import Watched, wait_for
from support.serial import SerialTap

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]


@pytest.fixture
def running(two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> TwoHosts:
    two_hosts.source.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks(5)
    return two_hosts


def check_can_move(hosts: TwoHosts, tap: SerialTap) -> None:
    """After the failure nothing is in the way of the next one."""
    check_stayed(hosts, tap)
    hosts.source.virsh(*migrate_words(hosts.destination), timeout_s=60).check()
    check_moved(hosts, tap)


def test_the_incoming_qemu_dies(
    two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    two_hosts.source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks(5)
    words = migrate_words(two_hosts.destination, *SLOWLY)
    with two_hosts.source.start_virsh(*words) as virsh:
        [qemu] = wait_for(two_hosts.destination.qemus, "incoming QEMU")
        wait_for(lambda: is_copying(two_hosts.source), "memory on its way")
        watched = Watched(qemu.pid)
        watched.signal(signal.SIGKILL)
        watched.close()
        told = virsh.wait().err
    assert "qemu unexpectedly closed the monitor" in told
    assert "failed at the destination in phase prepare" in told
    assert "domain 'mover' never ran there" in told
    check_can_move(two_hosts, serial_tap)


def test_nobody_listens_at_the_address_given(running: TwoHosts, serial_tap: SerialTap) -> None:
    """The destination cannot take the address: another program has the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        uri = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        told = running.source.refused(*migrate_words(running.destination, "--migrateuri", uri))
    assert "in use" in told
    check_can_move(running, serial_tap)


def test_the_destination_is_not_there(running: TwoHosts, serial_tap: SerialTap) -> None:
    nowhere = f"qemu+unix:///system?socket={running.source.root}/nothing"
    assert "nothing" in running.source.refused("migrate", "--live", GUEST, nowhere)
    check_can_move(running, serial_tap)


def test_the_destination_has_not_what_the_guest_needs(
    two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    """A file that only the source has: QEMU there cannot start, and its own words are told."""
    disk = two_hosts.source.file("only-here.img", "x" * 4096)
    devices = (
        f"<disk type='file'><driver name='qemu' type='raw'/><source file='{disk}'/>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    two_hosts.source.create(tick_guest_xml(GUEST, QUICK, devices=devices))
    serial_tap.wait_more_ticks(5)
    xml = two_hosts.source.said("dumpxml", GUEST, "--migratable")
    other = two_hosts.source.file("other.xml", xml.replace("only-here.img", "missing.img"))
    words = migrate_words(two_hosts.destination, "--unsafe", "--xml", other)
    told = two_hosts.source.refused(*words)
    assert "missing.img" in told
    check_stayed(two_hosts, serial_tap)
