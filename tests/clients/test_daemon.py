"""`sternad` as a process: how it starts, stops, finds guests again, and what it withstands."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from support.clients import Ran, run, virsh
from support.daemon import Daemon, free_port
from support.fixtures import Hosts
from support.processes import wait_for

AUTH_LIST = struct.pack(">7I", 28, 0x20008086, 1, 66, 0, 0, 0)
IDLE_KIB = 60 * 1024


def sternad(*options: str) -> Ran:
    return run([sys.executable, "-m", "sterna.server", *options], timeout_s=20)


@pytest.fixture
def daemon(hosts: Hosts) -> Daemon:
    return hosts.start("alpha")


def rss_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


# -- the command line --------------------------------------------------------------------------


def test_help_and_version() -> None:
    assert "--migration-address" in sternad("--help").check().out
    assert sternad("--version").check().out.startswith("sternad ")


def test_what_cannot_be_used_is_one_sentence_and_exit_code_2(short_dir: Path) -> None:
    config = short_dir / "bad.toml"
    config.write_text("nosuch = 1\n")
    ran = sternad("--root", str(short_dir / "x"), "--config", str(config))
    assert (ran.code, ran.err) == (2, f"sternad: {config}: unknown setting 'nosuch'\n")
    ran = sternad("--root", str(short_dir / "x"), "--tcp", "nowhere")
    assert (ran.code, ran.err) == (2, "sternad: --tcp: expected ADDR:PORT, got 'nowhere'\n")
    assert sternad("--nosuch").code == 2


def test_one_root_has_one_daemon(daemon: Daemon) -> None:
    ran = sternad("--root", str(daemon.root))
    assert ran.code == 1
    assert f"another sternad (pid {daemon.pid}) already runs" in ran.err
    assert daemon.said("hostname") == "alpha"


def test_a_taken_port_is_named(daemon: Daemon, short_dir: Path) -> None:
    ran = sternad("--root", str(short_dir / "x"), "--tcp", f"127.0.0.1:{daemon.tcp_port}")
    assert ran.code == 1
    complaint = f"cannot listen on TCP 127.0.0.1:{daemon.tcp_port}: Address already in use"
    assert ran.err.splitlines()[-1] == f"sternad: {complaint}"
    assert "Traceback" not in ran.err
    assert not list((short_dir / "x" / "run").glob("libvirt-sock*"))


# -- places and sockets ------------------------------------------------------------------------


def test_a_root_longer_than_an_address(hosts: Hosts, guest_xml: str, short_dir: Path) -> None:
    deep = short_dir / ("d" * 60) / ("e" * 60)
    hosts.start("alpha", "--root", str(deep))
    assert len(str(deep / "run/libvirt-sock")) > 108
    # virsh cannot name so long a path itself.
    link = short_dir / "s"
    link.symlink_to(deep / "run")
    uri = f"qemu+unix:///system?socket={link}/libvirt-sock"
    xml = short_dir / "guest.xml"
    xml.write_text(guest_xml)
    virsh(uri, "create", str(xml), "--paused").check()
    assert virsh(uri, "domstate", "web1").check().out.strip() == "paused"
    virsh(uri, "destroy", "web1").check()


def test_sockets_modes_and_the_read_only_one(daemon: Daemon) -> None:
    assert daemon.socket.stat().st_mode & 0o777 == 0o700
    assert daemon.socket_read_only.stat().st_mode & 0o777 == 0o777
    uri = daemon.uri_read_only
    assert virsh(uri, "hostname").check().out.strip() == "alpha"
    refused = virsh(uri, "define", "/dev/null")
    assert refused.code
    asked = virsh(uri, "domcapabilities")
    assert "read only access prevents virConnectGetDomainCapabilities" in asked.err


def test_two_hosts_side_by_side_differ(hosts: Hosts) -> None:
    uuids = set()
    for name in ("alpha", "beta"):
        document = hosts.start(name).said("capabilities")
        uuids.add(document.split("<uuid>")[1].split("<")[0])
    assert len(uuids) == 2


def test_tcp_beyond_loopback_needs_a_word_and_is_warned_of(hosts: Hosts, short_dir: Path) -> None:
    for address in ("0.0.0.0", "[::]", ""):
        ran = sternad("--root", str(short_dir / "x"), "--tcp", f"{address}:{free_port()}")
        assert ran.code == 1
        assert ran.err.splitlines()[-1].endswith(
            "serve TLS there instead (setting tls), listen on loopback, or say "
            "allow_unprotected_tcp = true"
        )
    config = short_dir / "c.toml"
    config.write_text("client_calls_max = 7\n")
    loopback = hosts.start("alpha", "--config", str(config))
    assert "listener.unprotected" not in loopback.log_path.read_text()
    assert virsh(loopback.tcp_uri, "hostname").check().out.strip() == "alpha"
    port = free_port()
    open_to_all = hosts.start("beta", "--tcp", f"0.0.0.0:{port}", "--allow-unprotected-tcp")
    open_to_all.tcp_port = port
    assert "warning listener.unprotected" in open_to_all.log_path.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_has_a_host_too(
    hosts: Hosts, guest_xml: str, tick_elf: Path, short_dir: Path
) -> None:
    kernel = shutil.copy(tick_elf, short_dir / "tick.elf")  # where that user can read it
    root = short_dir / "user"
    root.mkdir()
    os.chown(root, 65534, 65534)
    user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    daemon = Daemon(root, name="user", prefix=user, env={"HOME": str(root)})
    daemon.log_path.touch()
    hosts.daemons.append(daemon)
    before = os.umask(0)  # the user must reach the socket where readiness is told
    try:
        daemon.start()
    finally:
        os.umask(before)
    daemon.create(guest_xml.replace(str(tick_elf), str(kernel)), "--paused")
    assert daemon.state("web1") == "paused (user)"
    assert [os.stat(f"/proc/{q.pid}").st_uid for q in daemon.qemus()] == [65534]


# -- life --------------------------------------------------------------------------------------


def test_it_is_small(hosts: Hosts) -> None:
    daemon = hosts.start("alpha")
    daemon.said("capabilities")
    assert rss_kib(daemon.pid) <= IDLE_KIB


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_guests_outlive_the_daemon_and_are_found_again(
    daemon: Daemon, guest_xml: str, end: str
) -> None:
    daemon.define(guest_xml)
    daemon.virsh("start", "web1", "--paused").check()
    daemon.virsh("autostart", "web1").check()
    before = [qemu.pid for qemu in daemon.qemus()]
    uuid = daemon.said("capabilities").split("<uuid>")[1].split("<")[0]
    if end == "stop":
        assert daemon.stop() == 0
    else:
        daemon.kill()
    assert [qemu.pid for qemu in daemon.qemus()] == before
    daemon.start()
    assert daemon.state("web1") == "paused (user)"
    assert daemon.said("domid", "web1") == "1"
    assert daemon.said("capabilities").split("<uuid>")[1].split("<")[0] == uuid
    daemon.virsh("resume", "web1").check()
    assert daemon.state("web1") == "running (unpaused)"
    assert [qemu.pid for qemu in daemon.qemus()] == before
    daemon.virsh("destroy", "web1").check()
    assert daemon.state("web1") == "shut off (destroyed)"


def test_autostart_at_the_daemons_start(daemon: Daemon, guest_xml: str) -> None:
    daemon.define(guest_xml)
    daemon.virsh("autostart", "web1").check()
    assert daemon.guests() == set()
    daemon.restart()
    wait_for(lambda: daemon.guests() == {"web1"}, "the guest")


def test_a_stopping_daemon_takes_autodestroy_guests_along(daemon: Daemon, guest_xml: str) -> None:
    daemon.define(guest_xml)
    with daemon.start_virsh("start web1 --paused --autodestroy; event --all --timeout 60"):
        wait_for(lambda: daemon.guests() == {"web1"}, "the guest")
        assert daemon.stop() == 0
        assert daemon.qemus() == []
    daemon.start()
    assert daemon.guests() == set()


def test_reload(hosts: Hosts, short_dir: Path) -> None:
    config = short_dir / "c.toml"
    config.write_text("clients_max = 100\n")
    daemon = hosts.start("alpha", "--config", str(config))
    for text, said in (
        ('clients_max = 50\nsocket_mode = "0600"\n', "setting=socket_mode"),
        ("clients_max = none\n", "daemon.reload_refused"),
    ):
        config.write_text(text)
        os.kill(daemon.pid, signal.SIGHUP)
        wait_for(lambda said=said: said in daemon.log_path.read_text(), said)
    assert daemon.said("hostname") == "alpha"


# -- what it withstands ------------------------------------------------------------------------


def test_garbage_ends_its_own_connection_alone(daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as good, socket.socket(socket.AF_UNIX) as bad:
        good.connect(str(daemon.socket))
        bad.connect(str(daemon.socket))
        bad.sendall(b"\xff" * 4096)
        bad.settimeout(10)
        assert bad.recv(100) == b""
        good.sendall(AUTH_LIST)
        good.settimeout(10)
        assert len(good.recv(100)) == 36


def test_many_clients_come_at_once(daemon: Daemon) -> None:
    clients = []
    for _ in range(300):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(daemon.socket))
        client.sendall(AUTH_LIST)
        clients.append(client)
    for client in clients:
        client.settimeout(20)
        assert len(client.recv(100)) == 36
        client.close()
    assert daemon.said("hostname") == "alpha"


def test_a_client_that_reads_nothing_is_no_burden(daemon: Daemon) -> None:
    """It asks for capabilities for ever and never reads an answer; others are served as before."""
    daemon.said("capabilities")
    grown_from = rss_kib(daemon.pid)
    ask = struct.pack(">7I", 28, 0x20008086, 1, 7, 0, 0, 0)
    name = b"qemu:///system\0\0"
    opened = struct.pack(">7III", 56, 0x20008086, 1, 1, 0, 0, 0, 1, 14) + name + bytes(4)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(daemon.socket))
        deaf.sendall(opened)
        deaf.settimeout(0.5)
        with pytest.raises(TimeoutError):
            deaf.sendall(ask * 100_000)
        took_ms = daemon.virsh("hostname").check().elapsed_ms
        assert took_ms < 5000
        assert rss_kib(daemon.pid) - grown_from < 30 * 1024


def test_a_stopped_qemu_stalls_only_its_own_calls(daemon: Daemon, guest_xml: str) -> None:
    """L6: a QEMU that hangs keeps no read waiting, and can still be destroyed."""
    daemon.create(guest_xml, "--paused")
    (qemu,) = daemon.qemus()
    os.kill(qemu.pid, signal.SIGSTOP)
    try:
        stuck = subprocess.Popen(
            ["virsh", "-q", "-c", daemon.uri, "resume", "web1"], stderr=subprocess.DEVNULL
        )
        for words in (("domstate", "web1"), ("list",), ("dominfo", "web1"), ("domstats",)):
            assert daemon.virsh(*words).check().elapsed_ms < 3000, words
        assert daemon.virsh("destroy", "web1", timeout_s=30).check().elapsed_ms < 15_000
        stuck.wait(30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(qemu.pid, signal.SIGCONT)
    assert daemon.guests("--all") == set()


# -- the service manager -----------------------------------------------------------------------

AS_ACTIVATED = """
import fcntl, os, sys
first, second, *options = sys.argv[1:]
ours = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in (first, second)]
for number, fd in enumerate(ours, 3):
    os.dup2(fd, number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "sterna.server", *options])
"""


def test_sockets_and_a_watchdog_of_the_service_manager(short_dir: Path) -> None:
    """Sockets it opened are served instead of our own, and it hears that the loop turns."""
    passed = []
    for name in ("given", "given-ro"):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(short_dir / name))
        sock.listen()
        passed.append(sock)
    fds = [sock.fileno() for sock in passed]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_dir / "notify"))
        manager.settimeout(20)
        daemon = subprocess.Popen(
            [
                *(sys.executable, "-c", AS_ACTIVATED, *map(str, fds)),
                *("--root", str(short_dir / "r"), "--name", "given"),
            ],
            env={
                **os.environ,
                "LISTEN_FDS": "2",
                "NOTIFY_SOCKET": str(short_dir / "notify"),
                "WATCHDOG_USEC": "200000",
            },
            pass_fds=fds,
            stderr=subprocess.DEVNULL,
        )
        try:
            heard = []
            while heard.count(b"WATCHDOG=1") < 3:
                heard.append(manager.recv(4096))
            assert heard[0].startswith(b"READY=1")
            uri = f"qemu+unix:///system?socket={short_dir}/given"
            assert virsh(uri, "hostname").check().out.strip() == "given"
            read_only = virsh(f"{uri}-ro", "domcapabilities")
            assert "read only access" in read_only.err
            assert not (short_dir / "r/run/libvirt-sock").exists()
            daemon.terminate()
            assert daemon.wait(20) == 0
            while b"STOPPING=1" not in heard:
                heard.append(manager.recv(4096))
        finally:
            daemon.kill()
            daemon.wait(20)
    for sock in passed:
        sock.close()
