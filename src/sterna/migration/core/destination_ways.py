"""The destination's ways: what leads from one phase to the next, whatever happened to cause it."""

from __future__ import annotations

from dataclasses import replace

from sterna.migration.core.destination_state import (
    KILL_S,
    STORE_S,
    Destination,
    Phase,
    refusals,
)
from sterna.migration.core.effects import (
    Answer,
    ClearTimer,
    Define,
    DestinationEffect,
    EndJob,
    Kill,
    Qmp,
    SetTimer,
    Show,
    StopReason,
    Store,
    Unwatch,
    View,
)
from sterna.migration.core.records import (
    Record,
)
from sterna.migration.core.words import (
    Failure,
    QmpOp,
    Timer,
)

Step = tuple[Destination, tuple[DestinationEffect, ...]]


def committed(s: Destination) -> Step:
    if s.gone:
        return crashed(s)
    if s.paused:
        return here(s, View.PAUSED)
    return replace(s, phase=Phase.STARTING), (Qmp(QmpOp.CONT),)


def when_ready(s: Destination) -> Step:
    """Finish can go on once QEMU has everything and could let it run."""
    if s.phase is not Phase.FINISHING:
        return s, ()
    if s.unready is not None:
        return abort(s, s.unready, StopReason.FAILED)
    # Once decided, the guest is ours, hung or not: so see first whether its QEMU, which was ready
    # before Finish came, still answers. While it does not, a close still kills it. (W7, I10)
    return s, ((Qmp(QmpOp.ALIVE),) if s.ready else ())


def abort(s: Destination, failure: Failure, reason: StopReason) -> Step:
    reason = reason if s.shown else StopReason.UNBORN
    s = replace(s, phase=Phase.ABORTING, failure=failure, reason=reason)
    return s, (
        ClearTimer(Timer.FINISH),
        Store(Record.ABORTED),
        SetTimer(Timer.STORE, STORE_S),
    )


def kill(s: Destination) -> Step:
    if s.gone:
        s, effects = dead(s)
        return s, (ClearTimer(Timer.STORE), *effects)
    return replace(s, phase=Phase.KILLING), (
        ClearTimer(Timer.STORE),
        Kill(s.reason),
        SetTimer(Timer.KILL, KILL_S),
    )


def dead(s: Destination) -> Step:
    refused = refusals(s)
    told = s.prepare is not None or s.finish is not None or bool(s.cancels + s.others)
    # A Finish may still come and shall hear why; after a close or an answer none will.
    phase = Phase.ENDED if told or s.link is None else Phase.FAILED
    s = replace(s, phase=phase, prepare=None, finish=None, others=(), cancels=(), askers=())
    watch = (Unwatch(),) if phase is Phase.ENDED else ()
    return s, (ClearTimer(Timer.KILL), *watch, EndJob(False), *refused)


def here(s: Destination, view: View) -> Step:
    """The guest is here for good. In post-copy its memory is not yet: Finish waits for that."""
    if not s.post:
        return kept(s, view)
    s = replace(s, phase=Phase.RECEIVING, view=view)
    shown = View.POSTCOPY if view is View.RUNNING else view
    # QEMU may have completed, or lost its source, while nobody listened.
    return s, (ClearTimer(Timer.RETRY), Unwatch(), Show(shown), Qmp(QmpOp.PROGRESS))


def kept(s: Destination, view: View) -> Step:
    """The guest is here for good: the connection's end must not touch it from now on."""
    s, effects = (replace(s, phase=Phase.KEEPING), (Define(),)) if s.persist else answered(s)
    return s, (ClearTimer(Timer.RETRY), Unwatch(), Show(view), *effects)


def answered(s: Destination) -> Step:
    told = answers(s)
    s = replace(s, phase=Phase.RESTORING, finish=None, others=())
    return s, (*told, Qmp(QmpOp.RESTORE))


def answers(s: Destination) -> tuple[Answer, ...]:
    return tuple(Answer(call) for call in (s.finish, *s.others) if call is not None)


def crashed(s: Destination) -> Step:
    """The guest was ours and died like any other. The source must not hear that as a failure."""
    told = answers(s)
    s = replace(s, phase=Phase.ENDED, finish=None, others=())
    clear = (ClearTimer(Timer.RETRY), ClearTimer(Timer.STALL))
    return s, (*clear, Unwatch(), EndJob(False), *told)
