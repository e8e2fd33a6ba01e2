"""Offline migration between two hosts: the definition moves, and the guest with it (L1, L2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest

from sterna.errors import (
    ConfigUnsupported,
    MigrateFinishOk,
    OperationFailed,
    OperationInvalid,
    SternaError,
)
from sterna.guest.flags import StartFlags
from sterna.guest.states import State
from sterna.migration.answers import Host, Prepared
from sterna.migration.cookie import Step, parse_cookie
from sterna.migration.service import Migrations
from sterna.rpc.enums import MigrateFlag
from support.fake_host import domain_xml, fake_host, until
from support.links import FakeLink
from support.memory_store import MemoryStore
from support.moving_pair import GUEST, Pair, pair

F = MigrateFlag
OFFLINE = F.OFFLINE | F.PERSIST_DEST | F.CHANGE_PROTECTION
PURE = OFFLINE | F.UNDEFINE_SOURCE


@asynccontextmanager
async def shut_off(root: Path) -> AsyncIterator[Pair]:
    """The guest is defined at the source and does not run."""
    async with pair(root) as two:
        await two.source.registry.define(domain_xml())
        await two.guest.destroy()
        yield two


async def prepared(two: Pair, flags: MigrateFlag = OFFLINE) -> Prepared:
    return await two.prepare(await two.begin(flags), flags)


def holders(two: Pair) -> tuple[str, ...]:
    """Who has the guest, as each host's store says."""
    stores = (two.source.store, two.destination.store)
    return tuple(
        store._ownerships[GUEST].holder if GUEST in store._ownerships else "" for store in stores
    )


async def test_a_definition_moves(tmp_path: Path) -> None:
    async with shut_off(tmp_path) as two:
        assert (await prepared(two)).uri_out is None
        finished = await two.finish(b"", OFFLINE)
        assert (finished.name, finished.id) == ("web", -1)
        await two.confirm(finished.cookie)
        there = two.destination.registry.lookup_by_uuid(GUEST)
        assert (there.persistent, there.job, two.guest.job) == (True, None, None)
        assert two.destination.lifecycle == ["DEFINED/ADDED"]
        [kept] = await two.destination.store.definitions()
        assert (kept.uuid, kept.name) == (GUEST, "web")
        assert two.verdicts == ["committed"]
        assert holders(two) == ("elsewhere", "here")
        assert two.guest.persistent
        assert "migrate" not in two.source.launcher.monitor.commands


async def test_the_sources_copy_is_a_stale_one_then(tmp_path: Path) -> None:
    """It starts only once the holder has given it back."""
    async with shut_off(tmp_path) as two:
        await prepared(two)
        await two.confirm((await two.finish(b"", OFFLINE)).cookie)
        there = two.destination.registry.lookup_by_uuid(GUEST)
        await there.start(StartFlags.NONE, None)
        with pytest.raises(OperationInvalid, match="belongs to"):
            await two.guest.start(StartFlags.NONE, None)
        await there.destroy()
        await two.guest.start(StartFlags.NONE, None)
        assert holders(two) == ("here", "elsewhere")


async def test_undefined_at_the_source(tmp_path: Path) -> None:
    async with shut_off(tmp_path) as two:
        await prepared(two, PURE)
        await two.confirm((await two.finish(b"", PURE)).cookie)
        await until(lambda: two.source.registry.find(GUEST) is None)
        await until(lambda: not two.source.store._definitions)
        [there] = await two.destination.store.history()
        assert (there.kind, there.detail["succeeded"]) == ("migrated here", True)
        here = (await two.source.store.history())[0]
        assert (here.kind, here.detail["succeeded"]) == ("migrated away", True)


async def test_autokill(tmp_path: Path) -> None:
    """No ghost is left that nobody can undefine (W10)."""
    async with shut_off(tmp_path) as two:
        await prepared(two)
        assert two.destination.registry.find(GUEST) is not None
        two.to_destination.close()
        await until(lambda: two.destination.registry.find(GUEST) is None)
        await until(lambda: two.verdicts == ["aborted"])
        await two.confirm(b"", cancelled=True)
        assert two.guest.job is None
        assert holders(two) == ("", "")
        await two.guest.start(StartFlags.NONE, None)


async def test_the_controller_of_the_source_goes(tmp_path: Path) -> None:
    async with shut_off(tmp_path) as two:
        await prepared(two)
        two.to_source.close()
        assert two.guest.job is None
        with pytest.raises(OperationInvalid, match="does not hand domain 'web' over"):
            await two.finish(b"", OFFLINE)
        assert two.destination.registry.find(GUEST) is None
        await two.guest.start(StartFlags.NONE, None)


async def test_it_goes_after_finish(tmp_path: Path) -> None:
    """The source asks by itself, and then knows that the guest is away."""
    async with shut_off(tmp_path) as two:
        await prepared(two, PURE)
        await two.finish(b"", PURE)
        assert holders(two) == ("leaving", "here")
        two.to_source.close()
        departed = two.here.custody.departed(GUEST)
        assert departed is not None
        await departed.ask_now()
        await until(lambda: two.source.registry.find(GUEST) is None)
        assert holders(two) == ("elsewhere", "here")


async def test_finish_told_to_cancel(tmp_path: Path) -> None:
    async with shut_off(tmp_path) as two:
        await prepared(two)
        with pytest.raises(MigrateFinishOk):
            await two.finish(b"", OFFLINE, cancelled=True)
        assert two.destination.registry.find(GUEST) is None
        await two.confirm(b"", cancelled=True)
        assert two.guest.job is None


async def test_a_finish_whose_caller_has_gone_does_not_run(tmp_path: Path) -> None:
    """The source gave it away; it asks, and has it again (I2, L2)."""
    async with shut_off(tmp_path) as two:
        await prepared(two)
        two.to_destination.peer_gone = lambda: True  # type: ignore[method-assign]  # a fake of ours
        with pytest.raises(OperationFailed, match="has ended"):
            await two.finish(b"", OFFLINE)
        assert two.verdicts == ["aborted"]
        await two.confirm(b"", cancelled=True)
        await until(lambda: holders(two) == ("here", ""))
        await two.guest.start(StartFlags.NONE, None)


async def test_a_source_that_cannot_be_asked_keeps_it(tmp_path: Path) -> None:
    async with shut_off(tmp_path) as two:
        await prepared(two)
        two.peers.reachable = False
        with pytest.raises(OperationFailed, match="cannot be taken over from hosta"):
            await two.finish(b"", OFFLINE)
        assert two.destination.registry.find(GUEST) is None
        await two.confirm(b"", cancelled=True)
        assert holders(two) == ("", "")


async def test_confirm_that_says_otherwise(tmp_path: Path) -> None:
    """Only the destination's own word counts (L5)."""
    async with shut_off(tmp_path) as two:
        await prepared(two)
        await two.finish(b"", OFFLINE)
        with pytest.raises(OperationInvalid, match="has taken domain 'web'"):
            await two.confirm(b"", cancelled=True)
        await until(lambda: holders(two) == ("elsewhere", "here"))


async def test_confirm_without_a_cookie_asks(tmp_path: Path) -> None:
    async with shut_off(tmp_path) as two:
        await prepared(two)
        await two.finish(b"", OFFLINE)
        await two.confirm(b"")
        assert holders(two) == ("elsewhere", "here")


async def test_nobody_answers_at_confirm(tmp_path: Path) -> None:
    """The guest is nobody's until somebody does, and does not start here meanwhile."""
    async with shut_off(tmp_path) as two:
        await prepared(two)
        await two.finish(b"", OFFLINE)
        two.peers.reachable = False
        with pytest.raises(OperationFailed, match="nobody knows yet"):
            await two.confirm(b"", cancelled=True)
        assert two.guest.job is None
        assert holders(two) == ("leaving", "here")
        departed = two.here.custody.departed(GUEST)
        assert departed is not None
        two.peers.reachable = True
        await departed.ask_now()
        await until(lambda: holders(two) == ("elsewhere", "here"))


async def test_confirm_of_what_was_never_claimed(tmp_path: Path) -> None:
    """A Sterna claims before it decides: this cookie is no proof of anything."""
    async with shut_off(tmp_path) as two:
        made = await prepared(two)
        with pytest.raises(OperationInvalid, match="nothing proves"):
            await two.confirm(made.cookie)
        assert two.guest.persistent
        await two.confirm(b"", cancelled=True)


async def test_a_destination_that_is_not_sterna(tmp_path: Path) -> None:
    """It never claims, and its cookie has nothing of ours: libvirt's rules are all there is."""
    async with shut_off(tmp_path) as two:
        await two.begin(PURE)
        await two.confirm(b"")
        await until(lambda: two.source.registry.find(GUEST) is None)


async def test_the_store_fails(tmp_path: Path) -> None:
    async with shut_off(tmp_path) as two:
        await prepared(two)
        two.source.store.fail_next = 1
        with pytest.raises(SternaError):
            await two.finish(b"", OFFLINE)
        assert two.destination.registry.find(GUEST) is None
        await two.confirm(b"", cancelled=True)
        await prepared(two)
        two.destination.store.fail_next = 1
        with pytest.raises(SternaError):
            await two.finish(b"", OFFLINE)
        assert await two.destination.store.definitions() == []
        await two.confirm(b"", cancelled=True)
        await until(lambda: holders(two)[0] == "here")


async def test_a_write_that_landed_although_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shut_off(tmp_path) as two:
        await prepared(two)
        decide = MemoryStore.decide

        async def landed(self: MemoryStore, *args: object, **more: object) -> object:
            await decide(self, *args, **more)  # type: ignore[arg-type]  # passed through
            self.fail_next = 1
            self._writing()
            raise AssertionError

        monkeypatch.setattr(MemoryStore, "decide", landed)
        await two.confirm((await two.finish(b"", OFFLINE)).cookie)
        assert two.destination.registry.lookup_by_uuid(GUEST).persistent


async def test_a_destination_that_dies_right_after_the_decision(tmp_path: Path) -> None:
    """The definition came with it: the next daemon has the guest (L2)."""
    async with shut_off(tmp_path) as two:
        await prepared(two)
        await two.finish(b"", OFFLINE)
        (tmp_path / "c").mkdir()
        async with fake_host(tmp_path / "c", before=two.destination) as later:
            again = Migrations(later.registry, Host("hostb", UUID(int=2)), two.peers)
            await again.go_on([])
            assert len(await later.store.definitions()) == 1
            assert again.custody.owners.away(GUEST) is None


async def test_begin_refuses(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        with pytest.raises(OperationInvalid, match="domain is running"):
            await two.begin(OFFLINE)
        await two.source.registry.define(domain_xml())
        await two.guest.destroy()
        with pytest.raises(OperationInvalid, match="needs change protection"):
            await two.begin(OFFLINE & ~F.CHANGE_PROTECTION)
        other = domain_xml().replace("<vcpu>2", "<vcpu>3")
        with pytest.raises(ConfigUnsupported, match="does not match source"):
            await two.begin(OFFLINE, xml=other)
        two.guest.has_managed_save = True
        with pytest.raises(OperationInvalid, match="saved memory"):
            await two.begin(OFFLINE)
        two.guest.has_managed_save = False
        assert two.guest.job is None
        with pytest.raises(SternaError):
            await two.begin(F.LIVE | F.CHANGE_PROTECTION)


async def test_the_job_is_held_meanwhile(tmp_path: Path) -> None:
    async with shut_off(tmp_path) as two:
        await prepared(two)
        assert two.guest.job is not None
        assert two.to_source.silence_s_max is not None
        assert two.to_destination.silence_s_max is not None
        starting = asyncio.create_task(two.guest.start(StartFlags.NONE, None))
        await two.confirm((await two.finish(b"", OFFLINE)).cookie)
        await starting  # the destination has no use for it, so it is given back
        assert holders(two) == ("here", "elsewhere")


async def test_there_it_runs_already(tmp_path: Path) -> None:
    async with shut_off(tmp_path) as two:
        begun = await two.begin(OFFLINE)
        await two.destination.registry.create(domain_xml())
        with pytest.raises(OperationInvalid, match="already active"):
            await two.prepare(begun, OFFLINE)
        assert two.destination.registry.lookup_by_uuid(GUEST).state is State.RUNNING


async def test_its_name_and_definition_there(tmp_path: Path) -> None:
    async with shut_off(tmp_path) as two:
        renamed = two.request(OFFLINE, xml=domain_xml("other"))
        begun = await two.begin(OFFLINE)
        cookie = parse_cookie(begun.cookie, Step.PREPARE, host_uuid=UUID(int=9))
        assert cookie is not None
        assert cookie.own is not None
        assert cookie.own.asks == two.peers.place
        link = FakeLink()
        with pytest.raises(SternaError, match="unexpected name"):
            await two.there.destination.prepare(link, renamed, renamed.xml or "", begun.cookie)
