"""The five calls between two hosts whose QEMUs are fakes: what is asked, told, stored and left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sterna.errors import (
    InternalError,
    MigrateFinishOk,
    NoDomain,
    OperationAborted,
    OperationInvalid,
    Overflow,
    SternaError,
)
from sterna.guest.events import JobCompletedEvent
from sterna.guest.jobstats import JobOperation
from sterna.guest.states import PausedReason, RunningReason, State
from sterna.migration.params import BANDWIDTH_MIB_MAX, Request
from sterna.qemu.qmp_errors import QmpError
from sterna.rpc.enums import MigrateFlag
from support.fake_host import domain_xml, until
from support.links import FakeLink
from support.moving_pair import GUEST, LIVE, pair

F = MigrateFlag


async def test_a_guest_moves(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        cookie = await two.performed()
        assert (two.guest.state, two.guest.reason) == (State.PAUSED, PausedReason.MIGRATION)
        assert two.verdicts == []
        finished = await two.finish(cookie)
        assert two.verdicts == ["committed"]
        assert (finished.name, finished.uuid, finished.id) == ("web", GUEST, 1)
        guest = two.destination.registry.lookup_by_name("web")
        assert (guest.state, guest.reason) == (State.RUNNING, RunningReason.MIGRATED)
        assert two.destination.lifecycle == ["STARTED/MIGRATED", "RESUMED/MIGRATED"]
        await two.confirm(finished.cookie)
        assert two.source.registry.find(GUEST) is None
        assert two.source.lifecycle[-2:] == ["SUSPENDED/MIGRATED", "STOPPED/MIGRATED"]
        done = [e for e in two.source.events if isinstance(e, JobCompletedEvent)]
        assert [e.stats.operation for e in done] == [JobOperation.MIGRATION_OUT]
        await until(lambda: guest.job is None)
        stats = guest.jobs.take_completed(keep=False)
        assert stats is not None
        assert (stats.operation, stats.memory_total) == (JobOperation.MIGRATION_IN, 9)
        # Its connection answers for it no more.
        two.to_destination.close()
        assert guest.active


async def test_qmp_in_its_order(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        before = len(two.sender.asked)
        finished = await two.finish(await two.performed())
        sent = [name for name, _ in two.sender.asked[before:]]
        assert sent == [
            "query-migrate",
            "query-migrate-capabilities",
            "query-migrate-parameters",
            "query-migrate-capabilities",
            "migrate-set-capabilities",
            "migrate-set-parameters",
            "getfd",
            "migrate",
            "query-migrate",
        ]
        on = next(a for n, a in two.sender.asked[before:] if n == "migrate-set-capabilities")
        assert on is not None
        wanted = {c["capability"] for c in on["capabilities"] if c["state"]}
        assert wanted == {"return-path"}
        received = two.receiver.commands
        at = received.index("migrate-incoming")
        assert received[at + 1 :][:3] == ["query-status", "query-status", "cont"]
        await two.confirm(finished.cookie)


async def test_the_definition_goes_along(tmp_path: Path) -> None:
    flags = LIVE | F.PERSIST_DEST | F.UNDEFINE_SOURCE
    async with pair(tmp_path) as two:
        await two.source.registry.define(domain_xml())
        finished = await two.finish(await two.performed(flags), flags)
        assert [d.name for d in await two.destination.store.definitions()] == ["web"]
        assert two.destination.lifecycle[-1] == "DEFINED/ADDED"
        await two.confirm(finished.cookie)
        await until(lambda: two.source.registry.find(GUEST) is None)
        await until(lambda: not two.source.store._definitions)


async def test_suspended_on_arrival(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        await two.finish(await two.performed(), LIVE | F.PAUSED)
        guest = two.destination.registry.lookup_by_name("web")
        assert (guest.state, guest.reason) == (State.PAUSED, PausedReason.USER)
        assert "cont" not in two.receiver.commands


async def test_a_users_pause_goes_along(tmp_path: Path) -> None:
    """I19; the controller's own, a client's --timeout, does not."""
    async with pair(tmp_path) as two:
        two.copies_for_ever()
        prepared = await two.prepare(await two.begin())
        performing = asyncio.ensure_future(two.perform(prepared))
        await two.is_copying()
        assert two.here.source.user_pauses(two.guest, two.to_source) is PausedReason.MIGRATION
        assert two.here.source.user_pauses(two.guest, FakeLink()) is PausedReason.USER
        two.completed()
        await two.finish(await performing)
        assert two.destination.registry.lookup_by_name("web").state is State.PAUSED


async def test_autokill(tmp_path: Path) -> None:
    """L3: decided on disk, then killed, and nothing is left."""
    async with pair(tmp_path) as two:
        await two.prepare(await two.begin())
        guest = two.destination.registry.lookup_by_name("web")
        two.to_destination.close()
        await until(lambda: not guest.active)
        assert two.verdicts == ["aborted"]
        assert two.destination.registry.find(GUEST) is None
        assert two.destination.lifecycle[-2:] == ["SHUTDOWN/HOST", "STOPPED/DESTROYED"]
        assert guest.job is None


async def test_autokill_while_it_is_launched(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        begun = await two.begin()
        two.destination.launcher.before_spawn = two.to_destination.close
        with pytest.raises(SternaError):
            await two.prepare(begun)
        await until(lambda: two.destination.registry.find(GUEST) is None)
        assert two.verdicts == ["aborted"]
        assert two.destination.lifecycle == []


async def test_a_finish_whose_caller_has_gone_does_not_run(tmp_path: Path) -> None:
    """I2: nobody was told yet, but the socket says so."""
    async with pair(tmp_path) as two:
        cookie = await two.performed()
        two.to_destination.peer_gone = lambda: True  # type: ignore[method-assign]  # a fake of ours
        with pytest.raises(SternaError, match="has ended"):
            await two.finish(cookie)
        assert two.verdicts == ["aborted"]
        assert "cont" not in two.receiver.commands
        await two.confirm(b"", cancelled=True)
        assert two.guest.state is State.RUNNING


async def test_finish_told_to_cancel(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        await two.prepare(await two.begin())
        with pytest.raises(MigrateFinishOk):
            await two.finish(b"", cancelled=True)
        assert two.destination.registry.find(GUEST) is None
        assert two.destination.lifecycle[-1] == "STOPPED/FAILED"
        with pytest.raises(NoDomain):
            await two.finish(b"", cancelled=True)


async def test_finish_without_a_permit(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        begun = await two.begin()
        await two.prepare(begun)
        with pytest.raises(OperationInvalid, match="nothing proves"):
            await two.finish(b"")


async def test_finish_again_is_answered_again(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        cookie = await two.performed()
        first = await two.finish(cookie)
        guest = two.destination.registry.lookup_by_name("web")
        await until(lambda: guest.job is None)
        again = await two.finish(cookie)
        assert (again.uuid, again.id) == (first.uuid, first.id)
        with pytest.raises(OperationInvalid, match="not processing incoming"):
            await two.finish(cookie, cancelled=True)
        await two.confirm(again.cookie)


async def test_an_id_is_used_once(tmp_path: Path) -> None:
    """Its decision stands, so a second guest under it would be decided already. (L4)"""
    async with pair(tmp_path) as two:
        begun = await two.begin()
        await two.prepare(begun)
        with pytest.raises(MigrateFinishOk):
            await two.finish(b"", cancelled=True)
        with pytest.raises(OperationInvalid, match="has been here before"):
            await two.prepare(begun)


async def test_abort(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        two.copies_for_ever()
        prepared = await two.prepare(await two.begin())
        performing = asyncio.ensure_future(two.perform(prepared))
        await two.is_copying()
        assert two.here.source.is_outgoing(two.guest)
        assert (await two.here.source.refresh_stats(two.guest)) is not None
        await two.here.source.abort(two.guest)
        with pytest.raises(OperationAborted, match="canceled by client"):
            await performing
        assert two.guest.job is None
        assert two.sender.commands[-2:] == ["migrate-set-capabilities", "migrate-set-parameters"]
        with pytest.raises(OperationInvalid, match="no job is active"):
            await two.here.source.abort(two.guest)
        assert await two.here.source.refresh_stats(two.guest) is None


async def test_the_controller_leaves_while_memory_moves(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        two.copies_for_ever()
        prepared = await two.prepare(await two.begin())
        performing = asyncio.ensure_future(two.perform(prepared))
        await two.is_copying()
        two.to_source.close()
        with pytest.raises(SternaError, match="was closed; domain 'web' runs on here"):
            await performing
        await two.here.settle(1)
        assert two.guest.job is None


async def test_the_controller_leaves_afterwards(tmp_path: Path) -> None:
    """In doubt: nobody lets it run by hand, the job stays and says so. (L5, I6)"""
    async with pair(tmp_path, asks=False) as two:
        cookie = await two.performed()
        two.here.source.refuse_in_doubt(two.guest)
        two.to_source.close()
        assert two.guest.job is not None
        assert two.guest.job.phase == "in doubt"
        with pytest.raises(OperationInvalid, match="look there"):
            two.here.source.refuse_in_doubt(two.guest)
        await two.here.settle(1)
        finished = await two.finish(cookie)
        await two.confirm(finished.cookie)
        assert two.source.registry.find(GUEST) is None


async def test_confirm_needs_proof(tmp_path: Path) -> None:
    """Of a destination that cannot be asked."""
    async with pair(tmp_path, asks=False) as two:
        await two.performed()
        with pytest.raises(OperationInvalid, match="nothing proves"):
            await two.confirm(b"")
        await two.confirm(b"", cancelled=True)
        assert (two.guest.state, two.guest.reason) == (
            State.RUNNING,
            RunningReason.MIGRATION_CANCELED,
        )
        with pytest.raises(OperationInvalid, match="not being migrated"):
            await two.confirm(b"")


async def test_without_change_protection(tmp_path: Path) -> None:
    """Begin holds nothing; Perform takes the job."""
    async with pair(tmp_path) as two:
        begun = await two.begin(F.LIVE)
        assert two.guest.job is None
        cookie = await two.perform(await two.prepare(begun, F.LIVE), F.LIVE)
        finished = await two.finish(cookie, F.LIVE)
        await two.confirm(finished.cookie)
        assert two.source.registry.find(GUEST) is None


async def test_perform_refused(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        prepared = await two.prepare(await two.begin(F.LIVE), F.LIVE)
        with pytest.raises(OperationInvalid, match="not being migrated"):
            await two.perform(prepared)
        with pytest.raises(InternalError, match="migration cookie is missing"):
            await two.here.source.perform(two.guest, two.to_source, two.request(), b"")
        without = Request(LIVE)
        with pytest.raises(InternalError, match="missing migration URI"):
            await two.here.source.perform(two.guest, two.to_source, without, prepared.cookie)


async def test_another_migrations_cookies_are_refused(tmp_path: Path) -> None:
    """I3: calls of another epoch."""
    async with pair(tmp_path) as two:
        prepared = await two.prepare(await two.begin(F.LIVE), F.LIVE)
        cookie = await two.perform(prepared, F.LIVE)
        other = prepared.cookie.split(b"<sterna id=")[1][:38]
        forged = cookie.replace(other, b'"00000000-0000-4000-8000-000000000000"')
        with pytest.raises(InternalError, match="another migration"):
            await two.finish(forged)
        with pytest.raises(MigrateFinishOk):
            await two.finish(b"", cancelled=True)
        await two.confirm(b"", cancelled=True)
        await two.begin()
        with pytest.raises(InternalError, match="another migration"):
            await two.perform(prepared)


async def test_begin_refused(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        two.sender.replies["query-migrate"] = {"blocked-reasons": ["a", "b"]}
        with pytest.raises(OperationInvalid, match="cannot migrate domain: a; b"):
            await two.begin()
        two.sender.replies["query-migrate"] = {}
        await two.begin()
        with pytest.raises(OperationInvalid, match="another migration job is already running"):
            await two.begin()


async def test_a_guest_that_belongs_to_a_connection_stays(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        two.source.surroundings.autokill.register(GUEST, FakeLink(), lambda: None)
        with pytest.raises(OperationInvalid, match="marked for auto destroy"):
            await two.begin()


async def test_prepare_fails_and_leaves_nothing(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        begun = await two.begin()
        two.destination.launcher.fail = InternalError("no such machine")
        with pytest.raises(InternalError, match="no such machine"):
            await two.prepare(begun)
        assert two.destination.registry.find(GUEST) is None
        two.destination.launcher.fail = None
        await two.confirm(b"", cancelled=True)
        begun = await two.begin()
        bad = Request(LIVE, migrate_uri="foo://x", name="web")
        with pytest.raises(SternaError, match="unsupported scheme"):
            await two.there.destination.prepare(two.to_destination, bad, begun.xml, begun.cookie)
        assert two.destination.registry.find(GUEST) is None
        assert two.destination.lifecycle == []


async def test_a_guest_that_could_not_run_there(tmp_path: Path) -> None:
    """The early look at QEMU, before anything is decided."""
    async with pair(tmp_path) as two:
        prepared = await two.prepare(await two.begin())
        crashed = {"status": "internal-error", "running": False}
        two.receiver.replies["query-status"] = crashed
        cookie = await two.perform(prepared)
        with pytest.raises(SternaError, match="internal-error"):
            await two.finish(cookie)
        assert two.verdicts == ["aborted"]
        await two.confirm(b"", cancelled=True)
        assert two.guest.state is State.RUNNING


async def test_qemu_refuses(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        prepared = await two.prepare(await two.begin())
        two.sender.replies["migrate"] = QmpError("migrate", "GenericError", "no way")
        two.sender.says["migrate"] = []
        with pytest.raises(InternalError, match="no way; domain 'web' runs on here"):
            await two.perform(prepared)


async def test_speeds_and_limits(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        assert two.here.source.controls.max_speed(two.guest) == BANDWIDTH_MIB_MAX
        await two.here.source.controls.set_max_speed(two.guest, 7)
        assert two.here.source.controls.max_speed(two.guest) == 7
        with pytest.raises(Overflow, match="must be less than 8796093022208"):
            await two.here.source.controls.set_max_speed(two.guest, BANDWIDTH_MIB_MAX + 1)
        await two.here.source.controls.set_max_downtime(two.guest, 50)
        assert two.sender.asked[-1] == ("migrate-set-parameters", {"downtime-limit": 50})
        assert await two.here.source.controls.max_downtime(two.guest) == 300
        await two.here.source.controls.set_compression_cache(two.guest, 1 << 20)
        assert await two.here.source.controls.compression_cache(two.guest) == 1 << 26
        prepared = await two.prepare(await two.begin())
        await two.here.source.controls.set_max_speed(two.guest, 8)
        assert two.sender.asked[-1] == ("migrate-set-parameters", {"max-bandwidth": 8 << 20})
        await two.perform(prepared)


async def test_a_perform_that_never_began_gives_the_job_back(tmp_path: Path) -> None:
    """The client sends no Confirm after a Perform that failed. (L7)"""
    async with pair(tmp_path) as two:
        prepared = await two.prepare(await two.begin())
        stranger = FakeLink()
        with pytest.raises(InternalError, match="migration cookie is missing"):
            await two.here.source.perform(two.guest, stranger, two.request(), b"")
        assert two.guest.job is not None
        with pytest.raises(InternalError, match="migration cookie is missing"):
            await two.here.source.perform(two.guest, two.to_source, two.request(), b"")
        assert two.guest.job is None
        assert two.guest.state is State.RUNNING
        assert not two.to_source.callbacks
        with pytest.raises(MigrateFinishOk):
            await two.finish(b"", cancelled=True)
        assert prepared.uri_out is None


async def test_a_begin_that_failed_gives_the_job_back(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        two.sender.replies["query-migrate-capabilities"] = QmpError(
            "query-migrate-capabilities", "GenericError", "no"
        )
        with pytest.raises(SternaError):
            await two.begin()
        assert two.guest.job is None


async def test_a_bug_ends_the_migration_not_the_answers(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        two.destination.launcher.fail = ValueError("planted")
        with pytest.raises(InternalError, match="unexpected failure: ValueError"):
            await two.prepare(await two.begin())
        assert two.destination.registry.find(GUEST) is None
        two.destination.launcher.fail = None
        await two.confirm(b"", cancelled=True)
        prepared = await two.prepare(await two.begin())
        two.sender.replies["query-migrate-parameters"] = None
        with pytest.raises(InternalError, match="unexpected failure: TypeError; domain 'web' runs"):
            await two.perform(prepared)
        assert two.guest.job is None
        assert two.guest.state is State.RUNNING


async def test_sent_on_as_soon_as_it_has_arrived(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        prepared = await two.prepare(await two.begin())
        sent = await two.perform(prepared)
        finished = await two.finish(sent)
        guest = two.destination.registry.lookup_by_name("web")
        assert guest.job is not None  # QEMU's parameters are being put back
        stats = guest.jobs.take_completed(keep=True)
        assert stats is not None
        assert stats.operation is JobOperation.MIGRATION_IN
        await two.there.source.begin(guest, two.to_destination, Request(LIVE))
        assert guest.job.api.endswith("Begin3Params")
        await two.confirm(finished.cookie)


async def test_nothing_starts_again_what_was_sent(tmp_path: Path) -> None:
    """A reboot that was under way comes too late: the guest may run elsewhere by now. (L1)"""
    async with pair(tmp_path) as two:
        cookie = await two.performed()
        running = two.guest.live_or_refuse()
        running.reboot_on_shutdown = True
        two.sender.say("SHUTDOWN", guest=True, reason="guest-shutdown")
        await until(lambda: "system_reset" in two.sender.commands)
        with pytest.raises(OperationInvalid, match="was sent to another host"):
            await two.guest.resume_cpus(RunningReason.BOOTED)
        finished = await two.finish(cookie)
        assert "cont" not in two.sender.commands[two.sender.commands.index("migrate") :]
        await two.confirm(finished.cookie)
        assert two.source.registry.find(GUEST) is None
