"""Guests over real QEMUs: what the unit tests say of the fake holds for the real thing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from sterna.errors import (
    BadArgument,
    InternalError,
    InvalidArg,
    OperationInvalid,
    SystemCallError,
)
from sterna.guest import modify, screenshot, stats
from sterna.guest.actor import Guest
from sterna.guest.console import Consoles
from sterna.guest.dump import DumpFlags, dump
from sterna.guest.events import RebootEvent
from sterna.guest.flags import StartFlags
from sterna.guest.recover import recover
from sterna.guest.states import RunningReason, ShutoffReason, State
from sterna.qemu.process import User
from support.links import FakeLink
from support.real_host import real_host

pytestmark = pytest.mark.qemu

UUID = "6f2b1bb8-1111-4222-8333-444455556666"


def xml(devices: str = "", more: str = "") -> str:
    return (
        f"<domain type='qemu'><name>life</name><uuid>{UUID}</uuid>"
        "<memory unit='MiB'>32</memory><vcpu current='1'>2</vcpu>"
        f"<os><type arch='x86_64' machine='pc'>hvm</type></os>{more}"
        f"<devices><serial type='pty'/>{devices}</devices></domain>"
    )


@pytest.fixture(scope="session")
def probe_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probe")


def status_of(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_from_define_to_undefine(tmp_path: Path, probe_cache: Path) -> None:
    async with real_host(tmp_path, probe_cache) as host:
        guest = await host.registry.define(xml())
        await guest.start()
        assert guest.running is not None
        pid = guest.running.pid
        assert guest.live is not None
        assert (guest.live.devices.serials[0].path or "").startswith("/dev/pts/")
        assert guest.live.devices.consoles[0].tty == guest.live.devices.serials[0].path
        await guest.suspend()
        await guest.resume()
        await guest.reset()
        await guest.destroy()
        assert not alive(pid)
        await guest.undefine()
        assert host.lifecycle == [
            "DEFINED/ADDED",
            "RESUMED/UNPAUSED",
            "STARTED/BOOTED",
            "SUSPENDED/PAUSED",
            "RESUMED/UNPAUSED",
            "SHUTDOWN/HOST",
            "STOPPED/DESTROYED",
            "UNDEFINED/REMOVED",
        ]
        assert list((tmp_path / "run").iterdir()) == []


async def test_a_hanging_qemu_dies_with_its_connection(tmp_path: Path, probe_cache: Path) -> None:
    """L3: stopped with SIGSTOP it answers nothing and obeys no SIGTERM."""
    async with real_host(tmp_path, probe_cache) as host:
        link = FakeLink()
        guest = await host.registry.create(xml(), StartFlags.AUTODESTROY, link)
        running = guest.running
        assert running is not None
        os.kill(running.pid, signal.SIGSTOP)
        hanging = asyncio.ensure_future(guest.suspend())
        await asyncio.sleep(0.01)
        began = time.monotonic()
        link.close()
        await running.stopped.wait()
        assert time.monotonic() - began < 1.0
        assert not alive(running.pid)
        with pytest.raises((InternalError, OperationInvalid)):
            await hanging
        assert host.lifecycle[-2:] == ["SHUTDOWN/HOST", "STOPPED/DESTROYED"]


async def test_a_start_that_fails_quotes_qemu(tmp_path: Path, probe_cache: Path) -> None:
    disk = "<disk type='file'><source file='/absent/disk.raw'/><target dev='vda'/></disk>"
    async with real_host(tmp_path, probe_cache) as host:
        with pytest.raises(InternalError, match=r"/absent/disk\.raw"):
            await host.registry.create(xml(disk))
        assert len(host.registry) == 0
        assert list((tmp_path / "run").iterdir()) == []


async def test_a_qemu_killed_by_others_is_noticed(tmp_path: Path, probe_cache: Path) -> None:
    async with real_host(tmp_path, probe_cache) as host:
        guest = await host.registry.define(xml())
        await guest.start()
        running = guest.running
        assert running is not None
        os.kill(running.pid, signal.SIGKILL)
        await running.stopped.wait()
        assert (guest.state, guest.reason) == (State.SHUTOFF, ShutoffReason.CRASHED)
        assert host.lifecycle[-1] == "STOPPED/FAILED"


async def test_a_later_daemon_finds_the_guest_again(tmp_path: Path, probe_cache: Path) -> None:
    async with real_host(tmp_path, probe_cache, keep=True) as first:
        guest = await first.registry.create(xml())
        assert guest.running is not None
        pid = guest.running.pid
    assert alive(pid)
    async with real_host(tmp_path, probe_cache) as second:
        await recover(second.registry)
        guest = second.registry.lookup_by_name("life")
        assert (guest.state, guest.reason) == (State.RUNNING, RunningReason.BOOTED)
        await guest.suspend()
        await guest.destroy()
        # We are its parent still, though not as the second host: collect it here.
        assert (await asyncio.to_thread(os.waitpid, pid, 0))[0] == pid


async def test_managed_save_and_the_start_after_it(tmp_path: Path, probe_cache: Path) -> None:
    async with real_host(tmp_path, probe_cache) as host:
        guest = await host.registry.define(xml())
        await guest.start()
        await guest.managed_save()
        assert (guest.state, guest.reason) == (State.SHUTOFF, ShutoffReason.SAVED)
        image = tmp_path / "save" / "life.save"
        assert image.stat().st_size > 100_000
        host.events.clear()
        await guest.start()
        assert (guest.state, guest.reason) == (State.RUNNING, RunningReason.RESTORED)
        assert host.lifecycle == ["STARTED/RESTORED", "RESUMED/FROM_SNAPSHOT"]
        assert not image.exists()


async def test_save_and_restore_of_a_transient_paused_guest(
    tmp_path: Path, probe_cache: Path
) -> None:
    async with real_host(tmp_path, probe_cache) as host:
        guest = await host.registry.create(xml(), StartFlags.PAUSED)
        path = tmp_path / "x.save"
        await guest.save(path)
        assert len(host.registry) == 0
        guest = await host.registry.restore(path)
        assert guest.state is State.PAUSED
        with pytest.raises(OperationInvalid, match="already active"):
            await host.registry.restore(path)


async def test_a_save_nobody_can_write_leaves_the_guest_running(
    tmp_path: Path, probe_cache: Path
) -> None:
    async with real_host(tmp_path, probe_cache) as host:
        guest = await host.registry.create(xml())
        with pytest.raises(Exception, match="No such file"):
            await guest.save(tmp_path / "absent" / "x.save")
        assert (guest.state, guest.reason) == (State.RUNNING, RunningReason.SAVE_CANCELED)
        assert guest.job is None


async def test_numbers_of_a_running_guest(tmp_path: Path, probe_cache: Path) -> None:
    disk = tmp_path / "d.raw"
    disk.write_bytes(bytes(1 << 20))
    devices = (
        f"<disk type='file'><driver name='qemu' type='raw'/><source file='{disk}'/>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    async with real_host(tmp_path, probe_cache) as host:
        guest = await host.registry.create(xml(devices))
        [(_, found)] = await stats.all_stats([guest])
        values = {stat.name: stat.value for stat in found}
        assert values["vcpu.current"] == 1
        assert values["block.0.capacity"] == 1 << 20
        assert values["balloon.current"] == 32 * 1024
        assert "vcpu.0.time" in values
        assert (await stats.block_info(guest, "vda")).capacity == 1 << 20
        await modify.set_vcpus(guest, 2)
        assert len(stats.vcpus(guest)) == 2
        await guest.destroy()


async def test_a_hanging_qemu_delays_no_statistics(tmp_path: Path, probe_cache: Path) -> None:
    """L6."""
    disk = tmp_path / "d.raw"
    disk.write_bytes(bytes(1 << 20))
    devices = (
        f"<disk type='file'><driver name='qemu' type='raw'/><source file='{disk}'/>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    async with real_host(tmp_path, probe_cache) as host:
        guest = await host.registry.create(xml(devices))
        await stats.all_stats([guest])
        assert guest.running is not None
        os.kill(guest.running.pid, signal.SIGSTOP)
        began = time.monotonic()
        [(_, found)] = await stats.all_stats([guest])
        assert time.monotonic() - began < 1.0
        assert {s.name: s.value for s in found}["block.0.capacity"] == 1 << 20
        os.kill(guest.running.pid, signal.SIGCONT)


async def test_one_person_at_a_console(tmp_path: Path, probe_cache: Path) -> None:
    async with real_host(tmp_path, probe_cache) as host:
        guest = await host.registry.create(xml())
        consoles, taken = Consoles(), []
        first = consoles.open_console(guest, None, 0, lambda: taken.append(1))
        with pytest.raises(Exception, match="Active console session exists for this domain"):
            consoles.open_console(guest, "serial0", 0, lambda: None)
        second = consoles.open_console(guest, None, 1, lambda: taken.append(2))
        assert taken == [1]
        first.close()
        await guest.destroy()
        assert taken == [1, 2]
        second.close()


async def test_a_picture_of_the_screen(tmp_path: Path, probe_cache: Path) -> None:
    async with real_host(tmp_path, probe_cache) as host:
        guest = await host.registry.create(xml("<graphics type='vnc'/>"))
        assert guest.live is not None
        assert (guest.live.devices.graphics[0].port or 0) >= 5900
        shot = await screenshot.take(guest)
        with os.fdopen(shot.fd, "rb") as stream:
            assert stream.read(8) == b"\x89PNG\r\n\x1a\n"
        assert shot.mime == "image/png"
        await guest.destroy()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a QEMU as somebody else")
async def test_an_unprivileged_qemu(probe_cache: Path) -> None:
    """Sockets, terminals, files, disks and the save image work for a QEMU that may do nothing."""
    nobody = User(65534, 65534)
    # Not below pytest's own directory, which nobody else may enter.
    with tempfile.TemporaryDirectory(prefix="sterna-unprivileged-") as name:
        os.chmod(name, 0o711)
        root = Path(name)
        disk = root / "d.raw"
        disk.write_bytes(bytes(1 << 20))
        devices = (
            f"<disk type='file'><driver name='qemu' type='raw'/><source file='{disk}'/>"
            "<target dev='vda' bus='virtio'/></disk>"
            f"<serial type='file'><source path='{root}/log/serial.log'/></serial>"
            "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
            "<graphics type='vnc'/>"
        )
        async with real_host(root, probe_cache, user=nobody) as host:
            guest = await host.registry.define(xml(devices))
            await guest.start()
            assert guest.running is not None
            assert "Uid:\t65534\t65534\t65534\t65534" in status_of(guest.running.pid)
            assert "CapEff:\t0000000000000000" in status_of(guest.running.pid)
            shot = await screenshot.take(guest)
            os.close(shot.fd)
            await guest.managed_save()
            await guest.start()
            assert guest.reason is RunningReason.RESTORED
            await guest.destroy()


async def hmp(guest: Guest, line: str) -> None:
    assert guest.running is not None
    arguments = {"command-line": line}
    await guest.running.qemu.execute("human-monitor-command", arguments, timeout_s=10)


POWER_OFF = "o /w 0x604 0x2000"
"""What a guest writes to the PIIX4's power management port to switch itself off."""
PANIC = "o /b 0x505 1"
"""What a guest's panic handler writes to the pvpanic device's port."""
ACPI = "<features><acpi/></features>"


@pytest.mark.parametrize(
    ("more", "line", "events"),
    [
        ("", POWER_OFF, ["SHUTDOWN/GUEST", "STOPPED/SHUTDOWN"]),
        (
            "<on_reboot>destroy</on_reboot>",
            "system_reset",
            ["SHUTDOWN/HOST", "STOPPED/SHUTDOWN"],
        ),
        ("", PANIC, ["SUSPENDED/PAUSED", "CRASHED/PANICKED", "STOPPED/CRASHED"]),
        (
            "<on_crash>restart</on_crash>",
            PANIC,
            ["SUSPENDED/PAUSED", "CRASHED/PANICKED", "RESUMED/UNPAUSED"],
        ),
        ("", "quit", ["SHUTDOWN/HOST", "STOPPED/SHUTDOWN"]),
        ("", "stop", ["SUSPENDED/PAUSED"]),
    ],
)
async def test_what_happens_by_itself_is_told_as_libvirt_tells_it(
    tmp_path: Path, probe_cache: Path, more: str, line: str, events: list[str]
) -> None:
    """The same lines gave the same events with libvirt 9.0."""
    async with real_host(tmp_path, probe_cache) as host:
        guest = await host.registry.define(xml("<panic model='isa'/>", ACPI + more))
        await guest.start()
        # The firmware switches the power management port on within its first moments.
        await asyncio.sleep(0.5)
        host.events.clear()
        with contextlib.suppress(InternalError):
            await hmp(guest, line)
        await host.wait_for(lambda: events[-1] in host.lifecycle)
        assert host.lifecycle == events


async def test_on_poweroff_restart_is_a_reboot(tmp_path: Path, probe_cache: Path) -> None:
    async with real_host(tmp_path, probe_cache) as host:
        more = ACPI + "<on_poweroff>restart</on_poweroff>"
        guest = await host.registry.create(xml(more=more))
        await asyncio.sleep(0.5)
        host.events.clear()
        await hmp(guest, POWER_OFF)
        await host.wait_for(lambda: any(isinstance(e, RebootEvent) for e in host.events))
        assert guest.state is State.RUNNING
        assert host.lifecycle == []


async def test_a_lost_monitor_is_found_again(
    tmp_path: Path, probe_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sterna.guest.reattach.GONE_S", 0.05)
    async with real_host(tmp_path, probe_cache) as host:
        guest = await host.registry.create(xml())
        running = guest.running
        assert running is not None
        assert running.monitor is not None
        lost = running.monitor
        lost.close("a breach of the protocol")
        async with asyncio.timeout(10):
            while running.monitor is lost:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
        await guest.suspend()
        assert guest.state is State.PAUSED


@pytest.mark.parametrize(
    ("flags", "magic", "events"),
    [
        (DumpFlags.NONE, b"QEVM", ["SUSPENDED/PAUSED", "RESUMED/UNPAUSED"]),
        (DumpFlags.LIVE, b"QEVM", ["SUSPENDED/PAUSED", "RESUMED/UNPAUSED"]),
        (DumpFlags.MEMORY_ONLY, b"\x7fELF", ["SUSPENDED/PAUSED", "RESUMED/UNPAUSED"]),
        (DumpFlags.CRASH, b"QEVM", ["SUSPENDED/PAUSED", "STOPPED/CRASHED"]),
    ],
)
async def test_a_dump(
    tmp_path: Path, probe_cache: Path, flags: DumpFlags, magic: bytes, events: list[str]
) -> None:
    """The events are those of libvirt 9.0."""
    async with real_host(tmp_path, probe_cache) as host:
        guest = await host.registry.create(xml())
        host.events.clear()
        await dump(guest, tmp_path / "core", flags)
        assert content(tmp_path / "core").startswith(magic)
        assert host.lifecycle == events
        assert guest.job is None
        with pytest.raises(OperationInvalid if flags & DumpFlags.CRASH else SystemCallError):
            await dump(guest, tmp_path / "absent" / "core")


def content(path: Path) -> bytes:
    return path.read_bytes()


def test_dump_flags_that_contradict_each_other() -> None:
    with pytest.raises(BadArgument, match="'VIR_DUMP_CRASH' and 'VIR_DUMP_LIVE' are mutually"):
        asyncio.run(dump(None, Path("/x"), DumpFlags.CRASH | DumpFlags.LIVE))  # type: ignore[arg-type]  # refused before it is looked at
    with pytest.raises(InvalidArg, match="only supported with memory-only"):
        asyncio.run(dump(None, Path("/x"), format=1))  # type: ignore[arg-type]  # the same
