"""Save and restore over a fake QEMU: what goes wrong, and what the guest is then."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sterna.errors import (
    InternalError,
    OperationAborted,
    OperationFailed,
    OperationInvalid,
    SternaError,
)
from sterna.guest.events import GuestEvent, JobCompletedEvent, LifecycleEvent
from sterna.guest.flags import SaveFlags, StartFlags
from sterna.guest.jobstats import JobOperation, JobType
from sterna.guest.recover import recover
from sterna.guest.running import Running
from sterna.guest.saveimage import look
from sterna.guest.states import Lifecycle, RunningReason, ShutoffReason, State
from support.fake_host import FakeHost, domain_xml, fake_host, until
from support.fake_qemu import FakeMonitor
from support.links import FakeLink


def images(root: Path) -> list[str]:
    """Save images, whole ones and others."""
    return [path.name for path in root.iterdir() if ".save" in path.name]


def prepared(host: FakeHost, status: str | None) -> FakeMonitor:
    """The newest QEMU, whose migration ends with `status`; with None it goes on for ever."""
    monitor = host.launcher.monitor
    monitor.replies["query-migrate-parameters"] = {"max-bandwidth": 1}
    reply: dict[str, Any] = {"status": status, "ram": {"total": 7, "remaining": 3}}
    if status == "failed":
        reply["error-desc"] = "disk on fire"
    monitor.replies["query-migrate"] = reply
    if status is not None:
        monitor.says["migrate"] = [("MIGRATION", {"status": status})]
    return monitor


async def test_a_save_ends_the_guest_and_tells_of_the_job(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        await guest.start()
        monitor = prepared(host, "completed")
        host.events.clear()
        await guest.managed_save()
        assert host.lifecycle == ["SUSPENDED/PAUSED", "STOPPED/SAVED"]
        [done] = [e for e in host.events if isinstance(e, JobCompletedEvent)]
        assert (done.stats.operation, done.stats.type) == (JobOperation.SAVE, JobType.COMPLETED)
        assert guest.reason is ShutoffReason.SAVED
        assert guest.has_managed_save
        assert look(tmp_path / "save" / "web.save").running
        # What was changed for the save is put back, though this QEMU has no use for it any more.
        changed = [a for c, a in monitor.asked if c == "migrate-set-parameters"]
        assert changed[-1] == {"max-bandwidth": 1}


async def test_an_aborted_save_leaves_the_guest_as_it_was(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml())
        monitor = prepared(host, None)
        monitor.says["migrate_cancel"] = [("MIGRATION", {"status": "cancelled"})]
        saving = asyncio.ensure_future(guest.save(tmp_path / "x.save"))
        await until(lambda: guest.job is not None and guest.job.stats is not None)
        assert guest.job is not None
        assert guest.job.stats is not None
        assert guest.job.stats.memory_remaining == 3
        guest.jobs.abort()
        with pytest.raises(OperationAborted, match="canceled by client"):
            await saving
        assert (guest.state, guest.reason) == (State.RUNNING, RunningReason.SAVE_CANCELED)
        assert guest.job is None
        assert images(tmp_path) == []
        await guest.destroy()


async def test_a_failed_save_quotes_qemu(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml())
        prepared(host, "failed")
        with pytest.raises(OperationFailed, match="save job: disk on fire"):
            await guest.save(tmp_path / "x.save")
        assert guest.state is State.RUNNING
        assert images(tmp_path) == []
        await guest.destroy()


async def test_a_qemu_that_dies_in_its_save(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        await guest.start()
        prepared(host, None)
        saving = asyncio.ensure_future(guest.managed_save())
        await until(lambda: "migrate" in host.launcher.monitor.commands)
        host.launcher.process.end(-11)
        with pytest.raises(InternalError, match="closed the monitor"):
            await saving
        await until(lambda: not guest.active)
        assert guest.reason is ShutoffReason.CRASHED
        assert not guest.has_managed_save
        assert list((tmp_path / "save").iterdir()) == []


async def test_what_dies_with_its_connection_is_not_saved(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml(), StartFlags.AUTODESTROY, FakeLink())
        with pytest.raises(OperationInvalid, match="domain is marked for auto destroy"):
            await guest.save(tmp_path / "x.save")
        await guest.destroy()


async def test_a_failed_restore_keeps_the_image(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        await guest.start()
        prepared(host, "completed")
        await guest.managed_save(SaveFlags.PAUSED)
        assert not look(tmp_path / "save" / "web.save").running
        connect = host.launcher.connect

        async def failing(running: Any) -> FakeMonitor:
            monitor = await connect(running)
            monitor.says["migrate-incoming"] = [("MIGRATION", {"status": "failed"})]
            return monitor

        host.launcher.connect = failing  # type: ignore[method-assign]  # a fault port
        host.events.clear()
        with pytest.raises(OperationFailed, match="restore"):
            await guest.start()
        assert guest.reason is ShutoffReason.FAILED
        assert guest.has_managed_save
        assert host.lifecycle == []
        host.launcher.connect = connect  # type: ignore[method-assign]  # as it was
        await guest.start(StartFlags.FORCE_BOOT)
        assert guest.reason is RunningReason.BOOTED
        assert not guest.has_managed_save
        await guest.destroy()


async def test_whoever_hears_of_the_managed_save_finds_it(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        await guest.start()
        prepared(host, "completed")
        found = []

        def heard(event: GuestEvent) -> None:
            if isinstance(event, LifecycleEvent) and event.event is Lifecycle.STOPPED:
                found.append(guest.has_managed_save)

        host.surroundings.bus.subscribe(heard)
        await guest.managed_save()
        # A start at that moment must restore it, not boot anew.
        assert found == [True]


@pytest.mark.parametrize("status", ["active", "completed"])
async def test_a_daemon_that_ends_in_a_save_leaves_a_guest_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    async with fake_host(tmp_path) as first:
        guest = await first.registry.define(domain_xml())
        await guest.start()
        prepared(first, None)
        saving = asyncio.ensure_future(guest.managed_save())
        await until(lambda: "migrate" in first.launcher.monitor.commands)
    with pytest.raises(SternaError):
        await saving
    # Had it come as far as this, the image would be whole, and its QEMU not ended yet.
    (tmp_path / "save" / "web.save").touch()
    async with fake_host(tmp_path, before=first) as host:
        connect = host.launcher.connect

        async def sending(running: Running) -> FakeMonitor:
            monitor = await connect(running)
            monitor.replies["query-status"] = {"status": "paused", "running": False}
            monitor.replies["query-migrate"] = {"status": status}
            monitor.says["migrate_cancel"] = [("MIGRATION", {"status": "cancelled"})]
            return monitor

        monkeypatch.setattr(host.launcher, "connect", sending)
        await recover(host.registry)
        guest = host.registry.lookup_by_name("web")
        await until(lambda: guest.state is State.RUNNING)
        await until(lambda: guest.job is None)
        assert guest.reason is RunningReason.SAVE_CANCELED
        assert not guest.has_managed_save
        assert list((tmp_path / "save").iterdir()) == []
        await guest.destroy()
