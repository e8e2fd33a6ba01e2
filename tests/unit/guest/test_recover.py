"""Starting is recovering: what a daemon finds of the guests an earlier one left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import sterna.guest.recover as recover_module
from sterna.errors import InternalError
from sterna.guest import reattach
from sterna.guest.flags import StartFlags
from sterna.guest.jobs import Operation
from sterna.guest.recover import recover
from sterna.guest.running import Running
from sterna.guest.states import (
    PausedReason,
    RunningReason,
    ShutoffReason,
    State,
)
from sterna.qemu.qmp_errors import MonitorTimeout
from support.fake_host import domain_xml, fake_host, until
from support.fake_qemu import FakeMonitor


async def test_a_running_guest_is_managed_again(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as first:
        await first.registry.define(domain_xml())
        await first.registry.create(domain_xml())
    async with fake_host(tmp_path, before=first) as host:
        await recover(host.registry)
        guest = host.registry.lookup_by_name("web")
        assert (guest.id, guest.state, guest.reason) == (1, State.RUNNING, RunningReason.BOOTED)
        assert guest.persistent
        await guest.suspend()
        await guest.destroy()
        assert host.lifecycle == ["SUSPENDED/PAUSED", "SHUTDOWN/HOST", "STOPPED/DESTROYED"]
        await guest.start()
        assert guest.id == 2  # never a number again that a living guest has
        await guest.destroy()


async def test_what_qemu_says_corrects_the_record(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as first:
        await first.registry.create(domain_xml(), StartFlags.PAUSED)
    async with fake_host(tmp_path, before=first) as host:
        await recover(host.registry)
        guest = host.registry.lookup_by_name("web")
        assert (guest.state, guest.reason) == (State.RUNNING, RunningReason.UNPAUSED)
        assert not guest.persistent
        await guest.destroy()
        assert len(host.registry) == 0


async def test_a_guest_that_died_meanwhile_is_shut_off(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as first:
        await first.registry.define(domain_xml())
        await first.registry.create(domain_xml())
        record = await first.store.lives()
        await first.registry.lookup_by_name("web").destroy()
        for uuid, row in record.items():
            await first.store.put_live(uuid, row)
    async with fake_host(tmp_path, before=first) as host:
        await recover(host.registry)
        guest = host.registry.lookup_by_name("web")
        assert (guest.state, guest.reason) == (State.SHUTOFF, ShutoffReason.CRASHED)
        assert await host.store.lives() == {}


@pytest.mark.parametrize("verdict", ["aborted", "committed", None])
async def test_an_incoming_guest_is_aborted_unless_committed(
    tmp_path: Path, verdict: str | None
) -> None:
    """L4, I14: to find no decision makes one."""
    async with fake_host(tmp_path) as first:
        guest = await first.registry.create(domain_xml(), StartFlags.PAUSED)
        assert guest.running is not None
        guest.running.incoming = True
        job = await guest.jobs.begin_operation(Operation.MIGRATION_IN, "Prepare")
        job.data["migration"] = "m1"
        await guest.save_status()
        if verdict is not None:
            await first.store.decide("m1", verdict, guest.uuid)  # type: ignore[arg-type] # a Verdict
    async with fake_host(tmp_path, before=first) as host:
        await recover(host.registry)
        decided = await host.store.decision("m1")
        assert decided is not None
        assert decided.verdict == (verdict or "aborted")
        if verdict == "committed":
            guest = host.registry.lookup_by_name("web")
            assert guest.active
            await guest.destroy()
        else:
            await until(lambda: len(host.registry) == 0)
            assert host.launcher.process.exit is not None


async def test_a_start_that_lost_its_daemon_is_undone(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as first:
        first.launcher.connecting = asyncio.Event()
        creating = asyncio.ensure_future(first.registry.create(domain_xml()))
        await until(lambda: first.launcher.monitors)
        lives = await first.store.lives()
        assert len(lives) == 1
        first.launcher.process.deaf = True
        process = first.launcher.process
        first.launcher.process.end(0)
        first.launcher.connecting.set()
        with pytest.raises(InternalError):
            await creating
        for uuid, record in lives.items():
            await first.store.put_live(uuid, record)
        process.exit = None  # it lives after all: only its daemon died
    async with fake_host(tmp_path, before=first) as host:
        host.launcher.connecting = None
        await recover(host.registry)
        assert process.exit is not None
        assert len(host.registry) == 0


async def test_what_no_record_speaks_of_is_ended(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        (tmp_path / "run" / "7-stray").mkdir()
        await recover(host.registry)
        assert host.launcher.strays == ["7-stray"]
        assert list((tmp_path / "run").iterdir()) == []


async def test_a_guest_in_a_long_operation_is_handed_on(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as first:
        guest = await first.registry.create(domain_xml())
        job = await guest.jobs.begin_operation(Operation.MIGRATION_OUT, "Begin", phase="perform3")
        job.data["migration"] = "m1"
        await guest.save_status()
    async with fake_host(tmp_path, before=first) as host:
        [unfinished] = await recover(host.registry)
        assert unfinished.guest.name == "web"
        assert unfinished.job["phase"] == "perform3"
        assert unfinished.job["data"] == {"migration": "m1"}
        await unfinished.guest.destroy()


async def test_a_record_nobody_understands_kills_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with fake_host(tmp_path) as first:
        guest = await first.registry.create(domain_xml())
        await first.store.put_live(guest.uuid, {"v": 99, "pid": 1000})
    async with fake_host(tmp_path, before=first) as host:
        await recover(host.registry)
        assert "guest.unmanaged" in caplog.text
        assert host.launcher.process.exit is None
        assert len(host.registry) == 0


async def test_a_guest_that_powered_off_meanwhile_is_stopped(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as first:
        guest = await first.registry.define(domain_xml())
        await guest.start()
        await guest.suspend()
        assert guest.reason is PausedReason.USER
    async with fake_host(tmp_path, before=first) as host:
        connect = host.launcher.connect

        async def powered_off(running: object) -> object:
            monitor = await connect(running)  # type: ignore[arg-type]  # a Running
            monitor.replies["query-status"] = {"status": "shutdown", "running": False}
            return monitor

        host.launcher.connect = powered_off  # type: ignore[method-assign,assignment] # a fault port
        await recover(host.registry)
        guest = host.registry.lookup_by_name("web")
        await until(lambda: not guest.active)
        assert guest.reason is ShutoffReason.SHUTDOWN


async def test_a_qemu_that_hangs_does_not_hold_up_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recover_module, "ANSWER_S", 0.01)
    async with fake_host(tmp_path) as first:
        await first.registry.create(domain_xml())
    async with fake_host(tmp_path, before=first) as host:
        thawed = asyncio.Event()
        connect = host.launcher.connect

        async def later(running: Running) -> FakeMonitor:
            await thawed.wait()
            return await connect(running)

        monkeypatch.setattr(host.launcher, "connect", later)
        await recover(host.registry)
        guest = host.registry.lookup_by_name("web")
        assert guest.state is State.RUNNING
        running = guest.live_or_refuse()
        assert running.monitor is None
        thawed.set()
        await until(lambda: running.monitor is not None)
        await guest.suspend()
        await guest.destroy()


async def test_a_monitor_that_does_not_answer_is_left_for_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reattach, "RETRY_S", 0.01)
    async with fake_host(tmp_path) as first:
        await first.registry.create(domain_xml())
    async with fake_host(tmp_path, before=first) as host:
        made: list[FakeMonitor] = []
        connect = host.launcher.connect

        async def silent_at_first(running: Running) -> FakeMonitor:
            monitor = await connect(running)
            made.append(monitor)
            if len(made) == 1:
                monitor.replies["query-status"] = MonitorTimeout("query-status", timeout_s=10)
            return monitor

        monkeypatch.setattr(host.launcher, "connect", silent_at_first)
        await recover(host.registry)
        guest = host.registry.lookup_by_name("web")
        assert guest.live_or_refuse().monitor is made[1]
        assert [monitor.closed.done() for monitor in made] == [True, False]
        await guest.destroy()
