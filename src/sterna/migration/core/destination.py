"""The destination's side of a migration: `begin` makes a state, `step` takes it through its events.

The table of states is in docs/explanation/migration.md. There is one decision, made once, in the
store (L4). Before it everything that goes wrong kills the incoming QEMU; after it nothing does.
"""

from __future__ import annotations

from dataclasses import replace

from sterna.migration.core import destination_postcopy as postcopy
from sterna.migration.core import events as on
from sterna.migration.core.destination_state import (
    FINISH_S,
    RETRY_S,
    TRIES_MAX,
    UNDECIDED,
    Destination,
    Phase,
    lost,
    out_of_turn,
    refusals,
    revoked,
    started,
)
from sterna.migration.core.destination_ways import (
    Step,
    abort,
    answered,
    committed,
    crashed,
    dead,
    here,
    kill,
    when_ready,
)
from sterna.migration.core.effects import (
    Answer,
    CheckCaller,
    ClearTimer,
    EndJob,
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
from sterna.migration.core.records import (
    Record,
)
from sterna.migration.core.words import (
    Failure,
    FailureKind,
    QmpOp,
    QmpWhy,
    Status,
    Timer,
)

__all__ = ["UNDECIDED", "Destination", "Phase", "begin", "recovered", "step"]


def begin(guest: str, call: int, link: int, *, persist: bool) -> Step:
    """Prepare was called and the guest's name and job are taken."""
    state = Destination(guest, Phase.LAUNCHING, link, persist, prepare=call)
    # Armed before there is anything to kill: no close falls between the two. (I8)
    return state, (Watch(link), Launch())


def recovered(guest: str, *, persist: bool, paused: bool, post: bool = False) -> Step:
    """The daemon that committed it died before the guest was known to be here: go on from there.

    The decision stands (L4), whoever asked for it, and nobody else will let the guest run (L2).
    """
    s = Destination(guest, Phase.COMMITTING, None, persist, paused=paused, ready=True, shown=True)
    s = replace(s, post=post)
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
        case on.QmpDone():
            return _qmp_done(s, ev)
        case on.QmpFailed():
            return _qmp_failed(s, ev)
        case on.StatusChanged(status=status):
            return _status(s, status)
        case on.CpusStarted() if s.phase is Phase.STARTING:
            return here(s, View.RUNNING)
        case on.QemuGone():
            return _gone(s, ev)
        case on.Defined() if s.phase is Phase.KEEPING:
            return answered(s)
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
            s, effects = when_ready(s)
            return s, (Watch(ev.link), SetTimer(Timer.FINISH, FINISH_S), *effects)
        case Phase.RECEIVING if s.broken:
            return s, (Refuse(ev.call, postcopy.broken(s)),)
        case Phase.FINISHING | Phase.COMMITTING | Phase.STARTING | Phase.RECEIVING | Phase.KEEPING:
            # Asking for the same thing again, over whatever connection, gets the same answer. A
            # refusal would make that caller tell the source to resume.
            return replace(s, others=(*s.others, ev.call)), ()
        case Phase.RESTORING | Phase.ENDED if s.committed:
            return s, (Answer(ev.call),)
        case Phase.FAILED if s.failure is not None:
            return replace(s, phase=Phase.ENDED), (Unwatch(), Refuse(ev.call, s.failure))
        case Phase.ABORTING | Phase.KILLING if s.failure is not None:
            return s, (Refuse(ev.call, s.failure),)
    return s, (Refuse(ev.call, out_of_turn(s)),)


def _cancel_called(s: Destination, call: int) -> Step:
    if s.phase in UNDECIDED:
        return abort(replace(s, cancels=(*s.cancels, call)), revoked(s), StopReason.FAILED)
    match s.phase:
        case Phase.ABORTING | Phase.KILLING:
            return replace(s, cancels=(*s.cancels, call)), ()
        case Phase.FAILED if s.failure is not None:
            # What killed it here is the reason for what the controller saw at the source, so
            # it is told instead of a success (L8).
            return replace(s, phase=Phase.ENDED), (Unwatch(), Refuse(call, s.failure))
        case Phase.ENDED:
            return s, (Refuse(call, out_of_turn(s)),)
    return s, (Refuse(call, started(s)),)


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
        return abort(replace(s, askers=(*s.askers, call)), failure, StopReason.FAILED)
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
        return abort(s, lost(s), StopReason.AUTOKILL)
    return s, ()


# -- what the world answers --------------------------------------------------------------------


def _caller_checked(s: Destination, alive: bool) -> Step:
    if s.phase is not Phase.FINISHING:
        return s, ()
    if not alive:
        # It waited in a buffer while its client gave up; to run it now would be a second guest
        # as soon as the source resumes. (I2)
        return abort(s, lost(s), StopReason.AUTOKILL)
    return replace(s, phase=Phase.COMMITTING), (
        ClearTimer(Timer.FINISH),
        Store(Record.COMMITTED),
    )


def _stored(s: Destination, stands: Record) -> Step:
    match s.phase, stands:
        case ((Phase.COMMITTING | Phase.ABORTING), Record.COMMITTED):
            late = tuple(Refuse(call, started(s)) for call in s.cancels)
            told = tuple(Tell(call, Record.COMMITTED) for call in s.askers)
            s, effects = committed(replace(s, committed=True, cancels=(), askers=()))
            return s, (ClearTimer(Timer.STORE), *late, *effects, *told)
        case Phase.COMMITTING, Record.ABORTED:
            return kill(replace(s, failure=revoked(s)))
        case Phase.ABORTING, Record.ABORTED:
            return kill(s)
    return s, ()


def _store_failed(s: Destination, ev: on.StoreFailed) -> Step:
    match s.phase, ev.record:
        case Phase.COMMITTING, Record.COMMITTED:
            text = f"cannot store the decision to run domain '{s.guest}': {ev.why}"
            return abort(s, Failure(FailureKind.FAILED, text), StopReason.FAILED)
        case Phase.ABORTING, Record.ABORTED:
            return kill(s)  # without a decision it counts as aborted (L4)
    return s, ()


def _launch_failed(s: Destination, ev: on.LaunchFailed) -> Step:
    s = replace(s, gone=True)
    if s.phase is Phase.LAUNCHING:
        return abort(s, Failure(FailureKind.FAILED, ev.why, ev.code), StopReason.UNBORN)
    return s, ()


def _qmp_done(s: Destination, ev: on.QmpDone) -> Step:
    match s.phase, ev.op:
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
            return here(s, View.RUNNING)
        case Phase.RESTORING, QmpOp.RESTORE:
            return replace(s, phase=Phase.ENDED), (EndJob(True),)
        case Phase.RECEIVING, QmpOp.PROGRESS:
            return postcopy.looked(s, ev.status)
    return s, ()


def _qmp_failed(s: Destination, ev: on.QmpFailed) -> Step:
    match s.phase, ev.op:
        case Phase.LISTENING, QmpOp.LISTEN:
            return abort(s, Failure(FailureKind.FAILED, ev.text, ev.code), StopReason.UNBORN)
        case ((Phase.PREPARED | Phase.FINISHING), QmpOp.READY):
            failure = Failure(FailureKind.FAILED, ev.text, ev.code)
            return when_ready(replace(s, unready=failure))
        case Phase.FINISHING, QmpOp.ALIVE:
            return abort(s, Failure(FailureKind.FAILED, ev.text, ev.code), StopReason.FAILED)
        case Phase.STARTING, QmpOp.CONT:
            # The decision stands, so the guest is ours whatever `cont` says; an error to the
            # controller would make it tell the source to resume. (L4)
            if ev.why is QmpWhy.REFUSED and s.tries < TRIES_MAX:
                return replace(s, tries=s.tries + 1), (SetTimer(Timer.RETRY, RETRY_S),)
            return here(s, View.HELD)
        case Phase.RESTORING, QmpOp.RESTORE:
            return replace(s, phase=Phase.ENDED), (EndJob(True),)
        case Phase.RECEIVING, QmpOp.PROGRESS if ev.why is not QmpWhy.GONE:
            return postcopy.mute(s)
    return s, ()


def _status(s: Destination, status: Status) -> Step:
    if status in postcopy.STATUSES or (s.post and status is Status.COMPLETED):
        return postcopy.status(s, status)
    if status is Status.COMPLETED and s.phase in (Phase.PREPARED, Phase.FINISHING):
        # Asked now, while Perform's answer and Finish are still on their way.
        return s, (Qmp(QmpOp.READY),)
    if status is Status.FAILED and s.phase is Phase.FINISHING:
        text = f"QEMU could not load domain '{s.guest}'"
        return abort(s, Failure(FailureKind.FAILED, text), StopReason.FAILED)
    return s, ()


def _gone(s: Destination, ev: on.QemuGone) -> Step:
    s = replace(s, gone=True)
    if s.phase in UNDECIDED:
        return abort(s, Failure(FailureKind.FAILED, ev.why, ev.code), s.reason)
    match s.phase:
        case Phase.STARTING | Phase.RECEIVING | Phase.KEEPING | Phase.RESTORING:
            return crashed(s)
        case Phase.KILLING:
            return dead(s)
    return s, ()


def _timer_fired(s: Destination, timer: Timer) -> Step:
    match s.phase, timer:
        case (Phase.FINISHING, Timer.FINISH):
            text = f"QEMU of domain '{s.guest}' did not have the whole guest in {FINISH_S:.0f} s"
            return abort(s, Failure(FailureKind.TIMED_OUT, text), StopReason.FAILED)
        case Phase.ABORTING, Timer.STORE:
            return kill(s)
        case Phase.KILLING, Timer.KILL:
            told = refusals(s)
            s = replace(s, prepare=None, finish=None, others=(), cancels=(), askers=())
            return s, told
        case Phase.STARTING, Timer.RETRY:
            return s, (Qmp(QmpOp.CONT),)
        case Phase.RECEIVING, Timer.STALL if not s.broken:
            return s, (Qmp(QmpOp.PROGRESS),)
    return s, ()
