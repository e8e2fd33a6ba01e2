"""The destination's daemon dies with a migration under way, and is started again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from sterna.config import DomainDef, format_domain, parse_domain
from sterna.errors import SternaError
from sterna.guest.actor import Guest
from sterna.guest.recover import recover
from sterna.guest.states import PausedReason, RunningReason, ShutoffReason, State
from sterna.migration.cookie import Cookie, Own, format_cookie
from sterna.migration.params import Request
from sterna.migration.service import Host, Migrations
from sterna.rpc.enums import MigrateFlag
from support.fake_host import FakeHost, domain_xml, fake_host, until
from support.fake_peers import FakePeers
from support.fake_qemu import FakeMonitor
from support.links import FakeLink

MIGRATION = "0b0a7e0e-7d0c-4b58-9a7e-0e7d0c4b589a"
HERE = Host("there", UUID(int=2))
PARAMETERS = {"downtime-limit": 300, "max-bandwidth": 5}


@dataclass
class Restarted:
    host: FakeHost
    migrations: Migrations

    @property
    def guest(self) -> Guest:
        return self.host.registry.lookup_by_name("web")

    @property
    def monitor(self) -> FakeMonitor:
        return self.host.launcher.monitor


def teach(host: FakeHost) -> None:
    """An incoming QEMU that has everything as soon as it listens."""
    connect = host.launcher.connect

    async def taught(running: Any) -> FakeMonitor:
        monitor = await connect(running)
        monitor.replies |= {
            "query-migrate-parameters": PARAMETERS,
            "query-migrate-capabilities": [{"capability": "return-path", "state": True}],
            "query-status": {"status": "paused", "running": False},
        }
        monitor.says["migrate-incoming"] = [("MIGRATION", {"status": "completed"})]
        return monitor

    host.launcher.connect = taught  # type: ignore[method-assign] # a fake of ours


@contextlib.asynccontextmanager
async def restarted(
    root: Path,
    flags: MigrateFlag = MigrateFlag.LIVE,
    *,
    finish: bool = True,
    gone: bool = False,
    full: bool = False,
) -> AsyncIterator[Restarted]:
    """A daemon after one that died: in `cont`, thus after the decision, or before any Finish."""
    async with fake_host(root) as first:
        teach(first)
        xml = format_domain(await first.registry.complete(_definition()), migratable=True)
        own = Own(MIGRATION, sent=True)
        uuid = _definition().uuid
        assert uuid is not None
        cookie = format_cookie(Cookie("web", uuid, "here", UUID(int=1), own=own))
        migrations, link = Migrations(first.registry, HERE, FakePeers()), FakeLink()
        request = Request(flags, migrate_uri=f"unix://{root}/data", name="web")
        await migrations.destination.prepare(link, request, xml, cookie)
        finishing: asyncio.Future[Any] | None = None
        if finish:
            first.launcher.monitor.hanging |= {"cont", "migrate-set-parameters"}
            finishing = asyncio.ensure_future(
                migrations.destination.finish(link, request, cookie, cancelled=False)
            )
            await until(lambda: first.store._decisions)
        lives = await first.store.lives()
        process = first.launcher.process
        first.launcher.monitor.close()
        process.end(-9)
        if finishing is not None:
            with contextlib.suppress(SternaError):
                await finishing
        link.close()
        await until(lambda: len(first.registry) == 0)
    # What its daemon did after the moment of its death never was.
    for uuid, record in lives.items():
        await first.store.put_live(uuid, record)
    if not gone:
        process.exit = None
    if not finish:
        first.store._decisions.clear()
    first.store.fail_next = 1 if full else 0
    async with fake_host(root, before=first) as host:
        again = Migrations(host.registry, HERE, FakePeers())
        await again.go_on(await recover(host.registry))
        yield Restarted(host, again)
        await again.settle(1)
        for guest in host.registry.all():
            if guest.active:
                await guest.destroy()


def _definition() -> DomainDef:
    return parse_domain(domain_xml())


async def test_committed_it_is_let_run(tmp_path: Path) -> None:
    """L2: nobody else would. Then it is a guest like any other."""
    async with restarted(tmp_path) as it:
        await until(lambda: it.guest.job is None)
        assert (it.guest.state, it.guest.reason) == (State.RUNNING, RunningReason.MIGRATED)
        assert it.monitor.commands.count("cont") == 1
        assert ("migrate-set-parameters", PARAMETERS) in it.monitor.asked
        [record] = (await it.host.store.lives()).values()
        assert not record["incoming"]
        assert record["job"] is None
        assert not it.guest.persistent


async def test_committed_to_be_paused_it_stays_so(tmp_path: Path) -> None:
    async with restarted(tmp_path, MigrateFlag.PAUSED) as it:
        await until(lambda: it.guest.job is None)
        assert (it.guest.state, it.guest.reason) == (State.PAUSED, PausedReason.USER)
        assert "cont" not in it.monitor.commands


async def test_committed_to_be_kept_it_is_written_down(tmp_path: Path) -> None:
    async with restarted(tmp_path, MigrateFlag.PERSIST_DEST) as it:
        await until(lambda: it.guest.job is None)
        assert it.guest.persistent
        assert [row.name for row in await it.host.store.definitions()] == ["web"]


async def test_a_second_crash_changes_nothing(tmp_path: Path) -> None:
    """Its record says all the time what it was told."""
    async with restarted(tmp_path) as it:
        assert it.guest.job is not None
        [record] = (await it.host.store.lives()).values()
        assert record["incoming"]
        assert record["job"]["data"]["migration"] == MIGRATION


async def test_undecided_it_is_aborted_and_killed(tmp_path: Path) -> None:
    async with restarted(tmp_path, finish=False) as it:
        assert it.host.launcher.process.exit is not None
        assert it.host.store._decisions[MIGRATION].verdict == "aborted"
        await until(lambda: len(it.host.registry) == 0)
        assert await it.host.store.lives() == {}


async def test_undecided_it_is_killed_though_nothing_can_be_written(tmp_path: Path) -> None:
    """A full disk must not keep an orphan alive."""
    async with restarted(tmp_path, finish=False, full=True) as it:
        assert it.host.launcher.process.exit is not None
        await until(lambda: len(it.host.registry) == 0)
        assert it.host.store._decisions == {}


async def test_undecided_and_killed_by_the_guardian_it_is_aborted(tmp_path: Path) -> None:
    """The guardian writes nothing, so the start does."""
    async with restarted(tmp_path, finish=False, gone=True) as it:
        assert it.host.store._decisions[MIGRATION].verdict == "aborted"
        assert len(it.host.registry) == 0
        assert await it.host.store.lives() == {}


async def test_a_definition_whose_arrival_failed_is_not_said_to_have_crashed(
    tmp_path: Path,
) -> None:
    async with fake_host(tmp_path) as host:
        await host.registry.define(domain_xml())
        guest = host.registry.lookup_by_name("web")
        record = {"v": 1, "pid": 7, "start_time": 7, "boot": "other", "id": 1, "incoming": True}
        more = {"xml": domain_xml(), "run_dir": "r", "log_path": "l", "launched": True}
        job = {"data": {"migration": MIGRATION}}
        late = {"started_at": 0.0, "reboot_on_shutdown": False, "job": job}
        await host.store.put_live(guest.uuid, {**record, **more, **late})
    async with fake_host(tmp_path, before=host) as again:
        await recover(again.registry)
        guest = again.registry.lookup_by_name("web")
        assert (guest.state, guest.reason) == (State.SHUTOFF, ShutoffReason.FAILED)
