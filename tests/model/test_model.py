"""The laws hold in everything that can happen within the bounds, and each planted bug is found.

The cores are the production ones. Bounds are named with each run, with its size and time; `-s`
prints them. What the bounds leave out: more than two faults in one migration, a daemon's death
between two effects of one step, and time itself (a timer may fire when nothing else can happen, or
too early by a fault).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from model import laws, world
from model.explore import Broken, explore, replay
from model.moves import moves
from model.world import Bounds
from sterna.migration.core import destination, source
from sterna.migration.core import effects as do
from sterna.migration.core import events as on
from sterna.migration.core.records import Record
from sterna.migration.core.words import QmpOp, Status

NETWORK = frozenset({"cut", "silence", "die"})
QEMU = frozenset({"crash", "hang", "data", "lock", "launch"})
ALL = NETWORK | QEMU | {"store", "timer"}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def _small_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty tries behave as one does, and cost fifty times the states."""
    monkeypatch.setattr(source, "TRIES_MAX", 1)
    monkeypatch.setattr(source, "ASK_S", (1.0,))
    monkeypatch.setattr(destination, "TRIES_MAX", 1)


RUNS = {
    "all is well": Bounds(faults=0),
    "one fault, an abort": Bounds(faults=1, kinds=ALL, aborts=1),
    "one fault, a user's pause": Bounds(faults=1, kinds=ALL, pauses=1),
    "one fault, a stranger": Bounds(faults=1, kinds=NETWORK | {"data"}, wild=1),
    "two calls of a stranger, an abort": Bounds(faults=0, wild=2, aborts=1),
    "two faults of the network": Bounds(faults=2, kinds=NETWORK | {"data"}),
    "two faults of machines": Bounds(faults=2, kinds=(QEMU | {"store"}) - {"launch"}),
    "one fault, a daemon that restarts": Bounds(faults=2, kinds=NETWORK | {"restart"}),
    "a daemon that restarts, an abort or a pause": Bounds(
        faults=1, kinds=frozenset({"restart", "data", "crash"}), aborts=1, pauses=1
    ),
    "a broken connection and a hung machine": Bounds(faults=2, kinds=frozenset({"cut", "hang"})),
    "a dead controller and a dead machine": Bounds(faults=2, kinds=frozenset({"die", "crash"})),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_laws_hold(name: str) -> None:
    """L1 to L5, L7, I13, I17, I19 in every interleaving of the run."""
    found = explore(world.start(RUNS[name]), moves, laws.bad)
    print(f"\n{name}: {found}")


def test_the_laws_hold_for_a_guest_that_is_stopped_first() -> None:
    found = explore(world.start(Bounds(faults=1, kinds=ALL), live=False), moves, laws.bad)
    print(f"\nnot live: {found}")


def test_a_destination_that_cannot_be_asked_leaves_one_hole() -> None:
    """W1 with a libvirtd as the destination: Finish's answer is lost, and its client tells the
    source "cancelled". Nothing but asking closes that."""
    start = world.start(Bounds(faults=1, kinds=NETWORK), asks=False)
    with pytest.raises(Broken, match="L1") as broken:
        explore(start, moves, lambda w, _settled: laws.never_two(w))
    trace = broken.value.trace
    # A trace is a test of its own: it leads there again.
    assert laws.never_two(replay(start, moves, trace))
    assert "destination has stored committed" in trace
    assert "confirm1 arrives" in trace


# -- planted bugs ------------------------------------------------------------------------------

Step = Callable[[Any, Any], tuple[Any, tuple[Any, ...]]]


def resumes_when_its_controller_is_gone(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        if isinstance(ev, on.ConnectionClosed) and s.phase is source.Phase.PERFORMED:
            return replace(s, phase=source.Phase.RESUMING), (do.Qmp(QmpOp.CONT),)
        return step(s, ev)

    return bug


def takes_completed_for_cancelled(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        completed = isinstance(ev, on.StatusChanged) and ev.status is Status.COMPLETED
        if completed and s.phase is source.Phase.CANCELLING:
            ev = on.StatusChanged(Status.CANCELLED)
            return step(replace(s, stopped=True), ev)
        return step(s, ev)

    return bug


def migrates_before_its_record(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        if isinstance(ev, on.PerformCalled) and s.phase is source.Phase.BEGUN:
            s = replace(s, phase=source.Phase.CONFIGURING, perform=ev.call)
            return s, (do.Qmp(QmpOp.CONFIGURE),)
        return step(s, ev)

    return bug


def acknowledges_an_abort_that_is_too_late(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        if isinstance(ev, on.AbortCalled) and s.phase is source.Phase.PERFORMED:
            return s, (do.Answer(ev.call),)
        return step(s, ev)

    return bug


def forgets_the_call_when_in_doubt(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        after, effects = step(s, ev)
        if after.phase is source.Phase.IN_DOUBT and s.phase is source.Phase.CANCELLING:
            effects = tuple(e for e in effects if not isinstance(e, do.Refuse))
        return after, effects

    return bug


def forgets_a_users_pause(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        return (s, ()) if isinstance(ev, on.UserPaused) else step(s, ev)

    return bug


def never_drives_the_switchover(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        after, effects = step(s, ev)
        driven = (e for e in effects if e != do.Qmp(QmpOp.CONTINUE))
        return after, tuple(e for e in driven if not isinstance(e, do.SetTimer))

    return bug


SOURCE_BUGS: dict[Callable[[Step], Step], str | tuple[str, ...]] = {
    resumes_when_its_controller_is_gone: "L5",
    takes_completed_for_cancelled: "L5",
    migrates_before_its_record: "I13",
    acknowledges_an_abort_that_is_too_late: "I17",
    forgets_the_call_when_in_doubt: "L7",
    forgets_a_users_pause: "I19",
    never_drives_the_switchover: ("L2", "L7"),
}


def starts_before_the_decision_is_stored(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        after, effects = step(s, ev)
        if do.Store(Record.COMMITTED) in effects:
            effects = (*effects, do.Qmp(QmpOp.CONT))
        return after, effects

    return bug


def kills_before_the_decision_is_stored(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        after, effects = step(s, ev)
        if do.Store(Record.ABORTED) in effects:
            effects = (do.Kill(do.StopReason.FAILED), *effects)
        return after, effects

    return bug


def kills_a_committed_guest(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        if isinstance(ev, on.ConnectionClosed) and s.phase is destination.Phase.STARTING:
            return s, (do.Kill(do.StopReason.AUTOKILL),)
        return step(s, ev)

    return bug


def trusts_a_caller_that_is_gone(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        return step(s, on.CallerChecked(True) if isinstance(ev, on.CallerChecked) else ev)

    return bug


def is_deaf_while_finish_waits(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        if isinstance(ev, on.ConnectionClosed) and s.phase is destination.Phase.FINISHING:
            return replace(s, link=None), ()
        return step(s, ev)

    return bug


def waits_for_a_hung_qemu(step: Step) -> Step:
    """Finish without a deadline: W7."""

    def bug(s: destination.Destination, ev: Any) -> Any:
        after, effects = step(s, ev)
        return after, tuple(e for e in effects if not isinstance(e, do.SetTimer))

    return bug


def needs_no_permit(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        if isinstance(ev, on.FinishCalled):
            ev = replace(ev, permitted=True)
        return step(s, ev)

    return bug


def fails_after_the_commit(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        failed = isinstance(ev, on.QmpFailed) and ev.op is QmpOp.CONT
        if failed and s.phase is destination.Phase.STARTING and s.finish is not None:
            failure = destination._lost(s)
            return replace(s, finish=None), (do.Refuse(s.finish, failure),)
        return step(s, ev)

    return bug


DESTINATION_BUGS: dict[Callable[[Step], Step], str | tuple[str, ...]] = {
    starts_before_the_decision_is_stored: "L4",
    kills_before_the_decision_is_stored: "L4",
    kills_a_committed_guest: "L4",
    trusts_a_caller_that_is_gone: "I2",
    is_deaf_while_finish_waits: "L3",
    waits_for_a_hung_qemu: ("L2", "L7"),
    needs_no_permit: "L1",
    fails_after_the_commit: "L4",
}


def find_bug() -> str:
    """Which law the explorer sees broken, in the runs that look hardest."""
    for bounds in (
        Bounds(faults=1, kinds=ALL, aborts=1),
        Bounds(faults=1, kinds=ALL, pauses=1),
        Bounds(faults=1, kinds=frozenset({"data"}), wild=1),
        Bounds(faults=2, kinds=frozenset({"cut", "hang"})),
    ):
        try:
            explore(world.start(bounds), moves, laws.bad)
        except Broken as broken:
            print(f"\n{broken}")
            return broken.law
    return "nothing"


@pytest.mark.parametrize("plant", SOURCE_BUGS, ids=lambda plant: plant.__name__)
def test_a_bug_in_the_source_is_found(
    plant: Callable[[Step], Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "step", plant(source.step))
    assert find_bug().startswith(SOURCE_BUGS[plant])


@pytest.mark.parametrize("plant", DESTINATION_BUGS, ids=lambda plant: plant.__name__)
def test_a_bug_in_the_destination_is_found(
    plant: Callable[[Step], Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination, "step", plant(destination.step))
    assert find_bug().startswith(DESTINATION_BUGS[plant])


def test_autokill_armed_too_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """I8: a connection that ends while QEMU is being launched."""
    begin = destination.begin

    def bug(*args: Any, **named: Any) -> Any:
        state, effects = begin(*args, **named)
        return state, tuple(e for e in effects if not isinstance(e, do.Watch))

    monkeypatch.setattr(destination, "begin", bug)
    assert find_bug().startswith("L3")
