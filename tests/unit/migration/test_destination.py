"""The destination's machine, step by step: what the explorer proves in general, by name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sterna.migration.core import destination, destination_state
from sterna.migration.core import events as on
from sterna.migration.core.destination import Destination, Phase
from sterna.migration.core.effects import (
    Answer,
    CheckCaller,
    Define,
    DestinationEffect,
    EndJob,
    Kill,
    Launch,
    Qmp,
    Refuse,
    SetTimer,
    Show,
    StopReason,
    Store,
    Unwatch,
    View,
    Watch,
)
from sterna.migration.core.records import Record
from sterna.migration.core.words import FailureKind, QmpOp, QmpWhy, Status, Timer

LINK, OTHER = 1, 2
PREPARE, FINISH, AGAIN, CANCEL = 10, 11, 12, 13


class Played:
    """Where a sequence of events led, and the effects of its last one."""

    def __init__(self, state: Destination, effects: Sequence[DestinationEffect]) -> None:
        self.state, self.effects = state, tuple(effects)

    def then(self, *events: on.DestinationEvent) -> Played:
        state, effects = self.state, self.effects
        for event in events:
            state, effects = destination.step(state, event)
        return Played(state, effects)

    def refused(self, call: int) -> Refuse:
        found = [e for e in self.effects if isinstance(e, Refuse) and e.call == call]
        assert len(found) == 1, self.effects
        return found[0]


def play(*events: on.DestinationEvent, persist: bool = False) -> Played:
    state, effects = destination.begin("g", PREPARE, LINK, persist=persist)
    # Armed before there is anything to kill. (I8)
    assert effects == (Watch(LINK), Launch())
    return Played(state, effects).then(*events)


LAUNCHED = on.Launched()
LISTENS = on.QmpDone(QmpOp.LISTEN)
PREPARED = (LAUNCHED, LISTENS)
LOADED = on.StatusChanged(Status.COMPLETED)
READY = on.QmpDone(QmpOp.READY)
FINISHES = on.FinishCalled(FINISH, LINK, cancelled=False)
CANCELS = on.FinishCalled(CANCEL, LINK, cancelled=True)
LIVES = on.QmpDone(QmpOp.ALIVE)
CALLED = on.CallerChecked(True)
COMMITTED = on.Stored(Record.COMMITTED)
ABORTED = on.Stored(Record.ABORTED)
COMMITTING = (*PREPARED, LOADED, READY, FINISHES, LIVES, CALLED)
STARTING = (*COMMITTING, COMMITTED)
RUNS = on.CpusStarted()
CLOSED = on.ConnectionClosed(LINK)
GONE = on.QemuGone("qemu unexpectedly closed the monitor: oops", 1)
UNDECIDED = [(), (LAUNCHED,), PREPARED, (*PREPARED, LOADED), (*PREPARED, FINISHES)]


def test_a_migration_that_goes_well() -> None:
    played = play(LAUNCHED)
    assert played.effects == (Qmp(QmpOp.LISTEN),)
    played = played.then(LISTENS)
    assert played.effects == (Show(View.INCOMING), Answer(PREPARE))
    played = played.then(on.StatusChanged(Status.ACTIVE), LOADED)
    assert played.effects == (Qmp(QmpOp.READY),)  # before Finish comes, to save its time
    played = played.then(READY, FINISHES)
    assert Qmp(QmpOp.ALIVE) in played.effects
    played = played.then(LIVES)
    assert played.effects == (CheckCaller(LINK),)
    assert not any(isinstance(e, Store) for e in played.effects)
    played = played.then(CALLED)
    assert Store(Record.COMMITTED) in played.effects
    assert Qmp(QmpOp.CONT) not in played.effects
    played = played.then(COMMITTED)
    assert Qmp(QmpOp.CONT) in played.effects
    played = played.then(RUNS)
    assert Unwatch() in played.effects
    assert Show(View.RUNNING) in played.effects
    assert Answer(FINISH) in played.effects
    played = played.then(on.QmpDone(QmpOp.CONT), on.QmpDone(QmpOp.RESTORE))
    assert played.effects == (EndJob(True),)
    assert played.state.phase is Phase.ENDED


def test_finish_comes_before_the_last_byte() -> None:
    played = play(*PREPARED, FINISHES)
    assert SetTimer(Timer.FINISH, destination_state.FINISH_S) in played.effects
    # That answer is as good as ALIVE's: it was given with Finish here.
    assert played.then(LOADED, READY).effects == (CheckCaller(LINK),)


def test_a_paused_guest_is_not_started() -> None:
    finish = on.FinishCalled(FINISH, LINK, cancelled=False, paused=True)
    played = play(*PREPARED, LOADED, READY, finish, LIVES, CALLED, COMMITTED)
    assert Qmp(QmpOp.CONT) not in played.effects
    assert Show(View.PAUSED) in played.effects
    assert Answer(FINISH) in played.effects


def test_the_definition_is_written_after_cont() -> None:
    """A Finish that fails leaves none. (I16)"""
    played = play(*STARTING, persist=True)
    assert Define() not in played.effects
    played = played.then(RUNS)
    assert Define() in played.effects
    assert Answer(FINISH) not in played.effects
    played = played.then(on.Defined(on.DefineOutcome.FAILED))
    assert Answer(FINISH) in played.effects  # it runs here; that it is transient is in the log


@pytest.mark.parametrize("before", UNDECIDED)
def test_autokill(before: tuple[on.DestinationEvent, ...]) -> None:
    """L3, I8: the connection ends, whatever is under way: decided, then killed."""
    played = play(*before, CLOSED)
    assert Store(Record.ABORTED) in played.effects
    assert not any(isinstance(e, Kill) for e in played.effects)
    played = played.then(ABORTED)
    shown = LISTENS in before
    reason = StopReason.AUTOKILL if shown else StopReason.UNBORN
    assert Kill(reason) in played.effects
    played = played.then(on.QemuGone("killed"))
    assert EndJob(False) in played.effects
    assert played.state.phase is Phase.ENDED


def test_the_caller_of_finish_goes_while_it_waits() -> None:
    finish = on.FinishCalled(FINISH, OTHER, cancelled=False)
    played = play(*PREPARED, finish)
    assert Watch(OTHER) in played.effects
    assert played.then(on.ConnectionClosed(OTHER)).state.phase is Phase.ABORTING


def test_a_finish_out_of_a_buffer_does_not_run() -> None:
    """Its client has gone, though nobody has been told yet. (I2)"""
    played = play(*COMMITTING[:-1], on.CallerChecked(False))
    assert Store(Record.ABORTED) in played.effects


@pytest.mark.parametrize("before", [COMMITTING, STARTING, (*STARTING, RUNS)])
def test_after_the_decision_no_connection_matters(before: tuple[on.DestinationEvent, ...]) -> None:
    played = play(*before)
    assert played.then(CLOSED).effects == ()
    refusal = played.then(CANCELS).refused(CANCEL).failure
    assert refusal.kind is FailureKind.REFUSED


@pytest.mark.parametrize("before", UNDECIDED)
def test_finish_told_to_cancel(before: tuple[on.DestinationEvent, ...]) -> None:
    played = play(*before, CANCELS, ABORTED)
    assert any(isinstance(e, Kill) for e in played.effects)
    played = played.then(on.FinishCalled(14, OTHER, cancelled=True), on.QemuGone("killed"))
    assert played.refused(CANCEL).failure.kind is FailureKind.REVOKED
    assert played.refused(14).failure.kind is FailureKind.REVOKED


def test_finish_without_a_permit() -> None:
    played = play(*PREPARED, on.FinishCalled(FINISH, LINK, cancelled=False, permitted=False))
    assert "nothing proves" in played.refused(FINISH).failure.text
    assert played.state.phase is Phase.PREPARED


@pytest.mark.parametrize(
    ("before", "event", "text"),
    [
        ((), on.LaunchFailed("no emulator", 67), "no emulator"),
        ((LAUNCHED,), on.QmpFailed(QmpOp.LISTEN, QmpWhy.REFUSED, "port taken", 1), "port taken"),
        ((LAUNCHED,), GONE, "oops"),
    ],
)
def test_prepare_fails(
    before: tuple[on.DestinationEvent, ...], event: on.DestinationEvent, text: str
) -> None:
    """Nobody was told that it started, so nobody is told that it stopped."""
    played = play(*before, event, ABORTED)
    if any(isinstance(e, Kill) for e in played.effects):
        assert Kill(StopReason.UNBORN) in played.effects
        played = played.then(on.QemuGone("killed"))
    failure = played.refused(PREPARE).failure
    assert text in failure.text
    assert failure.code
    assert played.state.phase is Phase.ENDED


def test_a_launch_that_fails_while_it_is_aborted() -> None:
    played = play(CLOSED, on.LaunchFailed("killed"), ABORTED)
    assert played.state.phase is Phase.ENDED
    assert not any(isinstance(e, Kill) for e in played.effects)


def test_qemu_dies_and_a_late_finish_hears_why() -> None:
    """Whether it cancels or not: these words are what the controller shows. (L8)"""
    played = play(*PREPARED, GONE, ABORTED)
    assert played.state.phase is Phase.FAILED
    for late in (FINISHES, CANCELS):
        told = played.then(late)
        assert "oops" in told.refused(late.call).failure.text
        assert told.state.phase is Phase.ENDED
    assert played.then(CLOSED).state.phase is Phase.ENDED


def test_qemu_dies_while_finish_waits() -> None:
    played = play(*PREPARED, FINISHES, GONE, ABORTED)
    assert "oops" in played.refused(FINISH).failure.text


@pytest.mark.parametrize(
    "event",
    [
        on.StatusChanged(Status.FAILED),
        on.TimerFired(Timer.FINISH),
        on.QmpFailed(QmpOp.READY, QmpWhy.REFUSED, "locked", 1),
        on.QmpFailed(QmpOp.ALIVE, QmpWhy.TIMED_OUT, "hung", 68),
    ],
)
def test_what_ends_a_finish(event: on.DestinationEvent) -> None:
    played = play(*PREPARED, FINISHES, event)
    assert Store(Record.ABORTED) in played.effects
    refused = played.then(on.FinishCalled(AGAIN, OTHER, cancelled=False)).refused(AGAIN)
    played = played.then(ABORTED, on.QemuGone("killed"))
    assert played.refused(FINISH).failure == refused.failure


def test_a_guest_that_could_not_run_waits_for_finish_to_say_so() -> None:
    locked = on.QmpFailed(QmpOp.READY, QmpWhy.REFUSED, "locked", 1)
    played = play(*PREPARED, LOADED, locked)
    assert played.state.phase is Phase.PREPARED
    assert Store(Record.ABORTED) in played.then(FINISHES).effects


def test_the_store_fails_to_commit() -> None:
    """Then it is not decided, and aborting is safe."""
    played = play(*COMMITTING, on.StoreFailed(Record.COMMITTED, "disk full"))
    assert Store(Record.ABORTED) in played.effects
    played = played.then(on.StoreFailed(Record.ABORTED, "disk full"))
    assert Kill(StopReason.FAILED) in played.effects  # no decision counts as aborted
    assert "disk full" in played.then(on.QemuGone("killed")).refused(FINISH).failure.text


def test_what_stands_is_what_counts() -> None:
    """L4: the first decision stands for ever, whoever asked for another."""
    played = play(*COMMITTING, ABORTED)
    assert any(isinstance(e, Kill) for e in played.effects)
    failed = (*COMMITTING, on.StoreFailed(Record.COMMITTED, "?"), CANCELS)
    played = play(*failed, COMMITTED)
    assert Qmp(QmpOp.CONT) in played.effects
    assert played.refused(CANCEL)


def test_a_store_that_hangs_does_not_keep_an_orphan() -> None:
    played = play(*PREPARED, CLOSED, on.TimerFired(Timer.STORE))
    assert Kill(StopReason.AUTOKILL) in played.effects
    assert played.then(ABORTED).effects == ()


def test_a_process_that_cannot_be_killed_keeps_nobody_waiting() -> None:
    played = play(*PREPARED, CANCELS, ABORTED, on.TimerFired(Timer.KILL))
    assert played.refused(CANCEL)
    assert played.state.phase is Phase.KILLING
    assert EndJob(False) in played.then(on.QemuGone("at last")).effects


def test_cont_fails_after_the_commit() -> None:
    """The guest is here whatever `cont` says; Finish never fails now. (L4)"""
    refused = on.QmpFailed(QmpOp.CONT, QmpWhy.REFUSED, "locked", 1)
    played = play(*STARTING)
    for _ in range(destination_state.TRIES_MAX):
        played = played.then(refused)
        assert played.effects == (SetTimer(Timer.RETRY, destination_state.RETRY_S),)
        played = played.then(on.TimerFired(Timer.RETRY))
        assert played.effects == (Qmp(QmpOp.CONT),)
    played = played.then(refused)
    assert Show(View.HELD) in played.effects
    assert Answer(FINISH) in played.effects


def test_cont_without_an_answer_is_not_repeated() -> None:
    played = play(*STARTING, on.QmpFailed(QmpOp.CONT, QmpWhy.TIMED_OUT, "slow"))
    assert Show(View.HELD) in played.effects


def test_the_answer_to_cont_is_as_good_as_its_event() -> None:
    assert Show(View.RUNNING) in play(*STARTING, on.QmpDone(QmpOp.CONT)).effects


@pytest.mark.parametrize("before", [STARTING, (*STARTING, RUNS)])
def test_qemu_dies_after_the_commit(before: tuple[on.DestinationEvent, ...]) -> None:
    """It was a guest of this host, and crashed here like any other."""
    played = play(*before, GONE)
    assert EndJob(False) in played.effects
    assert not any(isinstance(e, Refuse) for e in played.effects)


def test_qemu_dies_while_the_commit_is_being_stored() -> None:
    played = play(*COMMITTING, GONE, COMMITTED)
    assert Answer(FINISH) in played.effects
    assert Qmp(QmpOp.CONT) not in played.effects


def test_finish_again_gets_the_same_answer() -> None:
    """A refusal would make that caller tell the source to resume."""
    again = on.FinishCalled(AGAIN, OTHER, cancelled=False)
    played = play(*COMMITTING, again, COMMITTED, RUNS)
    assert Answer(FINISH) in played.effects
    assert Answer(AGAIN) in played.effects
    assert Answer(AGAIN) in play(*STARTING, RUNS, again).effects
    failed = on.QmpFailed(QmpOp.RESTORE, QmpWhy.TIMED_OUT, "")
    assert Answer(AGAIN) in play(*STARTING, RUNS, failed, again).effects


def test_calls_out_of_turn() -> None:
    assert "not processing" in play(FINISHES).refused(FINISH).failure.text
    ended = play(CLOSED, ABORTED, on.QemuGone("killed"))
    assert "not processing" in ended.then(FINISHES).refused(FINISH).failure.text
    assert "not processing" in ended.then(CANCELS).refused(CANCEL).failure.text


def test_facts_that_no_longer_matter() -> None:
    ended = play(CLOSED, ABORTED, on.QemuGone("killed"))
    for event in (
        LAUNCHED,
        LISTENS,
        LOADED,
        LIVES,
        CALLED,
        RUNS,
        ABORTED,
        on.Defined(on.DefineOutcome.WRITTEN),
        on.LaunchFailed("late"),
        on.StoreFailed(Record.ABORTED, "late"),
        on.QmpFailed(QmpOp.LISTEN, QmpWhy.GONE, "late"),
        on.TimerFired(Timer.FINISH),
        on.StatusChanged(Status.FAILED),
        CLOSED,
        GONE,
    ):
        assert ended.then(event).effects == ()


def test_recovered_it_acts_on_the_decision() -> None:
    """L2: its daemon died between the decision and the `cont`."""
    state, effects = destination.recovered("g", persist=True, paused=False)
    assert state.phase is Phase.STARTING
    assert Qmp(QmpOp.CONT) in effects
    played = Played(state, effects).then(on.QmpDone(QmpOp.CONT))
    assert Show(View.RUNNING) in played.effects
    assert Define() in played.effects
    state, effects = destination.recovered("g", persist=False, paused=True)
    assert Show(View.PAUSED) in effects
    assert Qmp(QmpOp.CONT) not in effects


def test_recovered_nothing_takes_it_back() -> None:
    played = Played(*destination.recovered("g", persist=False, paused=False))
    assert played.then(on.FinishCalled(CANCEL, LINK, True, True, False)).refused(CANCEL)
    assert not played.then(on.ConnectionClosed(LINK)).effects
    failed = played.then(on.QmpFailed(QmpOp.CONT, QmpWhy.GONE, "hangs", 1))
    assert Show(View.HELD) in failed.effects
