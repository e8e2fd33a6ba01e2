"""Who has a guest: no host starts a copy of what it gave away (L1)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from sterna.errors import OperationFailed, OperationInvalid, SternaError
from sterna.guest.states import ShutoffReason, State
from sterna.migration import doubt, doubtful
from sterna.migration.cookie import Cookie, Own, Step, format_cookie, parse_cookie
from sterna.migration.core import source_ways
from sterna.migration.peers import Claim, Question
from sterna.migration.service import Host, Migrations
from sterna.rpc.enums import MigrateFlag
from support.fake_host import domain_xml, fake_host, until
from support.links import FakeLink
from support.moving_pair import GUEST, LIVE, Pair, pair

NAME = "web"
SECRET = "0b0a7e0e-7d0c-4b58-9a7e-0e7d0c4b589a"
MIGRATED = "1b0a7e0e-7d0c-4b58-9a7e-0e7d0c4b589a"


async def moved(two: Pair, flags: MigrateFlag = LIVE) -> None:
    finished = await two.finish(await two.performed(flags), flags)
    await two.confirm(finished.cookie)
    await until(lambda: two.source.registry.find(GUEST) is None or not two.guest.active)


async def test_a_migration_raises_the_epoch(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        assert two.here.custody.owners.epoch(GUEST) == 0
        await moved(two)
        [here] = await two.source.store.ownerships()
        [there] = await two.destination.store.ownerships()
        assert (here.holder, here.epoch) == ("elsewhere", 1)
        assert (there.holder, there.epoch) == ("here", 1)


async def test_an_attempt_that_fails_leaves_it_here(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        await two.performed()
        [owner] = await two.source.store.ownerships()
        assert owner.holder == "leaving"
        two.to_source.close()
        two.to_destination.close()
        await until(lambda: two.guest.state is State.RUNNING and two.guest.job is None)
        await until(lambda: two.here.custody.owners.away(GUEST) is None)
        [owner] = await two.source.store.ownerships()
        assert (owner.holder, owner.epoch) == ("here", 0)


async def test_while_it_runs_there_it_does_not_start_here(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        await moved(two)
        with pytest.raises(OperationInvalid, match="belongs to hostb: it runs on host hostb"):
            await two.source.registry.create(domain_xml())
        assert two.source.registry.find(GUEST) is None


async def test_what_the_holder_does_not_use_comes_back(tmp_path: Path) -> None:
    """And then the other one's copy is the stale one."""
    async with pair(tmp_path) as two:
        await moved(two)
        await two.destination.registry.lookup_by_uuid(GUEST).destroy()
        await two.source.registry.create(domain_xml())
        assert two.guest.state is State.RUNNING
        assert two.here.custody.owners.epoch(GUEST) == 2
        with pytest.raises(OperationInvalid, match="it runs on host hosta"):
            await two.destination.registry.create(domain_xml())


async def test_a_saved_state_at_the_holder_is_in_use(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        await moved(two, LIVE | MigrateFlag.PERSIST_DEST)
        there = two.destination.registry.lookup_by_uuid(GUEST)
        await there.destroy()
        there.has_managed_save = True
        with pytest.raises(OperationInvalid, match="saved state is on host hostb"):
            await two.source.registry.create(domain_xml())


async def test_a_holder_that_does_not_answer(tmp_path: Path) -> None:
    """It is not started on a guess; a person may, by force."""
    async with pair(tmp_path) as two:
        await two.source.registry.define(domain_xml())
        await moved(two)
        owners = two.here.custody.owners
        two.peers.reachable = False
        with pytest.raises(OperationInvalid, match="nobody knows whether it runs there"):
            await two.guest.start()
        known = doubt.given_away(owners, GUEST, NAME)
        assert known is not None
        assert known["summary"] == "was handed over to hostb"
        with pytest.raises(OperationFailed, match="wants force: if it does run there"):
            await doubt.take_back(owners, GUEST, NAME, force=False)
        back = await doubt.take_back(owners, GUEST, NAME, force=True)
        assert back["by"] == "force"
        await two.guest.start()
        assert two.guest.state is State.RUNNING


async def test_force_is_no_way_past_a_holder_that_runs_it(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        await two.source.registry.define(domain_xml())
        await moved(two)
        with pytest.raises(OperationInvalid, match="it runs on host hostb"):
            await doubt.take_back(two.here.custody.owners, GUEST, NAME, force=True)


async def test_a_claim_whose_answer_was_lost_is_granted_again(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        await moved(two)
        await two.destination.registry.lookup_by_uuid(GUEST).destroy()
        id = two.here.custody.owners._known[GUEST].detail["migration"]
        claim = Claim(id, GUEST, 1, UUID(int=1), ())
        first = await two.there.custody.release(claim, "hosta")
        assert first.granted
        assert await two.there.custody.release(claim, "hosta") == first


@pytest.mark.parametrize("id", [SECRET, ""])
async def test_who_does_not_know_the_migration_gets_nothing(tmp_path: Path, id: str) -> None:
    async with pair(tmp_path) as two:
        await moved(two)
        await two.destination.registry.lookup_by_uuid(GUEST).destroy()
        said = await two.there.custody.release(Claim(id, GUEST, 9, UUID(int=7), ()), "stranger")
        assert not said.granted
        assert two.there.custody.owners.away(GUEST) is None


async def test_a_stale_copy_is_not_let_in(tmp_path: Path) -> None:
    """Its source has forgotten that it gave the guest away: a restored disk, an old store."""
    async with pair(tmp_path) as two:
        begun = await two.begin()
        known = two.there.custody.owners.arriving(GUEST, SECRET, 6)
        two.there.custody.owners.arrived(known)
        with pytest.raises(OperationInvalid, match="epoch 0, and 7 has been seen at hostb"):
            await two.prepare(begun)
        assert two.destination.registry.find(GUEST) is None
        await two.prepare(begun, LIVE | MigrateFlag.UNSAFE)


async def test_the_epoch_travels_in_the_cookies(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        finished = await two.finish(await two.performed())
        cookie = parse_cookie(finished.cookie, Step.CONFIRM, host_uuid=UUID(int=1))
        assert cookie is not None
        assert cookie.own is not None
        assert cookie.own.epoch == 1
        assert Own(cookie.own.id, decision="committed", epoch=1) == cookie.own
        assert format_cookie(cookie)


async def test_a_host_that_cannot_be_asked_takes_no_guest(tmp_path: Path) -> None:
    """Its source would have to believe whoever drives the migration. (L5)"""
    async with pair(tmp_path) as two:
        two.peers.place = None
        with pytest.raises(OperationFailed, match="cannot open or keep the port"):
            await two.prepare(await two.begin())
        assert two.destination.registry.find(GUEST) is None


async def test_what_a_stranger_got_nobody_gets_from_us(tmp_path: Path) -> None:
    """A real libvirtd has it now; we may start it by libvirt's rules, others may not claim it."""
    async with pair(tmp_path) as two:
        owners = two.there.custody.owners
        owners.arrived(owners.arriving(GUEST, SECRET, 0))
        await owners.given_to_stranger(GUEST, MIGRATED)
        for id in (SECRET, MIGRATED):
            said = await two.there.custody.release(Claim(id, GUEST, 1, UUID(int=1), ()), "hosta")
            assert not said.granted
        assert doubt.given_away(owners, GUEST, NAME) is not None
        await owners.claim(GUEST, NAME)
        assert owners.away(GUEST) is None


async def test_two_that_claim_at_once_do_not_both_get_it(tmp_path: Path) -> None:
    """An answer was lost, so each believes that the other has it; and both start it now."""
    async with pair(tmp_path) as two:
        await moved(two)
        await two.destination.registry.lookup_by_uuid(GUEST).destroy()
        id = two.here.custody.owners._known[GUEST].detail["migration"]
        place = two.peers.place or ""
        lost = await two.there.custody.release(Claim(id, GUEST, 1, UUID(int=1), (place,)), "hosta")
        assert lost.granted
        both = await asyncio.gather(
            two.source.registry.create(domain_xml()),
            two.destination.registry.create(domain_xml()),
            return_exceptions=True,
        )
        running = [
            host
            for host in (two.source, two.destination)
            if (guest := host.registry.find(GUEST)) is not None and guest.active
        ]
        assert len(running) <= 1, both
        if not running:
            await two.source.registry.create(domain_xml())


async def test_a_full_disk_at_its_end_leaves_no_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubtful, "AGAIN_S", 0.0)
    async with pair(tmp_path) as two:
        two.copies_for_ever()
        prepared = await two.prepare(await two.begin())
        performing = asyncio.ensure_future(two.perform(prepared))
        await two.is_copying()
        two.source.store.fail_next = 3
        await two.here.source.abort(two.guest)
        with pytest.raises(SternaError):
            await performing
        await until(lambda: two.here.custody.owners.away(GUEST) is None)
        assert two.source.store._ownerships[GUEST].holder == "here"


async def test_what_could_not_be_written_is_asked_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark without a driver must not keep a guest from its host for ever. (L2)"""
    monkeypatch.setattr(source_ways, "GONE_ASK_S", 0.0)
    async with pair(tmp_path) as two:
        await two.source.registry.define(domain_xml())
        await two.guest.destroy()
        owners = two.here.custody.owners
        asked = Question(SECRET, GUEST, UUID(int=2), ("tcp://hostb:1",))
        await owners.leaving(asked, "hostb", {"name": NAME})
        await two.guest.start()
        assert two.guest.state is State.RUNNING
        assert [q.migration for q in two.peers.questions] == [SECRET]


async def test_a_guest_that_is_still_being_sent_does_not_come_back(tmp_path: Path) -> None:
    """Its old migration, which asks without a QEMU, would undefine what had just come."""
    async with pair(tmp_path) as two:
        begun = await two.begin()
        await two.perform(await two.prepare(begun))
        two.source.launcher.monitor.close()
        two.source.launcher.process.end(-9)
        await until(lambda: two.source.registry.find(GUEST) is None)
        cookie = format_cookie(Cookie(NAME, GUEST, "hostb", UUID(int=2), own=Own(SECRET, epoch=1)))
        with pytest.raises(OperationInvalid, match="still being sent away from here"):
            await two.here.destination.prepare(FakeLink(), two.request(), begun.xml, cookie)


# -- without a QEMU ------------------------------------------------------------------------------


async def test_a_source_whose_qemu_dies_in_doubt_asks_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_ways, "ASK_S", (0.0,))
    monkeypatch.setattr(source_ways, "GONE_ASK_S", 0.0)
    async with pair(tmp_path) as two:
        await two.source.registry.define(domain_xml())
        guest = two.guest
        await two.performed(LIVE | MigrateFlag.UNDEFINE_SOURCE)
        two.peers.reachable = False
        two.source.launcher.monitor.close()
        two.source.launcher.process.end(-9)
        await until(lambda: not guest.active)
        two.to_source.close()
        with pytest.raises(OperationInvalid, match="nobody has said yet"):
            await guest.start()
        left = two.here.doubtful(GUEST)
        assert left is not None
        assert doubt.in_doubt(left)
        assert "cannot be started here" in doubt.in_words(left)
        assert doubt.evidence(left)["here"]["cpus"] == "gone with its QEMU"
        two.peers.reachable = True
        await until(lambda: two.here.doubtful(GUEST) is None)
        await guest.start()
        assert two.verdicts == ["aborted"]


@pytest.mark.parametrize("committed", [True, False])
async def test_a_daemon_that_comes_back_without_the_qemu_asks(
    tmp_path: Path, committed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source's whole host died, as the guest was on its way with its definition."""
    monkeypatch.setattr(source_ways, "GONE_ASK_S", 0.0)
    async with pair(tmp_path) as two:
        await two.source.registry.define(domain_xml())
        cookie = await two.performed(LIVE | MigrateFlag.UNDEFINE_SOURCE)
        if committed:
            await two.finish(cookie)
        (tmp_path / "again").mkdir()
        async with fake_host(tmp_path / "again") as host:
            for owner in await two.source.store.ownerships():
                await host.store.put_ownership(owner)
            await host.registry.define(domain_xml())
            guest = host.registry.lookup_by_uuid(GUEST)
            again = Migrations(host.registry, Host("hosta", UUID(int=1)), two.peers)
            await again.go_on([])
            await until(lambda: again.doubtful(GUEST) is None)
            if committed:
                await until(lambda: "undefine" not in host.store._ownerships[GUEST].detail)
                assert host.registry.find(GUEST) is None
                assert await host.store.definitions() == []
                assert host.store._ownerships[GUEST].holder == "elsewhere"
            else:
                await until(lambda: again.custody.owners.away(GUEST) is None)
                await guest.start()
                assert guest.state is State.RUNNING
                await guest.destroy()
                assert guest.reason is ShutoffReason.DESTROYED
