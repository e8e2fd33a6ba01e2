"""The source's disks: what Perform does before memory moves, and as the guest stands."""

from __future__ import annotations

from sterna.migration.core import effects as do
from sterna.migration.core import events as on
from sterna.migration.core import source
from sterna.migration.core.records import Record
from sterna.migration.core.source import Phase, Source, step
from sterna.migration.core.words import QmpOp, QmpWhy, Status, Timer

LINK, PERFORM = 1, 7


def mirroring(*, live: bool = True) -> Source:
    s, _ = source.begin("g", LINK, live=live, running=True, patience=2)
    for event in (
        on.PerformCalled(PERFORM, LINK, disks=True),
        on.Stored(Record.PERFORMING),
        on.QmpDone(QmpOp.CONFIGURE),
    ):
        s, effects = step(s, event)
    assert do.Qmp(QmpOp.MIRROR) in effects
    assert s.phase is Phase.MIRRORING
    return s


def after(s: Source, *events: on.SourceEvent) -> tuple[Source, list[do.SourceEffect]]:
    ordered: list[do.SourceEffect] = []
    for event in events:
        s, effects = step(s, event)
        ordered += effects
    return s, ordered


def test_memory_waits_for_the_disks_and_the_rest_for_their_end() -> None:
    s, ordered = after(
        mirroring(),
        on.QmpDone(QmpOp.MIRROR),
        on.DisksReady(),
        on.QmpDone(QmpOp.MIGRATE),
        on.StatusChanged(Status.PRE_SWITCHOVER),
        on.QmpDone(QmpOp.SETTLE),
        on.StatusChanged(Status.COMPLETED),
    )
    ops = [effect.op for effect in ordered if isinstance(effect, do.Qmp)]
    assert ops == [QmpOp.MIGRATE, QmpOp.SETTLE, QmpOp.CONTINUE]
    assert s.phase is Phase.PERFORMED


def test_a_guest_that_is_not_live_runs_while_its_disks_are_copied() -> None:
    s, ordered = after(mirroring(live=False), on.DisksReady())
    assert s.phase is Phase.PAUSING
    assert do.Qmp(QmpOp.STOP) in ordered


def test_what_ends_the_copying_needs_no_cancel() -> None:
    """There is no migration yet; QEMU may still tell of the one by which the guest came."""
    failed = on.QmpFailed(QmpOp.MIRROR, QmpWhy.REFUSED, "no")
    for events in (
        (on.AbortCalled(8),),
        (on.ConnectionClosed(LINK),),
        (on.DiskFailed("no"),),
        (failed,),
        (on.TimerFired(Timer.STALL),) * 3,
    ):
        s, ordered = after(mirroring(), *events)
        assert s.phase is Phase.RESTORING
        assert do.Qmp(QmpOp.CANCEL) not in ordered
        s, ordered = after(s, on.QmpDone(QmpOp.RESTORE))
        assert s.phase is Phase.ENDED
        assert any(isinstance(e, do.Refuse) and e.call == PERFORM for e in ordered)


def test_a_disk_that_fails_later_cancels() -> None:
    copying, _ = after(mirroring(), on.DisksReady(), on.QmpDone(QmpOp.MIGRATE))
    settling, _ = after(copying, on.StatusChanged(Status.PRE_SWITCHOVER))
    refused = on.QmpFailed(QmpOp.SETTLE, QmpWhy.TIMED_OUT, "no")
    for before, event in ((copying, on.DiskFailed("no")), (settling, refused)):
        s, ordered = after(before, event)
        assert s.phase is Phase.CANCELLING
        assert do.Qmp(QmpOp.CANCEL) in ordered


def test_bytes_that_move_are_no_stall() -> None:
    s = mirroring()
    for moved in range(1, 6):
        s, _ = after(
            s, on.TimerFired(Timer.STALL), on.QmpDone(QmpOp.PROGRESS, moved, "", Status.COMPLETED)
        )
    assert s.phase is Phase.MIRRORING
