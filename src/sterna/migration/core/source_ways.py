"""The source's ways: what leads from one phase of it to the next, whatever happened to cause it."""

from __future__ import annotations

from dataclasses import replace

from sterna.migration.core.effects import (
    Answer,
    Ask,
    ClearTimer,
    EndJob,
    Qmp,
    Refuse,
    SetTimer,
    Show,
    SourceEffect,
    Store,
    Unwatch,
    View,
)
from sterna.migration.core.records import Record
from sterna.migration.core.source_state import (
    ASK_S,
    CANCEL_S,
    CONFIRM_S,
    GONE_ASK_S,
    LOOK_S,
    Phase,
    Source,
    confirmed,
    told,
    too_late,
)
from sterna.migration.core.words import Failure, FailureKind, QmpOp, Timer

Step = tuple[Source, tuple[SourceEffect, ...]]


def look(s: Source) -> Step:
    """A second has gone by. A peer that takes nothing, or a QEMU that hangs, ends it. (I12)"""
    if s.idle >= s.patience:
        return cancel(s, stalled(s))
    s, ask = replace(s, idle=s.idle + 1), not s.looking
    looks = (Qmp(QmpOp.PROGRESS),) if ask else ()
    return replace(s, looking=True), (*looks, SetTimer(Timer.STALL, LOOK_S))


def stalled(s: Source) -> Failure:
    text = f"migration of domain '{s.guest}' stalled: no data has moved for {s.patience} s"
    return Failure(FailureKind.FAILED, text)


def moved(s: Source, bytes_moved: int) -> Step:
    if bytes_moved > s.moved:
        return replace(s, moved=bytes_moved, idle=0), ()
    return s, ()


def send(s: Source) -> Step:
    """Now memory. One that is not live stops first, and no sooner."""
    # QEMU counts anew from here.
    s = replace(s, moved=-1, idle=0, looking=False)
    if not s.live and not s.stopped:
        return replace(s, phase=Phase.PAUSING), (Qmp(QmpOp.STOP),)
    return replace(s, phase=Phase.STARTING), (Qmp(QmpOp.MIGRATE),)


def switch(s: Source) -> Step:
    """QEMU waits for our word before it sends the rest. The guest stands from here to the end, so
    nothing may come between. (I11)"""
    s = replace(s, phase=Phase.SWITCHING, idle=0)
    return s, (Qmp(QmpOp.CONTINUE), SetTimer(Timer.STALL, LOOK_S))


def cancel(s: Source, failure: Failure) -> Step:
    return replace(s, phase=Phase.CANCELLING, failure=s.failure or failure), (
        ClearTimer(Timer.STALL),
        Qmp(QmpOp.CANCEL),
        SetTimer(Timer.CANCEL, CANCEL_S),
    )


def performed(s: Source) -> Step:
    """Everything is out. An abort that came too late is told so, and the migration goes on."""
    refusals: list[SourceEffect] = [Refuse(call, too_late(s)) for call in s.aborts]
    clear = (ClearTimer(Timer.STALL), ClearTimer(Timer.CANCEL))
    if s.link is None or s.perform is None:
        # Nobody will drive this on, and the destination has all it needs to run. (L5)
        if s.perform is not None:
            refusals.append(Refuse(s.perform, told(s)))
        s, effects = doubt(replace(s, perform=None, aborts=(), failure=None))
        return s, (*clear, *refusals, *effects)
    done = replace(s, phase=Phase.PERFORMED, perform=None, aborts=(), failure=None)
    return done, (Answer(s.perform), *clear, *refusals, SetTimer(Timer.CONFIRM, CONFIRM_S))


def doubt(s: Source, *, at_once: bool = False) -> Step:
    """The destination may run the guest by now: only its own word frees us. (L5)"""
    s = replace(s, phase=Phase.IN_DOUBT)
    effects: tuple[SourceEffect, ...] = (SetTimer(Timer.ASK, GONE_ASK_S),)
    if at_once or not s.gone:
        s, effects = ask(s)
    return s, (ClearTimer(Timer.CONFIRM), Show(View.IN_DOUBT), *effects)


def ask(s: Source) -> Step:
    if s.asking or not s.asks:
        return s, ()
    return replace(s, asking=True), (ClearTimer(Timer.ASK), Ask())


def untold(s: Source, why: str) -> Step:
    """Ask again later. A controller that waits is told how it is."""
    again = SetTimer(Timer.ASK, ASK_S[s.unheard])
    unheard = min(s.unheard + 1, len(ASK_S) - 1)
    call, s = s.confirm, replace(s, unheard=unheard, confirm=None)
    if call is None:
        return s, (again,)
    text = (
        f"nobody knows yet whether domain '{s.guest}' runs at its destination: {why}; it is held"
        " paused here and the destination is asked again until it answers"
    )
    return s, (again, Refuse(call, Failure(FailureKind.FAILED, text)))


def decided(s: Source, *, taken_back: bool) -> Step:
    clear = (ClearTimer(Timer.CONFIRM), ClearTimer(Timer.ASK), Unwatch())
    if taken_back:
        return replace(s, phase=Phase.TAKING_BACK), (*clear, Store(Record.TAKEN_BACK))
    return replace(s, phase=Phase.HANDING_OVER), (*clear, Store(Record.HANDED_OVER))


def unwind(s: Source) -> Step:
    """It will not move. Run again if the CPUs stand and should not; then clean up."""
    if s.gone:
        return end(s)
    if s.stopped and s.shall_run:
        return replace(s, phase=Phase.RESUMING), (Qmp(QmpOp.CONT),)
    return restore(s)


def restore(s: Source) -> Step:
    return replace(s, phase=Phase.RESTORING), (Qmp(QmpOp.RESTORE),)


def end(s: Source) -> Step:
    answers: list[SourceEffect] = [Answer(call) for call in s.aborts]
    answers += confirmed(s, is_here=True)
    if s.perform is not None:
        answers.append(Refuse(s.perform, told(s)))
    s = replace(s, phase=Phase.ENDED, perform=None, confirm=None, aborts=())
    return s, (Unwatch(), EndJob(False), *answers)
