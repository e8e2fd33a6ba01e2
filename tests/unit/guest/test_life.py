"""A guest's life from start to end, over a QEMU that is a fake: states, events, records, kills."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
from pathlib import Path

import pytest

from sterna.errors import (
    InternalError,
    OperationInvalid,
    OperationTimeout,
    ResourceBusy,
    SystemCallError,
)
from sterna.guest.flags import StartFlags
from sterna.guest.jobs import Call, Operation
from sterna.guest.states import (
    PausedReason,
    RunningReason,
    ShutoffReason,
    State,
)
from support.fake_host import domain_xml, fake_host, until
from support.links import FakeLink


async def test_start_tells_resumed_then_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """wire-protocol 6.3; the status record is there before the CPUs run (I13)."""
    async with fake_host(tmp_path) as host:
        with caplog.at_level(logging.INFO, "sterna.audit"):
            guest = await host.registry.create(domain_xml())
        assert host.lifecycle == ["RESUMED/UNPAUSED", "STARTED/BOOTED"]
        assert (guest.state, guest.reason) == (State.RUNNING, RunningReason.BOOTED)
        assert guest.id == 1
        assert "op=start reason=booted" in caplog.text
        assert "res=success" in caplog.text
        record = (await host.store.lives())[guest.uuid]
        assert (record["pid"], record["state"]) == (1000, State.RUNNING)
        assert "/dev/pts/7" in record["xml"]
        assert guest.job is None
        await guest.destroy()


async def test_start_paused(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml(), StartFlags.PAUSED)
        assert host.lifecycle == ["STARTED/BOOTED", "SUSPENDED/PAUSED"]
        assert (guest.state, guest.reason) == (State.PAUSED, PausedReason.USER)
        assert "cont" not in host.launcher.monitor.commands
        await guest.destroy()


async def test_destroy_tells_shutdown_then_stopped_and_forgets_the_transient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml())
        host.events.clear()
        with caplog.at_level(logging.INFO, "sterna.audit"):
            await guest.destroy()
        assert host.lifecycle == ["SHUTDOWN/HOST", "STOPPED/DESTROYED"]
        assert host.events[-1].guest.id == -1
        assert (guest.state, guest.reason) == (State.SHUTOFF, ShutoffReason.DESTROYED)
        assert len(host.registry) == 0
        assert await host.store.lives() == {}
        assert "op=stop reason=destroyed" in caplog.text
        [entry] = await host.store.history(guest.uuid)
        assert (entry.kind, entry.detail["reason"]) == ("stopped", "destroyed")
        assert list((tmp_path / "run").iterdir()) == []
        with pytest.raises(OperationInvalid, match="domain is not running"):
            await guest.destroy()


async def test_a_qemu_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    async with fake_host(tmp_path, stop_grace_s=0.01) as host:
        guest = await host.registry.create(domain_xml())
        host.launcher.process.deaf = True
        host.events.clear()
        await guest.destroy()
        assert host.launcher.process.signals == [signal.SIGTERM, signal.SIGKILL]
        assert host.lifecycle == ["SHUTDOWN/HOST", "STOPPED/DESTROYED"]


async def test_graceful_never_kills(tmp_path: Path) -> None:
    async with fake_host(tmp_path, stop_grace_s=0.01) as host:
        guest = await host.registry.create(domain_xml())
        host.launcher.process.deaf = True
        with pytest.raises(ResourceBusy):
            await guest.destroy(graceful=True)
        assert host.launcher.process.signals == [signal.SIGTERM]
        await guest.suspend()  # it goes on as before
        assert guest.state is State.PAUSED
        host.launcher.process.deaf = False
        await guest.destroy()


async def test_suspend_and_resume(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml())
        host.events.clear()
        await guest.suspend()
        assert (guest.state, guest.reason) == (State.PAUSED, PausedReason.USER)
        await guest.suspend()
        await guest.resume()
        assert (guest.state, guest.reason) == (State.RUNNING, RunningReason.UNPAUSED)
        with pytest.raises(OperationInvalid, match="domain is already running"):
            await guest.resume()
        assert host.lifecycle == ["SUSPENDED/PAUSED", "RESUMED/UNPAUSED"]
        await guest.destroy()


async def test_a_second_start_is_refused(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        await guest.start()
        with pytest.raises(OperationInvalid, match="domain is already running"):
            await guest.start()
        with pytest.raises(OperationInvalid, match="domain 'web' is already active"):
            await host.registry.create(domain_xml())
        await guest.destroy()
        assert len(host.registry) == 1
        await guest.start()
        assert guest.id == 2
        await guest.destroy()


async def test_a_failed_start_leaves_nothing_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with fake_host(tmp_path) as host:
        host.launcher.fail = InternalError("no such machine")
        with (
            caplog.at_level(logging.INFO, "sterna.audit"),
            pytest.raises(InternalError, match="no such machine"),
        ):
            await host.registry.create(domain_xml())
        assert host.lifecycle == []
        assert len(host.registry) == 0
        assert list((tmp_path / "run").iterdir()) == []
        assert "op=start reason=booted" in caplog.text
        assert "res=failed" in caplog.text
        assert "op=stop" not in caplog.text


async def test_an_emulator_that_cannot_be_executed_is_named(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        host.launcher.fail = PermissionError(errno.EACCES, "no")
        with pytest.raises(
            SystemCallError, match=r"Cannot start /usr/bin/qemu-system-x86_64: Permission denied"
        ):
            await host.registry.create(domain_xml())


async def test_a_qemu_that_dies_in_its_start_is_quoted(tmp_path: Path) -> None:
    """L8: QEMU's own words."""
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        host.launcher.connecting = asyncio.Event()
        starting = asyncio.ensure_future(guest.start())
        await until(lambda: host.launcher.monitors)
        (tmp_path / "log" / "web.log").write_text("qemu: no disk\n")
        host.launcher.process.end(1)
        host.launcher.connecting.set()
        with pytest.raises(InternalError, match=r"process exited while connecting.*qemu: no disk"):
            await starting
        assert (guest.state, guest.reason) == (State.SHUTOFF, ShutoffReason.FAILED)
        assert host.lifecycle == ["DEFINED/ADDED"]


async def test_a_guest_that_powers_off_is_stopped(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        await guest.start()
        host.events.clear()
        host.launcher.monitor.say("SHUTDOWN", guest=True, reason="guest-shutdown")
        host.launcher.monitor.say("STOP")
        assert guest.state is State.SHUTDOWN
        await until(lambda: not guest.active)
        assert host.lifecycle == ["SHUTDOWN/GUEST", "STOPPED/SHUTDOWN"]
        assert (guest.state, guest.reason) == (State.SHUTOFF, ShutoffReason.SHUTDOWN)


async def test_reboot_starts_again_in_the_same_qemu(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml())
        monitor = host.launcher.monitor
        await guest.reboot()
        assert monitor.commands[-1] == "system_powerdown"
        host.events.clear()
        monitor.say("SHUTDOWN", guest=True, reason="guest-shutdown")
        monitor.execute_event("STOP")
        await until(lambda: monitor.commands[-1] == "cont")
        monitor.say("RESET", guest=True, reason="guest-reset")
        await until(lambda: guest.running is not None and not guest.running.powered_off)
        assert (guest.state, guest.reason) == (State.RUNNING, RunningReason.BOOTED)
        assert host.lifecycle == []
        assert [type(e).__name__ for e in host.others] == ["RebootEvent"]
        await guest.destroy()
        assert host.lifecycle == ["SHUTDOWN/HOST", "STOPPED/DESTROYED"]


async def test_on_poweroff_restart(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml(more="<on_poweroff>restart</on_poweroff>"))
        host.events.clear()
        host.launcher.monitor.say("SHUTDOWN", guest=True, reason="guest-shutdown")
        host.launcher.monitor.execute_event("STOP")
        await until(lambda: host.launcher.monitor.commands[-1] == "cont")
        assert guest.state is State.RUNNING
        assert host.lifecycle == []
        await guest.destroy()


async def test_on_reboot_destroy(tmp_path: Path) -> None:
    """QEMU says a reset as a shutdown then."""
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml(more="<on_reboot>destroy</on_reboot>"))
        await guest.start()
        host.events.clear()
        host.launcher.monitor.say("SHUTDOWN", guest=False, reason="host-qmp-system-reset")
        host.launcher.monitor.execute_event("STOP")
        await until(lambda: not guest.active)
        assert host.lifecycle == ["SHUTDOWN/HOST", "STOPPED/SHUTDOWN"]


@pytest.mark.parametrize(
    ("action", "after"),
    [("destroy", State.SHUTOFF), ("preserve", State.CRASHED), ("restart", State.RUNNING)],
)
async def test_what_follows_a_panic(tmp_path: Path, action: str, after: State) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml(more=f"<on_crash>{action}</on_crash>"))
        await guest.start()
        host.events.clear()
        host.launcher.monitor.say("GUEST_PANICKED", action="pause")
        host.launcher.monitor.execute_event("STOP")
        await until(lambda: guest.state is after)
        assert host.lifecycle[:2] == ["SUSPENDED/PAUSED", "CRASHED/PANICKED"]
        if after is State.SHUTOFF:
            assert host.lifecycle[-1] == "STOPPED/CRASHED"
            assert guest.reason is ShutoffReason.CRASHED
        else:
            await guest.destroy()


async def test_a_qemu_found_dead_has_crashed(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        await guest.start()
        host.events.clear()
        host.launcher.process.end(-11)
        await until(lambda: not guest.active)
        assert host.lifecycle == ["STOPPED/FAILED"]
        assert guest.reason is ShutoffReason.CRASHED


async def test_an_io_error_pauses_for_its_reason(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml())
        host.events.clear()
        host.launcher.monitor.say("BLOCK_IO_ERROR", device="x", action="stop", nospace=True)
        host.launcher.monitor.say("STOP")
        assert (guest.state, guest.reason) == (State.PAUSED, PausedReason.IOERROR)
        assert host.lifecycle == ["SUSPENDED/IOERROR"]
        await guest.destroy()


# -- autokill ------------------------------------------------------------------------------------


async def test_an_autodestroy_guest_dies_in_the_very_close(tmp_path: Path) -> None:
    """L3: the signal is sent before the close callback returns."""
    async with fake_host(tmp_path) as host:
        link = FakeLink()
        guest = await host.registry.create(domain_xml(), StartFlags.AUTODESTROY, link)
        host.events.clear()
        link.close()
        assert host.launcher.process.signals == [signal.SIGKILL]
        await until(lambda: not guest.active)
        assert host.lifecycle == ["SHUTDOWN/HOST", "STOPPED/DESTROYED"]
        assert len(host.registry) == 0


async def test_autokill_waits_for_no_job_and_no_qemu(tmp_path: Path) -> None:
    """A call hangs in the monitor and holds the guest; QEMU ignores everything but SIGKILL."""
    async with fake_host(tmp_path) as host:
        link = FakeLink()
        guest = await host.registry.create(domain_xml(), StartFlags.AUTODESTROY, link)
        host.launcher.process.deaf = True
        host.launcher.monitor.hanging.add("system_reset")
        hanging = asyncio.ensure_future(guest.reset())
        await until(lambda: "system_reset" in host.launcher.monitor.commands)
        link.close()
        with pytest.raises(InternalError, match="closed the monitor"):
            await hanging
        await until(lambda: not guest.active)
        assert guest.jobs.call is None


async def test_autokill_kills_though_a_migration_job_is_held(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        link = FakeLink()
        guest = await host.registry.create(domain_xml(), StartFlags.PAUSED)
        await guest.jobs.begin_operation(Operation.MIGRATION_IN, "Prepare")
        host.surroundings.autokill.register(guest.uuid, link, guest.kill_now, incoming=True)
        with pytest.raises(OperationTimeout):
            await guest.jobs.begin(Call.MODIFY, "setmem", wait_s=0.01)
        link.close()
        await until(lambda: not guest.active)
        assert guest.job is None


@pytest.mark.parametrize("moment", ["before the spawn", "while it connects"])
async def test_a_close_during_the_launch_kills_what_comes_of_it(
    tmp_path: Path, moment: str
) -> None:
    """I8: armed before there is a QEMU."""
    async with fake_host(tmp_path) as host:
        link = FakeLink()
        if moment == "before the spawn":
            host.launcher.before_spawn = link.close
        else:
            host.launcher.connecting = asyncio.Event()
        creating = asyncio.ensure_future(
            host.registry.create(domain_xml(), StartFlags.AUTODESTROY, link)
        )
        if host.launcher.connecting is not None:
            await until(lambda: host.launcher.monitors)
            link.close()
            host.launcher.connecting.set()
        with pytest.raises((OperationInvalid, InternalError)):
            await creating
        assert all(p.exit is not None for p in host.launcher.processes)
        assert len(host.registry) == 0
        assert host.lifecycle == []


async def test_a_closed_connection_starts_nothing(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        link = FakeLink()
        link.close()
        with pytest.raises(OperationInvalid):
            await host.registry.create(domain_xml(), StartFlags.AUTODESTROY, link)
        assert host.launcher.processes == []


async def test_any_stop_takes_the_registration_back(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        link = FakeLink()
        guest = await host.registry.define(domain_xml())
        await guest.start(StartFlags.AUTODESTROY, link)
        await guest.destroy()
        assert not link.callbacks
        await guest.start()
        link.close()
        assert guest.state is State.RUNNING
        await guest.destroy()


async def test_a_destroy_of_an_incoming_guest_lets_its_owner_decide_first(tmp_path: Path) -> None:
    """L4: `aborted` is written before the kill."""
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml(), StartFlags.PAUSED)
        order: list[str] = []

        def owner() -> None:
            order.append("decided")
            guest.kill_now()

        host.surroundings.autokill.register(guest.uuid, FakeLink(), owner, incoming=True)
        await guest.destroy()
        assert order == ["decided"]
        assert host.launcher.process.signals == [signal.SIGKILL]


async def test_a_client_that_hangs_up_cancels_its_waiting_not_the_work(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        host.launcher.connecting = asyncio.Event()
        starting = asyncio.ensure_future(guest.start())
        await until(lambda: host.launcher.monitors)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        host.launcher.connecting.set()
        await until(lambda: guest.state is State.RUNNING)
        await until(lambda: guest.job is None)
        await guest.destroy()
