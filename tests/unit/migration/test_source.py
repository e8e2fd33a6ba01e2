"""The source's machine, step by step: what the explorer proves in general, by name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sterna.migration.core import events as on
from sterna.migration.core import source, source_state
from sterna.migration.core.effects import (
    Answer,
    EndJob,
    Kill,
    Qmp,
    Refuse,
    SetTimer,
    Show,
    SourceEffect,
    StopReason,
    Store,
    Undefine,
    View,
    Watch,
)
from sterna.migration.core.records import Record
from sterna.migration.core.source import Phase, Source, Verdict, verdict
from sterna.migration.core.words import (
    FailureKind,
    Proof,
    QmpOp,
    QmpWhy,
    Status,
    Timer,
)

LINK, OTHER = 1, 2
PERFORM, CONFIRM, ABORT = 10, 11, 12


def play(*events: on.SourceEvent, live: bool = True, running: bool = True) -> Played:
    state, effects = source.begin("g", LINK, live=live, running=running)
    assert effects == (Watch(LINK),)
    return Played(state, effects).then(*events)


class Played:
    """Where a sequence of events led, and the effects of its last one."""

    def __init__(self, state: Source, effects: Sequence[SourceEffect]) -> None:
        self.state, self.effects = state, tuple(effects)

    def then(self, *events: on.SourceEvent) -> Played:
        state, effects = self.state, self.effects
        for event in events:
            state, effects = source.step(state, event)
        return Played(state, effects)

    def settle(self, *events: on.SourceEvent) -> Played:
        """These events, beside a healthy world's answers to everything that was ordered."""
        state, todo = self.state, [*events, *_answers(self.effects)]
        effects: list[SourceEffect] = []
        while todo:
            state, more = source.step(state, todo.pop(0))
            effects += more
            todo += _answers(more)
        return Played(state, effects)

    def refused(self, call: int) -> Refuse:
        found = [e for e in self.effects if isinstance(e, Refuse) and e.call == call]
        assert len(found) == 1, self.effects
        return found[0]

    def answers(self, call: int) -> bool:
        return Answer(call) in self.effects


PERFORMS = on.PerformCalled(PERFORM, LINK)
STORED = on.Stored(Record.PERFORMING)
CONFIGURED = on.QmpDone(QmpOp.CONFIGURE)
MIGRATES = on.QmpDone(QmpOp.MIGRATE)
COPYING = (PERFORMS, STORED, CONFIGURED, MIGRATES)
STOPPED = on.CpusStopped()
PAUSED = on.StatusChanged(Status.PRE_SWITCHOVER)
SWITCHING = (*COPYING, STOPPED, PAUSED)
COMPLETED = on.StatusChanged(Status.COMPLETED)
FAILED = on.StatusChanged(Status.FAILED)
CANCELLED = on.StatusChanged(Status.CANCELLED)
PERFORMED = (*SWITCHING, COMPLETED)
CLOSED = on.ConnectionClosed(LINK)
GONE = on.QemuGone("domain is not running")


def confirms(*, cancelled: bool = False, proof: Proof = Proof.COMMITTED) -> on.ConfirmCalled:
    return on.ConfirmCalled(CONFIRM, LINK, cancelled, proof)


@pytest.mark.parametrize(
    ("cancelled", "proof", "said"),
    [
        (False, Proof.COMMITTED, Verdict.HAND_OVER),
        (False, Proof.FOREIGN, Verdict.HAND_OVER),
        (False, Proof.NONE, Verdict.UNPROVEN),
        (True, Proof.NONE, Verdict.TAKE_BACK),
        (True, Proof.FOREIGN, Verdict.TAKE_BACK),
        (True, Proof.COMMITTED, Verdict.HAND_OVER),
    ],
)
def test_verdict(cancelled: bool, proof: Proof, said: Verdict) -> None:
    assert verdict(cancelled, proof, asks=False) is said
    handed_over = proof is Proof.COMMITTED or (proof is Proof.FOREIGN and not cancelled)
    asked = Verdict.HAND_OVER if handed_over else Verdict.ASK
    assert verdict(cancelled, proof, asks=True) is asked


def test_a_migration_that_goes_well() -> None:
    played = play(PERFORMS)
    assert played.effects == (Store(Record.PERFORMING),)
    played = played.then(STORED)
    assert played.effects == (Qmp(QmpOp.CONFIGURE),)
    played = played.then(CONFIGURED)
    assert played.effects == (Qmp(QmpOp.MIGRATE),)
    played = played.then(MIGRATES, on.StatusChanged(Status.ACTIVE), STOPPED, PAUSED)
    # The guest stands: it is driven on in the very step that learns of it. (I11)
    assert played.effects[0] == Qmp(QmpOp.CONTINUE)
    played = played.then(on.QmpDone(QmpOp.CONTINUE), on.StatusChanged(Status.DEVICE), COMPLETED)
    assert played.answers(PERFORM)
    played = played.then(confirms())
    assert Store(Record.HANDED_OVER) in played.effects
    played = played.then(on.Stored(Record.HANDED_OVER))
    assert played.effects == (Kill(StopReason.MIGRATED),)
    played = played.then(GONE)
    assert played.effects == (Undefine(), EndJob(True), Answer(CONFIRM))
    assert played.state.phase is Phase.ENDED


def test_not_live_stops_the_guest_first() -> None:
    played = play(*COPYING[:3], live=False)
    assert played.effects == (Qmp(QmpOp.STOP),)
    assert played.then(on.QmpDone(QmpOp.STOP)).effects == (Qmp(QmpOp.MIGRATE),)


def test_a_paused_guest_is_not_stopped_and_not_resumed() -> None:
    played = play(*COPYING[:3], live=False, running=False)
    assert played.effects == (Qmp(QmpOp.MIGRATE),)
    played = played.then(MIGRATES, FAILED, on.QmpDone(QmpOp.EXPLAIN))
    assert played.state.phase is Phase.RESTORING


def test_a_small_guest_is_at_the_switchover_before_migrate_has_answered() -> None:
    played = play(*COPYING[:3], STOPPED, PAUSED)
    assert played.state.phase is Phase.SWITCHING
    assert played.then(MIGRATES).effects == ()


@pytest.mark.parametrize("before", [(), COPYING[:1], COPYING[:3], COPYING, SWITCHING])
def test_the_controller_leaves_before_the_end(before: tuple[on.SourceEvent, ...]) -> None:
    """Nothing of it is left, and the guest runs on. (L2, L7)"""
    played = play(*before).settle(CLOSED)
    assert played.state.phase is Phase.ENDED
    assert not played.state.stopped


def _answers(effects: Sequence[SourceEffect]) -> list[on.SourceEvent]:
    """What a healthy world says to these effects."""
    events: list[on.SourceEvent] = []
    for effect in effects:
        match effect:
            case Store(record=record):
                events.append(on.Stored(record))
            case Qmp(op=QmpOp.CANCEL):
                events += [CANCELLED, on.CpusStarted(), on.QmpDone(QmpOp.CANCEL)]
            case Qmp(op=QmpOp.CONT):
                events += [on.CpusStarted(), on.QmpDone(QmpOp.CONT)]
            case Qmp(op=QmpOp.MIGRATE):
                events.append(MIGRATES)
            case Qmp(op=op):
                events.append(on.QmpDone(op))
            case Kill():
                events.append(GONE)
    return events


def test_the_controller_leaves_after_the_end() -> None:
    """The destination may run the guest: held, paused, in doubt. (L5)"""
    played = play(*PERFORMED, CLOSED)
    assert played.state.phase is Phase.IN_DOUBT
    assert Show(View.IN_DOUBT) in played.effects
    refused = played.then(on.AbortCalled(ABORT)).refused(ABORT)
    assert refused.failure.kind is FailureKind.REFUSED
    assert played.then(confirms()).state.phase is Phase.HANDING_OVER
    assert played.then(confirms(cancelled=True, proof=Proof.NONE)).state.phase is Phase.TAKING_BACK


def test_confirm_without_proof_changes_nothing() -> None:
    played = play(*PERFORMED, confirms(proof=Proof.NONE))
    assert played.state.phase is Phase.PERFORMED
    assert "nothing proves" in played.refused(CONFIRM).failure.text


def test_taken_back() -> None:
    played = play(*PERFORMED, confirms(cancelled=True, proof=Proof.NONE))
    assert Store(Record.TAKEN_BACK) in played.effects
    played = played.then(on.Stored(Record.TAKEN_BACK))
    assert played.effects == (Qmp(QmpOp.CONT),)
    played = played.then(on.CpusStarted(), on.QmpDone(QmpOp.CONT))
    assert played.effects == (Qmp(QmpOp.RESTORE),)
    assert played.then(on.QmpDone(QmpOp.RESTORE)).answers(CONFIRM)


def test_taken_back_while_a_lock_is_still_held_there() -> None:
    refused = on.QmpFailed(QmpOp.CONT, QmpWhy.REFUSED, 'Failed to get "write" lock', 1)
    played = play(
        *PERFORMED, confirms(cancelled=True, proof=Proof.NONE), on.Stored(Record.TAKEN_BACK)
    )
    for _ in range(source_state.TRIES_MAX):
        played = played.then(refused)
        assert played.effects == (SetTimer(Timer.RETRY, source_state.RETRY_S),)
        played = played.then(on.TimerFired(Timer.RETRY))
        assert played.effects == (Qmp(QmpOp.CONT),)
    played = played.then(refused)
    assert Show(View.STUCK) in played.effects
    told = played.then(on.QmpDone(QmpOp.RESTORE)).refused(CONFIRM).failure
    assert "write" in told.text
    assert "paused here" in told.text


def test_a_user_pauses_while_resuming_is_retried() -> None:
    played = play(
        *PERFORMED,
        confirms(cancelled=True, proof=Proof.NONE),
        on.Stored(Record.TAKEN_BACK),
        on.QmpFailed(QmpOp.CONT, QmpWhy.REFUSED, ""),
        on.UserPaused(by_controller=False),
        on.TimerFired(Timer.RETRY),
    )
    assert played.effects == (Qmp(QmpOp.RESTORE),)


def test_abort_while_copying() -> None:
    played = play(*COPYING, on.AbortCalled(ABORT))
    assert Qmp(QmpOp.CANCEL) in played.effects
    assert not played.answers(ABORT)  # its outcome is not known yet (I17)
    played = played.then(on.AbortCalled(13), CANCELLED, on.QmpDone(QmpOp.RESTORE))
    assert played.answers(ABORT)
    assert played.answers(13)
    failure = played.refused(PERFORM).failure
    assert failure.kind is FailureKind.CANCELED
    assert failure.text.endswith("domain 'g' runs on here")


def test_abort_that_loses_the_race() -> None:
    """QEMU completed first: the abort is refused, and the migration goes on."""
    played = play(*SWITCHING, on.AbortCalled(ABORT), COMPLETED)
    assert played.state.phase is Phase.PERFORMED
    assert played.answers(PERFORM)
    assert "cannot be aborted any more" in played.refused(ABORT).failure.text


def test_abort_that_loses_the_race_without_a_controller() -> None:
    played = play(*SWITCHING, CLOSED, on.AbortCalled(ABORT), COMPLETED)
    assert played.state.phase is Phase.IN_DOUBT
    assert played.refused(PERFORM)
    assert played.refused(ABORT)


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_abort_before_anything_moved(steps: int) -> None:
    played = play(*COPYING[:steps])
    if steps == 0:
        played = played.then(on.AbortCalled(ABORT)).settle(PERFORMS)
    else:
        played = played.settle(on.AbortCalled(ABORT))
        assert played.answers(ABORT)
    assert played.refused(PERFORM).failure.kind is FailureKind.CANCELED


def test_an_abort_while_the_record_is_being_stored() -> None:
    played = play(PERFORMS, on.AbortCalled(ABORT), STORED)
    assert played.answers(ABORT)
    assert played.refused(PERFORM)


def test_an_abort_of_what_comes_back_anyway() -> None:
    taken_back = (confirms(cancelled=True, proof=Proof.NONE), on.Stored(Record.TAKEN_BACK))
    assert play(*PERFORMED, *taken_back, on.AbortCalled(ABORT)).refused(ABORT)


def test_abort_when_there_is_nothing_to_abort() -> None:
    played = play(CLOSED, on.AbortCalled(ABORT))
    assert "no job is active" in played.refused(ABORT).failure.text


def test_qemu_fails_and_says_why() -> None:
    played = play(*COPYING, FAILED)
    assert Qmp(QmpOp.EXPLAIN) in played.effects
    said = on.QmpDone(QmpOp.EXPLAIN, text="Broken pipe", status=Status.FAILED)
    told = played.then(said, on.QmpDone(QmpOp.RESTORE)).refused(PERFORM).failure
    assert told.text == "job 'migration out' failed: Broken pipe; domain 'g' runs on here"
    mute = on.QmpFailed(QmpOp.EXPLAIN, QmpWhy.TIMED_OUT, "")
    told = played.then(mute, on.QmpDone(QmpOp.RESTORE)).refused(PERFORM).failure
    assert told.text == "job 'migration out' failed; domain 'g' runs on here"


@pytest.mark.parametrize(
    ("before", "failed"),
    [
        (COPYING[:2], on.QmpFailed(QmpOp.CONFIGURE, QmpWhy.REFUSED, "no", 1)),
        (COPYING[:3], on.QmpFailed(QmpOp.MIGRATE, QmpWhy.REFUSED, "no", 1)),
    ],
)
def test_refused_before_it_began(before: tuple[on.SourceEvent, ...], failed: on.QmpFailed) -> None:
    played = play(*before, failed)
    assert played.effects == (Qmp(QmpOp.RESTORE),)
    unable = on.QmpFailed(QmpOp.RESTORE, QmpWhy.TIMED_OUT, "")
    failure = played.then(unable).refused(PERFORM).failure
    assert (failure.code, failure.text) == (1, "no; domain 'g' runs on here")


def test_a_stop_that_failed_may_have_stopped() -> None:
    played = play(*COPYING[:3], on.QmpFailed(QmpOp.STOP, QmpWhy.TIMED_OUT, "slow"), live=False)
    assert played.effects == (Qmp(QmpOp.CONT),)


def test_an_abort_while_the_guest_is_stopped_first() -> None:
    played = play(*COPYING[:3], on.AbortCalled(ABORT), STOPPED, live=False)
    assert played.then(on.QmpDone(QmpOp.STOP)).effects == (Qmp(QmpOp.CONT),)


def test_a_migrate_without_an_answer_is_cancelled() -> None:
    """It may have begun all the same."""
    played = play(*COPYING[:3], on.QmpFailed(QmpOp.MIGRATE, QmpWhy.TIMED_OUT, "slow"))
    assert Qmp(QmpOp.CANCEL) in played.effects


def test_an_abort_meets_the_switchover_before_migrate_has_answered() -> None:
    played = play(*COPYING[:3], on.AbortCalled(ABORT), STOPPED, PAUSED)
    assert Qmp(QmpOp.CANCEL) in played.effects


def test_migrate_continue_is_refused() -> None:
    played = play(*SWITCHING, on.QmpFailed(QmpOp.CONTINUE, QmpWhy.REFUSED, "no"))
    assert Qmp(QmpOp.CANCEL) in played.effects


@pytest.mark.parametrize("before", [COPYING, SWITCHING])
def test_a_stall_is_cancelled(before: tuple[on.SourceEvent, ...]) -> None:
    """I12: no byte moves. A monitor that does not answer moves none either."""
    played = play(*before)
    moved = on.QmpDone(QmpOp.PROGRESS, 100, status=Status.ACTIVE)
    for answer in (moved, moved, on.QmpFailed(QmpOp.PROGRESS, QmpWhy.TIMED_OUT, "")):
        played = played.then(on.TimerFired(Timer.STALL))
        assert played.effects[0] == Qmp(QmpOp.PROGRESS)
        played = played.then(answer)
    assert played.state.idle == 2
    for _ in range(source_state.PATIENCE - 2):
        played = played.then(on.TimerFired(Timer.STALL)).then(moved)
    assert Qmp(QmpOp.CANCEL) in played.then(on.TimerFired(Timer.STALL)).effects
    assert played.state.failure is None


def test_a_qemu_that_hangs_is_asked_once() -> None:
    """Its monitor would be full of looks by the time it wakes up."""
    played = play(*COPYING, on.TimerFired(Timer.STALL))
    for _ in range(source_state.PATIENCE - 1):
        played = played.then(on.TimerFired(Timer.STALL))
        assert Qmp(QmpOp.PROGRESS) not in played.effects
    cancelled = played.then(on.TimerFired(Timer.STALL))
    assert Qmp(QmpOp.CANCEL) in cancelled.effects
    assert "for 5 s" in str(cancelled.state.failure)


def test_progress_tells_of_an_event_that_was_lost() -> None:
    played = play(*COPYING, on.QmpDone(QmpOp.PROGRESS, 5, status=Status.PRE_SWITCHOVER))
    assert played.state.phase is Phase.SWITCHING


def test_a_qemu_that_hangs_in_its_cancelling_is_asked_on() -> None:
    played = play(*COPYING, on.AbortCalled(ABORT), on.TimerFired(Timer.CANCEL))
    assert played.refused(PERFORM).failure.kind is FailureKind.TIMED_OUT
    assert played.refused(ABORT)
    assert Qmp(QmpOp.EXPLAIN) in played.effects
    still = on.QmpDone(QmpOp.EXPLAIN, status=Status.CANCELLING)
    assert played.then(still).state.phase is Phase.CANCELLING
    assert played.then(on.QmpDone(QmpOp.EXPLAIN)).state.phase is Phase.RESTORING
    completed = played.then(on.QmpDone(QmpOp.EXPLAIN, status=Status.COMPLETED))
    # The controller was told that it failed, so it will not come back. (L5)
    assert completed.state.phase is Phase.IN_DOUBT


def test_a_users_pause_goes_before_qemus_habit() -> None:
    """QEMU starts a guest again that ran when it stopped it. (I19)"""
    played = play(*SWITCHING, on.UserPaused(by_controller=False), CLOSED, CANCELLED)
    assert played.then(on.CpusStarted()).effects == (Qmp(QmpOp.STOP),)
    played = play(*COPYING, on.UserPaused(by_controller=True), CLOSED, CANCELLED)
    assert played.then(on.CpusStarted()).effects == ()


def test_an_io_error_ends_the_attempt_and_the_guest_stays_paused() -> None:
    broke = on.GuestBroke("job 'migration out' failed due to I/O error")
    played = play(*COPYING, STOPPED, broke)
    assert Qmp(QmpOp.CANCEL) in played.effects
    played = played.then(CANCELLED)
    assert Qmp(QmpOp.CONT) not in played.effects
    told = played.then(on.QmpDone(QmpOp.RESTORE)).refused(PERFORM).failure.text
    assert told == f"{broke.text}; domain 'g' is paused here"


def test_qemu_dies_on_the_way() -> None:
    played = play(*COPYING, on.AbortCalled(ABORT), GONE)
    assert played.refused(PERFORM).failure.text == "domain is not running"
    assert played.refused(ABORT)
    assert EndJob(False) in played.effects
    assert played.then(GONE).effects == ()


def test_a_store_that_fails_before_the_start_refuses_it() -> None:
    played = play(PERFORMS, on.StoreFailed(Record.PERFORMING, "disk full"))
    assert "disk full" in played.refused(PERFORM).failure.text


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_store_that_fails_afterwards_does_not_hold_the_guest(cancelled: bool) -> None:
    record = Record.TAKEN_BACK if cancelled else Record.HANDED_OVER
    proof = Proof.NONE if cancelled else Proof.COMMITTED
    played = play(
        *PERFORMED, confirms(cancelled=cancelled, proof=proof), on.StoreFailed(record, "full")
    )
    assert played.effects == (Qmp(QmpOp.CONT) if cancelled else Kill(StopReason.MIGRATED),)


def recover(
    record: Record | None,
    status: Status | None = None,
    *,
    shall_run: bool = True,
    stopped: bool = True,
) -> Played:
    return Played(*source.recovered("g", record, status, shall_run=shall_run, stopped=stopped))


def test_a_daemon_that_comes_back() -> None:
    """Its record and QEMU say what to do. (I14)"""
    assert recover(Record.HANDED_OVER).effects == (Kill(StopReason.MIGRATED),)
    assert recover(Record.TAKEN_BACK, Status.COMPLETED).effects == (Qmp(QmpOp.CONT),)
    assert recover(Record.PERFORMING, Status.COMPLETED).state.phase is Phase.IN_DOUBT
    assert recover(Record.PERFORMING, Status.FAILED).effects == (Qmp(QmpOp.CONT),)
    assert recover(None, stopped=False).effects == (Qmp(QmpOp.RESTORE),)
    copying = recover(Record.PERFORMING, Status.ACTIVE, stopped=False)
    assert Qmp(QmpOp.CANCEL) in copying.effects
    # Nobody drives what completes all the same. (L5)
    assert copying.then(COMPLETED).state.phase is Phase.IN_DOUBT


def test_a_daemon_that_comes_back_to_a_users_pause() -> None:
    """QEMU undid it when it gave up, or never got it. (I19)"""
    played = recover(Record.PERFORMING, Status.CANCELLED, shall_run=False, stopped=False)
    assert played.effects == (Qmp(QmpOp.STOP), Qmp(QmpOp.RESTORE))
    played = recover(Record.PERFORMING, Status.CANCELLED, shall_run=False)
    assert played.effects == (Qmp(QmpOp.RESTORE),)


def test_calls_out_of_turn() -> None:
    stranger = on.PerformCalled(20, OTHER)
    assert "another migration job" in play(stranger).refused(20).failure.text
    assert "another migration job" in play(*COPYING, stranger).refused(20).failure.text
    assert "not being migrated" in play(CLOSED, stranger).refused(20).failure.text
    assert play(confirms()).refused(CONFIRM)
    assert play(*COPYING, confirms(cancelled=True, proof=Proof.NONE)).refused(CONFIRM)
    assert play(confirms(cancelled=True, proof=Proof.NONE)).answers(CONFIRM)
    assert play(*PERFORMED, on.AbortCalled(ABORT)).refused(ABORT)


def test_facts_that_no_longer_matter() -> None:
    played = play(CLOSED)
    for event in (
        STORED,
        CONFIGURED,
        on.QmpFailed(QmpOp.CANCEL, QmpWhy.GONE, ""),
        COMPLETED,
        on.TimerFired(Timer.STALL),
        on.ConnectionClosed(OTHER),
        on.UserPaused(by_controller=True),
        on.CpusStarted(),
    ):
        assert played.then(event).effects == ()
