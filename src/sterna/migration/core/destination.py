"""The destination's side of a migration: `begin` makes a state, `step` takes it through its events.

The table of states is in docs/explanation/migration.md. There is one decision, made once, in the
store (L4). Before it everything that goes wrong kills the incoming QEMU; after it nothing does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from sterna.migration.core import events as on
from sterna.migration.core.effects import (
    Answer,
    CheckCaller,
    ClearTimer,
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
    Tell,
    Unwatch,
    View,
    Watch,
)
from sterna.migration.core.records import Record
from sterna.migration.core.words import Failure, FailureKind, QmpOp, QmpWhy, Status, Timer

FINISH_S: Final = 10.0
"""How long Finish waits for the last of the guest. The source's `completed` means that the
destination has loaded everything (return-path), so this only bounds a Finish that came too early
or a QEMU that hangs (I10)."""
STORE_S: Final = 1.0
"""How long a kill waits for the `aborted` record. No record means aborted anyway (L4)."""
KILL_S: Final = 10.0
"""How long callers wait for a process that the kernel does not let die."""
RETRY_S: Final = 0.2
TRIES_MAX: Final = 50


class Phase(Enum):
    LAUNCHING = "launching"
    LISTENING = "listening"
    PREPARED = "prepare"
    FINISHING = "finish3"
    COMMITTING = "committing"
    STARTING = "starting"
    KEEPING = "keeping"
    RESTORING = "restoring"
    ABORTING = "aborting"
    KILLING = "killing"
    FAILED = "failed"
    ENDED = "none"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the destination is.

    Attributes:
        guest: its name, for texts.
        link: the connection that prepared; None once it has ended.
        finish_link: the connection whose Finish is waiting.
        others: further calls of Finish that want the same.
        cancels: calls of Finish that were told to cancel.
        askers: questions of the source that wait for the decision.
        ready: QEMU has the whole guest and could let it run.
        unready: why it could not.
        gone: there is no QEMU (any more).
        persist: a definition shall be written.
    """

    guest: str
    phase: Phase
    link: int | None
    persist: bool
    prepare: int | None = None
    finish: int | None = None
    finish_link: int | None = None
    others: tuple[int, ...] = ()
    cancels: tuple[int, ...] = ()
    askers: tuple[int, ...] = ()
    paused: bool = False
    ready: bool = False
    unready: Failure | None = None
    committed: bool = False
    gone: bool = False
    shown: bool = False
    """Listeners were told that it started."""
    failure: Failure | None = None
    reason: StopReason = StopReason.FAILED
    tries: int = 0


Step = tuple[Destination, tuple[DestinationEffect, ...]]

UNDECIDED: Final = frozenset({Phase.LAUNCHING, Phase.LISTENING, Phase.PREPARED, Phase.FINISHING})


def begin(guest: str, call: int, link: int, *, persist: bool) -> Step:
    """Prepare was called and the guest's name and job are taken."""
    state = Destination(guest, Phase.LAUNCHING, link, persist, prepare=call)
    # Armed before there is anything to kill: no close falls between the two. (I8)
    return state, (Watch(link), Launch())


def recovered(guest: str, *, persist: bool, paused: bool) -> Step:
    """The daemon that committed it died before the guest was known to be here: go on from there.

    The decision stands (L4), whoever asked for it, and nobody else will let the guest run (L2).
    """
    s = Destination(guest, Phase.COMMITTING, None, persist, paused=paused, ready=True, shown=True)
    return _stored(s, Record.COMMITTED)


def step(s: Destination, ev: on.DestinationEvent) -> Step:
    """Next state and the effects to run, in order. Total: never raises."""
    match ev:
        case on.FinishCalled():
            return _finish_called(s, ev)
        case on.Asked(call=call):
            return _asked(s, call)
        case on.ConnectionClosed(link=link):
            return _closed(s, link)
        case on.CallerChecked(alive=alive):
            return _caller_checked(s, alive)
        case on.Stored(stands=record):
            return _stored(s, record)
        case on.StoreFailed():
            return _store_failed(s, ev)
        case on.Launched() if s.phase is Phase.LAUNCHING:
            return replace(s, phase=Phase.LISTENING), (Qmp(QmpOp.LISTEN),)
        case on.LaunchFailed():
            return _launch_failed(s, ev)
        case on.QmpDone(op=op):
            return _qmp_done(s, op)
        case on.QmpFailed():
            return _qmp_failed(s, ev)
        case on.StatusChanged(status=status):
            return _status(s, status)
        case on.CpusStarted() if s.phase is Phase.STARTING:
            return _runs(s)
        case on.QemuGone():
            return _gone(s, ev)
        case on.Defined() if s.phase is Phase.KEEPING:
            return _answered(s)
        case on.TimerFired(timer=timer):
            return _timer_fired(s, timer)
    return s, ()


# -- calls -------------------------------------------------------------------------------------


def _finish_called(s: Destination, ev: on.FinishCalled) -> Step:
    if ev.cancelled:
        return _cancel_called(s, ev.call)
    match s.phase:
        case Phase.PREPARED if not ev.permitted:
            text = f"nothing proves that domain '{s.guest}' has left its source"
            return s, (Refuse(ev.call, Failure(FailureKind.REFUSED, text)),)
        case Phase.PREPARED:
            s = replace(
                s,
                phase=Phase.FINISHING,
                finish=ev.call,
                finish_link=ev.link,
                paused=ev.paused,
            )
            s, effects = _when_ready(s)
            return s, (Watch(ev.link), SetTimer(Timer.FINISH, FINISH_S), *effects)
        case Phase.FINISHING | Phase.COMMITTING | Phase.STARTING | Phase.KEEPING:
            # Asking for the same thing again, over whatever connection, gets the same answer. A
            # refusal would make that caller tell the source to resume.
            return replace(s, others=(*s.others, ev.call)), ()
        case Phase.RESTORING | Phase.ENDED if s.committed:
            return s, (Answer(ev.call),)
        case Phase.FAILED if s.failure is not None:
            return replace(s, phase=Phase.ENDED), (Unwatch(), Refuse(ev.call, s.failure))
        case Phase.ABORTING | Phase.KILLING if s.failure is not None:
            return s, (Refuse(ev.call, s.failure),)
    return s, (Refuse(ev.call, _out_of_turn(s)),)


def _cancel_called(s: Destination, call: int) -> Step:
    if s.phase in UNDECIDED:
        return _abort(replace(s, cancels=(*s.cancels, call)), _revoked(s), StopReason.FAILED)
    match s.phase:
        case Phase.ABORTING | Phase.KILLING:
            return replace(s, cancels=(*s.cancels, call)), ()
        case Phase.FAILED if s.failure is not None:
            # What killed it here is the reason for what the controller saw at the source, so
            # it is told instead of a success (L8).
            return replace(s, phase=Phase.ENDED), (Unwatch(), Refuse(call, s.failure))
        case Phase.ENDED:
            return s, (Refuse(call, _out_of_turn(s)),)
    return s, (Refuse(call, _started(s)),)


def _asked(s: Destination, call: int) -> Step:
    """The source holds a copy that it may let run again once it hears `aborted` (L5)."""
    if s.committed:
        return s, (Tell(call, Record.COMMITTED),)
    if s.phase in UNDECIDED:
        text = (
            f"the source took domain '{s.guest}' back before Finish had decided; it was not"
            " started here"
        )
        failure = Failure(FailureKind.FAILED, text)
        return _abort(replace(s, askers=(*s.askers, call)), failure, StopReason.FAILED)
    if s.phase in (Phase.COMMITTING, Phase.ABORTING):
        return replace(s, askers=(*s.askers, call)), ()
    return s, (Tell(call, Record.ABORTED),)


def _closed(s: Destination, link: int) -> Step:
    prepared_it, finishes_it = link == s.link, link == s.finish_link
    if prepared_it:
        s = replace(s, link=None)
    if s.phase is Phase.FAILED and prepared_it:
        return replace(s, phase=Phase.ENDED), ()
    if s.phase in UNDECIDED and (prepared_it or finishes_it):
        return _abort(s, _lost(s), StopReason.AUTOKILL)
    return s, ()


# -- what the world answers --------------------------------------------------------------------


def _caller_checked(s: Destination, alive: bool) -> Step:
    if s.phase is not Phase.FINISHING:
        return s, ()
    if not alive:
        # It waited in a buffer while its client gave up; to run it now would be a second guest
        # as soon as the source resumes. (I2)
        return _abort(s, _lost(s), StopReason.AUTOKILL)
    return replace(s, phase=Phase.COMMITTING), (
        ClearTimer(Timer.FINISH),
        Store(Record.COMMITTED),
    )


def _stored(s: Destination, stands: Record) -> Step:
    match s.phase, stands:
        case ((Phase.COMMITTING | Phase.ABORTING), Record.COMMITTED):
            late = tuple(Refuse(call, _started(s)) for call in s.cancels)
            told = tuple(Tell(call, Record.COMMITTED) for call in s.askers)
            s, effects = _committed(replace(s, committed=True, cancels=(), askers=()))
            return s, (ClearTimer(Timer.STORE), *late, *effects, *told)
        case Phase.COMMITTING, Record.ABORTED:
            return _kill(replace(s, failure=_revoked(s)))
        case Phase.ABORTING, Record.ABORTED:
            return _kill(s)
    return s, ()


def _store_failed(s: Destination, ev: on.StoreFailed) -> Step:
    match s.phase, ev.record:
        case Phase.COMMITTING, Record.COMMITTED:
            text = f"cannot store the decision to run domain '{s.guest}': {ev.why}"
            return _abort(s, Failure(FailureKind.FAILED, text), StopReason.FAILED)
        case Phase.ABORTING, Record.ABORTED:
            return _kill(s)  # without a decision it counts as aborted (L4)
    return s, ()


def _launch_failed(s: Destination, ev: on.LaunchFailed) -> Step:
    s = replace(s, gone=True)
    if s.phase is Phase.LAUNCHING:
        return _abort(s, Failure(FailureKind.FAILED, ev.why, ev.code), StopReason.UNBORN)
    return s, ()


def _qmp_done(s: Destination, op: QmpOp) -> Step:
    match s.phase, op:
        case Phase.LISTENING, QmpOp.LISTEN:
            s = replace(s, phase=Phase.PREPARED, shown=True)
            call, s = s.prepare, replace(s, prepare=None)
            answers = (Answer(call),) if call is not None else ()
            return s, (Show(View.INCOMING), *answers)
        case Phase.PREPARED, QmpOp.READY:
            return replace(s, ready=True), ()
        case Phase.FINISHING, (QmpOp.READY | QmpOp.ALIVE) if s.finish_link is not None:
            # Either answer came just now, with Finish here: QEMU is alive and the guest complete.
            return replace(s, ready=True), (CheckCaller(s.finish_link),)
        case Phase.STARTING, QmpOp.CONT:
            return _runs(s)
        case Phase.RESTORING, QmpOp.RESTORE:
            return replace(s, phase=Phase.ENDED), (EndJob(True),)
    return s, ()


def _qmp_failed(s: Destination, ev: on.QmpFailed) -> Step:
    match s.phase, ev.op:
        case Phase.LISTENING, QmpOp.LISTEN:
            return _abort(s, Failure(FailureKind.FAILED, ev.text, ev.code), StopReason.UNBORN)
        case ((Phase.PREPARED | Phase.FINISHING), QmpOp.READY):
            failure = Failure(FailureKind.FAILED, ev.text, ev.code)
            return _when_ready(replace(s, unready=failure))
        case Phase.FINISHING, QmpOp.ALIVE:
            return _abort(s, Failure(FailureKind.FAILED, ev.text, ev.code), StopReason.FAILED)
        case Phase.STARTING, QmpOp.CONT:
            # The decision stands, so the guest is ours whatever `cont` says; an error to the
            # controller would make it tell the source to resume. (L4)
            if ev.why is QmpWhy.REFUSED and s.tries < TRIES_MAX:
                return replace(s, tries=s.tries + 1), (SetTimer(Timer.RETRY, RETRY_S),)
            return _kept(s, View.HELD)
        case Phase.RESTORING, QmpOp.RESTORE:
            return replace(s, phase=Phase.ENDED), (EndJob(True),)
    return s, ()


def _status(s: Destination, status: Status) -> Step:
    if status is Status.COMPLETED and s.phase in (Phase.PREPARED, Phase.FINISHING):
        # Asked now, while Perform's answer and Finish are still on their way.
        return s, (Qmp(QmpOp.READY),)
    if status is Status.FAILED and s.phase is Phase.FINISHING:
        text = f"QEMU could not load domain '{s.guest}'"
        return _abort(s, Failure(FailureKind.FAILED, text), StopReason.FAILED)
    return s, ()


def _gone(s: Destination, ev: on.QemuGone) -> Step:
    s = replace(s, gone=True)
    if s.phase in UNDECIDED:
        return _abort(s, Failure(FailureKind.FAILED, ev.why, ev.code), s.reason)
    match s.phase:
        case Phase.STARTING | Phase.KEEPING | Phase.RESTORING:
            return _crashed(s)
        case Phase.KILLING:
            return _dead(s)
    return s, ()


def _timer_fired(s: Destination, timer: Timer) -> Step:
    match s.phase, timer:
        case (Phase.FINISHING, Timer.FINISH):
            text = f"QEMU of domain '{s.guest}' did not have the whole guest in {FINISH_S:.0f} s"
            return _abort(s, Failure(FailureKind.TIMED_OUT, text), StopReason.FAILED)
        case Phase.ABORTING, Timer.STORE:
            return _kill(s)
        case Phase.KILLING, Timer.KILL:
            refusals = _refusals(s)
            s = replace(s, prepare=None, finish=None, others=(), cancels=(), askers=())
            return s, refusals
        case Phase.STARTING, Timer.RETRY:
            return s, (Qmp(QmpOp.CONT),)
    return s, ()


# -- ways -----------------------------------------------------------------------------------------


def _committed(s: Destination) -> Step:
    if s.gone:
        return _crashed(s)
    if s.paused:
        return _kept(s, View.PAUSED)
    return replace(s, phase=Phase.STARTING), (Qmp(QmpOp.CONT),)


def _when_ready(s: Destination) -> Step:
    """Finish can go on once QEMU has everything and could let it run."""
    if s.phase is not Phase.FINISHING:
        return s, ()
    if s.unready is not None:
        return _abort(s, s.unready, StopReason.FAILED)
    # Once decided, the guest is ours, hung or not: so see first whether its QEMU, which was ready
    # before Finish came, still answers. While it does not, a close still kills it. (W7, I10)
    return s, ((Qmp(QmpOp.ALIVE),) if s.ready else ())


def _abort(s: Destination, failure: Failure, reason: StopReason) -> Step:
    reason = reason if s.shown else StopReason.UNBORN
    s = replace(s, phase=Phase.ABORTING, failure=failure, reason=reason)
    return s, (
        ClearTimer(Timer.FINISH),
        Store(Record.ABORTED),
        SetTimer(Timer.STORE, STORE_S),
    )


def _kill(s: Destination) -> Step:
    if s.gone:
        s, effects = _dead(s)
        return s, (ClearTimer(Timer.STORE), *effects)
    return replace(s, phase=Phase.KILLING), (
        ClearTimer(Timer.STORE),
        Kill(s.reason),
        SetTimer(Timer.KILL, KILL_S),
    )


def _dead(s: Destination) -> Step:
    refusals = _refusals(s)
    told = s.prepare is not None or s.finish is not None or bool(s.cancels + s.others)
    # A Finish may still come and shall hear why; after a close or an answer none will.
    phase = Phase.ENDED if told or s.link is None else Phase.FAILED
    s = replace(s, phase=phase, prepare=None, finish=None, others=(), cancels=(), askers=())
    watch = (Unwatch(),) if phase is Phase.ENDED else ()
    return s, (ClearTimer(Timer.KILL), *watch, EndJob(False), *refusals)


def _runs(s: Destination) -> Step:
    return _kept(s, View.RUNNING)


def _kept(s: Destination, view: View) -> Step:
    """The guest is here for good: the connection's end must not touch it from now on."""
    s, effects = (replace(s, phase=Phase.KEEPING), (Define(),)) if s.persist else _answered(s)
    return s, (ClearTimer(Timer.RETRY), Unwatch(), Show(view), *effects)


def _answered(s: Destination) -> Step:
    answers = _answers(s)
    s = replace(s, phase=Phase.RESTORING, finish=None, others=())
    return s, (*answers, Qmp(QmpOp.RESTORE))


def _answers(s: Destination) -> tuple[Answer, ...]:
    return tuple(Answer(call) for call in (s.finish, *s.others) if call is not None)


def _crashed(s: Destination) -> Step:
    """The guest was ours and died like any other. The source must not hear that as a failure."""
    answers = _answers(s)
    s = replace(s, phase=Phase.ENDED, finish=None, others=())
    return s, (ClearTimer(Timer.RETRY), Unwatch(), EndJob(False), *answers)


# -- words ----------------------------------------------------------------------------------------


def _refusals(s: Destination) -> tuple[Refuse | Tell, ...]:
    """For all who wait, once the guest can never run here. Images are free by now, so a source
    that hears it can go on at once."""
    failure = s.failure or _revoked(s)
    calls = [call for call in (s.prepare, s.finish, *s.others) if call is not None]
    return (
        *(Refuse(call, failure) for call in calls),
        *(Refuse(call, _revoked(s)) for call in s.cancels),
        *(Tell(call, Record.ABORTED) for call in s.askers),
    )


def _revoked(s: Destination) -> Failure:
    return Failure(FailureKind.REVOKED, f"domain '{s.guest}' was not started here")


def _started(s: Destination) -> Failure:
    text = f"domain '{s.guest}' has been started here; that cannot be cancelled"
    return Failure(FailureKind.REFUSED, text)


def _lost(s: Destination) -> Failure:
    text = f"the connection that prepared or finishes domain '{s.guest}' has ended"
    return Failure(FailureKind.FAILED, text)


def _out_of_turn(s: Destination) -> Failure:
    text = f"domain '{s.guest}' is not processing incoming migration"
    return Failure(FailureKind.REFUSED, text)
