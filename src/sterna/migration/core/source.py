"""The source's side of a migration: `begin` makes a state, `step` takes it through its events.

The table of states is in docs/explanation/migration.md. Two rules hold everywhere: whatever ends
the attempt before QEMU says `completed` leads back to a running guest, since QEMU's own `cancelled`
or `failed` proves that nobody else can have it; and after `completed` only the destination's own
word lets the guest run again, which is asked for until it is heard (L5).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sterna.migration.core import events as on
from sterna.migration.core import source_disks as disks
from sterna.migration.core import source_postcopy as postcopy
from sterna.migration.core.effects import (
    Answer,
    ClearTimer,
    EndJob,
    Kill,
    Qmp,
    Refuse,
    SetTimer,
    Show,
    StopReason,
    Store,
    Undefine,
    Unwatch,
    View,
    Watch,
)
from sterna.migration.core.records import Record
from sterna.migration.core.source_state import (
    CANCEL_S,
    LOOK_S,
    PATIENCE,
    RETRY_S,
    TRIES_MAX,
    Phase,
    Source,
    Verdict,
    confirmed,
    explained,
    out_of_turn,
    too_late,
    verdict,
)
from sterna.migration.core.source_ways import (
    Step,
    ask,
    cancel,
    decided,
    doubt,
    end,
    look,
    moved,
    performed,
    restore,
    send,
    switch,
    untold,
    unwind,
)
from sterna.migration.core.words import (
    Failure,
    FailureKind,
    QmpOp,
    QmpWhy,
    Status,
    Timer,
)

__all__ = ["Phase", "Source", "Verdict", "begin", "recovered", "step", "verdict"]


def begin(
    guest: str,
    link: int,
    *,
    live: bool,
    running: bool,
    patience: int = PATIENCE,
    may_postcopy: bool = False,
) -> Step:
    """A migration that holds the job and has touched nothing yet."""
    state = Source(
        guest, live, shall_run=running, link=link, stopped=not running, patience=patience
    )
    state = replace(state, postcopy=may_postcopy)
    return state, (Watch(link),)


def recovered(
    guest: str,
    record: Record | None,
    status: Status | None,
    *,
    shall_run: bool,
    stopped: bool,
    asks: bool = False,
    gone: bool = False,
) -> Step:
    """The daemon that drove this died; go on from its record and from what QEMU says (I14).

    `status` is that of an outgoing migration, None if QEMU knows of none. Nobody drives it now.
    What was not sent completely comes back; what was is in doubt, unless the verdict is stored.
    With its QEMU `gone` nobody can say how far that was, so a destination that can be is asked.
    """
    s = Source(guest, live=True, shall_run=shall_run, stopped=stopped, asks=asks, gone=gone)
    if gone:
        status = Status.COMPLETED if asks else None
    s, effects = _recovered(s, record, status)
    # A user's pause that did not reach QEMU, or that QEMU undid when it gave up. (I19)
    again = () if stopped or shall_run or gone else (Qmp(QmpOp.STOP),)
    return s, (*again, *effects)


def _recovered(s: Source, record: Record | None, status: Status | None) -> Step:
    if status in postcopy.STATUSES:
        return postcopy.recovered(s, record, status)
    if record is Record.HANDED_OVER:
        return replace(s, phase=Phase.STOPPING), (Kill(StopReason.MIGRATED),)
    if record is Record.TAKEN_BACK:
        return unwind(s)
    if status is Status.COMPLETED:
        return doubt(s)
    if status in (None, Status.FAILED, Status.CANCELLED):
        return unwind(s)
    lost = Failure(FailureKind.FAILED, f"the daemon that migrated domain '{s.guest}' has ended")
    return cancel(s, lost)


def step(s: Source, ev: on.SourceEvent) -> Step:
    """Next state and the effects to run, in order. Total: never raises."""
    match ev:
        case on.PerformCalled():
            return _perform_called(s, ev)
        case on.ConfirmCalled():
            return _confirm_called(s, ev)
        case on.AbortCalled():
            return _abort_called(s, ev.call)
        case on.PostcopyCalled(call=call):
            return postcopy.called(s, call)
        case on.AskCalled() if s.phase is Phase.IN_DOUBT:
            return ask(replace(s, unheard=0))
        case on.Forced():
            return _forced(s, ev)
        case on.Told(decision=decision) if s.phase is Phase.IN_DOUBT:
            return decided(replace(s, asking=False), taken_back=decision is Record.ABORTED)
        case on.Untold(why=why) if s.phase is Phase.IN_DOUBT:
            return untold(replace(s, asking=False), why)
        case on.UserPaused(by_controller=False):
            return replace(s, shall_run=False), ()
        case on.GuestBroke(text=text):
            # Its pause is the error's and stays; a person looks at it here.
            return _give_up(replace(s, shall_run=False), Failure(FailureKind.FAILED, text))
        case on.DisksReady():
            return disks.ready(s)
        case on.DiskFailed(text=text):
            return _give_up(s, Failure(FailureKind.FAILED, text))
        case on.ConnectionClosed(link=link) if link == s.link:
            return _controller_closed(replace(s, link=None))
        case on.Stored() | on.StoreFailed():
            return _stored(s, ev)
        case on.QmpDone():
            return _qmp_done(s, ev)
        case on.QmpFailed():
            return _qmp_failed(s, ev)
        case on.StatusChanged(status=status):
            return _status(s, status)
        case on.CpusStopped():
            return replace(s, stopped=True), ()
        case on.CpusStarted():
            # QEMU starts a guest again that ran when it stopped it. Was it paused by a user since,
            # that goes before. (I19)
            again = () if s.shall_run or s.phase is Phase.ENDED else (Qmp(QmpOp.STOP),)
            return replace(s, stopped=False), again
        case on.QemuGone():
            return _gone(s, ev)
        case on.TimerFired(timer=timer):
            return _timer_fired(s, timer)
    return s, ()


# -- calls -------------------------------------------------------------------------------------


def _perform_called(s: Source, ev: on.PerformCalled) -> Step:
    if s.phase is not Phase.BEGUN or ev.link != s.link:
        # Whoever did Begin owns the job (L7), and its end cancels what it drives (I12).
        return s, (Refuse(ev.call, out_of_turn(s)),)
    if s.failure is not None:
        return end(replace(s, perform=ev.call))
    s = replace(s, phase=Phase.RECORDING, perform=ev.call, asks=ev.asks, disks=ev.disks)
    return s, (Store(Record.PERFORMING),)


def _confirm_called(s: Source, ev: on.ConfirmCalled) -> Step:
    if s.phase is Phase.BEGUN and ev.cancelled:
        return replace(s, phase=Phase.ENDED), (Unwatch(), EndJob(False), Answer(ev.call))
    if s.phase not in (Phase.PERFORMED, Phase.IN_DOUBT) or s.confirm is not None:
        return s, (Refuse(ev.call, out_of_turn(s)),)
    said = verdict(ev.cancelled, ev.proof, asks=s.asks)
    if said is Verdict.UNPROVEN:
        text = f"nothing proves that the destination runs domain '{s.guest}'; it stays paused here"
        return s, (Refuse(ev.call, Failure(FailureKind.REFUSED, text)),)
    s = replace(s, confirm=ev.call, said_cancelled=ev.cancelled)
    if said is Verdict.ASK:
        return doubt(s, at_once=True) if s.phase is Phase.PERFORMED else ask(s)
    return decided(s, taken_back=said is Verdict.TAKE_BACK)


def _forced(s: Source, ev: on.Forced) -> Step:
    if s.phase is not Phase.IN_DOUBT:
        text = f"domain '{s.guest}' is not in doubt"
        return s, (Refuse(ev.call, Failure(FailureKind.REFUSED, text)),)
    s, effects = decided(s, taken_back=ev.taken_back)
    return s, (*effects, Answer(ev.call))


def _abort_called(s: Source, call: int) -> Step:
    canceled = Failure(FailureKind.CANCELED, "job 'migration out' canceled by client")
    match s.phase:
        case Phase.BEGUN:
            return replace(s, failure=s.failure or canceled), (Answer(call),)
        case Phase.RECORDING | Phase.CONFIGURING | Phase.PAUSING | Phase.STARTING:
            return replace(s, failure=s.failure or canceled, aborts=(*s.aborts, call)), ()
        case Phase.MIRRORING:
            return disks.give_up(replace(s, aborts=(*s.aborts, call)), canceled)
        case Phase.COPYING | Phase.SETTLING | Phase.SWITCHING:
            return cancel(replace(s, aborts=(*s.aborts, call)), canceled)
        case Phase.CANCELLING | Phase.EXPLAINING | Phase.RESUMING | Phase.RESTORING:
            if s.confirm is None:
                return replace(s, aborts=(*s.aborts, call)), ()
        case Phase.ENDED:
            text = "no job is active on the domain"
            return s, (Refuse(call, Failure(FailureKind.REFUSED, text)),)
    return s, (Refuse(call, postcopy.no_abort() if s.post else too_late(s)),)


def _controller_closed(s: Source) -> Step:
    lost = Failure(
        FailureKind.FAILED,
        f"the connection which controls migration of domain '{s.guest}' was closed",
    )
    match s.phase:
        case Phase.BEGUN:
            return replace(s, phase=Phase.ENDED), (EndJob(False),)
        case Phase.PERFORMED:
            return doubt(s)
    return _give_up(s, lost)


def _give_up(s: Source, failure: Failure) -> Step:
    """End the attempt, as long as that is ours to say."""
    match s.phase:
        case Phase.RECORDING | Phase.CONFIGURING | Phase.PAUSING | Phase.STARTING:
            return replace(s, failure=s.failure or failure), ()
        case Phase.MIRRORING:
            return disks.give_up(s, failure)
        case Phase.COPYING | Phase.SETTLING | Phase.SWITCHING:
            return cancel(s, failure)
    return s, ()


# -- what the world answers --------------------------------------------------------------------


def _stored(s: Source, ev: on.Stored | on.StoreFailed) -> Step:
    match s.phase, ev:
        case Phase.RECORDING, on.StoreFailed(why=why):
            return end(replace(s, failure=s.failure or Failure(FailureKind.FAILED, why)))
        case Phase.RECORDING, _:
            if s.failure is not None:
                return end(s)
            return replace(s, phase=Phase.CONFIGURING), (Qmp(QmpOp.CONFIGURE),)
        # From here a store that fails is the driver's to report. The verdict is not ours to
        # take back, and QEMU itself shows a restarted daemon what was done.
        case Phase.HANDING_OVER, _ if s.post and not s.gone:
            return postcopy.serve(s)
        case Phase.HANDING_OVER, _:
            return replace(s, phase=Phase.STOPPING), (Kill(StopReason.MIGRATED),)
        case Phase.TAKING_BACK, _ if s.post and not s.gone:
            return postcopy.withdraw(s)
        case Phase.TAKING_BACK, _:
            return unwind(s)
    return s, ()


def _qmp_done(s: Source, ev: on.QmpDone) -> Step:
    if ev.op in postcopy.OPS or s.phase is Phase.SERVING:
        return postcopy.done(s, ev)
    match s.phase, ev.op:
        case Phase.CONFIGURING, QmpOp.CONFIGURE:
            if s.failure is not None:
                return unwind(s)
            return disks.mirror(s) if s.disks else send(s)
        case Phase.PAUSING, QmpOp.STOP:
            if s.failure is not None:
                return unwind(s)
            return replace(s, phase=Phase.STARTING), (Qmp(QmpOp.MIGRATE),)
        case Phase.STARTING, QmpOp.MIGRATE:
            s = replace(s, phase=Phase.COPYING)
            if s.failure is not None:
                return cancel(s, s.failure)
            return s, (SetTimer(Timer.STALL, LOOK_S),)
        case ((Phase.COPYING | Phase.SETTLING | Phase.SWITCHING), QmpOp.PROGRESS):
            if ev.status in _LATE and s.phase is not Phase.SETTLING:
                return _status(s, ev.status)  # its event was lost with a monitor's hiccup
            return moved(replace(s, looking=False), ev.value)
        case Phase.CANCELLING, QmpOp.EXPLAIN:
            if ev.status in (None, Status.CANCELLED, Status.FAILED, Status.COMPLETED):
                return _status(s, ev.status or Status.CANCELLED)
        case Phase.EXPLAINING, QmpOp.EXPLAIN:
            return unwind(explained(s, ev.text))
        case Phase.RESUMING, QmpOp.CONT:
            return restore(replace(s, stopped=False))
        case Phase.RESTORING, QmpOp.RESTORE:
            return end(s)
    return disks.done(s, ev)


def _qmp_failed(s: Source, ev: on.QmpFailed) -> Step:
    if ev.op in postcopy.OPS or s.phase is Phase.SERVING:
        return postcopy.failed(s, ev)
    failure = s.failure or Failure(FailureKind.FAILED, ev.text, ev.code)
    match s.phase, ev.op:
        case Phase.CONFIGURING, QmpOp.CONFIGURE:
            return unwind(replace(s, failure=failure))
        case Phase.PAUSING, QmpOp.STOP:
            # It may have stopped all the same, so `cont` must follow.
            return unwind(replace(s, failure=failure, stopped=True))
        case Phase.STARTING, QmpOp.MIGRATE:
            if ev.why is QmpWhy.REFUSED:
                return unwind(replace(s, failure=failure))
            return cancel(s, failure)
        case Phase.SWITCHING, QmpOp.CONTINUE:
            return cancel(s, failure)
        case ((Phase.COPYING | Phase.SETTLING | Phase.SWITCHING), QmpOp.PROGRESS):
            return replace(s, looking=False), ()
        case Phase.EXPLAINING, QmpOp.EXPLAIN:
            return unwind(explained(s, ""))
        case Phase.RESUMING, QmpOp.CONT:
            if s.tries < TRIES_MAX:
                return replace(s, tries=s.tries + 1), (SetTimer(Timer.RETRY, RETRY_S),)
            s, effects = restore(replace(s, failure=failure))
            return s, (Show(View.STUCK), *effects)
        case Phase.RESTORING, QmpOp.RESTORE:
            return end(s)
    return disks.failed(s, ev)


_LATE: Final = (
    Status.PRE_SWITCHOVER,
    Status.COMPLETED,
    Status.FAILED,
    Status.CANCELLED,
    *postcopy.STATUSES,
)
"""Statuses that ask for an act of ours."""


def _status(s: Source, status: Status) -> Step:
    if status in postcopy.STATUSES or s.post:
        return postcopy.status(s, status)
    match s.phase, status:
        case Phase.STARTING, Status.PRE_SWITCHOVER if s.failure is not None:
            return cancel(s, s.failure)
        case ((Phase.STARTING | Phase.COPYING), Status.PRE_SWITCHOVER):
            # (A small guest may be here before the reply to `migrate` is.)
            return disks.settle(s) if s.disks else switch(s)
        case (
            (Phase.COPYING | Phase.SWITCHING | Phase.CANCELLING | Phase.STARTING),
            Status.COMPLETED,
        ):
            return performed(replace(s, stopped=True))
        case (
            (Phase.COPYING | Phase.SETTLING | Phase.SWITCHING),
            (Status.FAILED | Status.CANCELLED),
        ):
            return replace(s, phase=Phase.EXPLAINING), (
                ClearTimer(Timer.STALL),
                Qmp(QmpOp.EXPLAIN),
            )
        case Phase.CANCELLING, (Status.FAILED | Status.CANCELLED):
            s, effects = unwind(s)
            return s, (ClearTimer(Timer.CANCEL), *effects)
    return s, ()


def _gone(s: Source, ev: on.QemuGone) -> Step:
    failure = Failure(FailureKind.FAILED, ev.why, ev.code)
    s = replace(s, gone=True)
    match s.phase:
        case Phase.ENDED:
            return s, ()
        case Phase.SERVING:
            return postcopy.lost(s)
        case Phase.STOPPING:
            s = replace(s, phase=Phase.ENDED)
            return s, (Undefine(), EndJob(True), *confirmed(s, is_here=False))
        case Phase.HANDING_OVER:
            return s, ()  # the verdict is on its way to the disk
        case Phase.PERFORMED | Phase.IN_DOUBT if s.asks:
            # It was sent completely: it is not lost before the destination has said so. (L2)
            return replace(s, failure=failure), ()
    calls = [c for c in (s.perform, s.confirm, *s.aborts, *s.starts) if c is not None]
    refusals = tuple(Refuse(call, failure) for call in calls)
    timers = tuple(ClearTimer(timer) for timer in Timer)
    return replace(s, phase=Phase.ENDED), (*timers, Unwatch(), EndJob(False), *refusals)


def _timer_fired(s: Source, timer: Timer) -> Step:
    match s.phase, timer:
        case Phase.MIRRORING, Timer.STALL:
            return disks.look(s)
        case ((Phase.COPYING | Phase.SETTLING | Phase.SWITCHING), Timer.STALL):
            return look(s)
        case Phase.CANCELLING, Timer.CANCEL:
            # QEMU hangs. Who waits is told so; we ask on until it speaks or dies. (I10)
            slow = Failure(
                FailureKind.TIMED_OUT,
                f"QEMU of domain '{s.guest}' does not answer to the cancelling of its migration",
            )
            refusals = tuple(Refuse(c, slow) for c in (s.perform, *s.aborts) if c is not None)
            again = (Qmp(QmpOp.EXPLAIN), SetTimer(Timer.CANCEL, CANCEL_S))
            return replace(s, perform=None, aborts=()), (*refusals, *again)
        case Phase.PERFORMED, Timer.CONFIRM:
            # A controller that lives and says nothing must not keep the guest for ever. (L2)
            return doubt(s)
        case Phase.IN_DOUBT, Timer.ASK:
            return ask(s)
        case _, Timer.RECOVER:
            return postcopy.try_again(s)
        case Phase.SERVING, Timer.STALL:
            return postcopy.look(s)
        case Phase.RESUMING, Timer.RETRY:
            if not s.shall_run:
                return restore(s)
            return s, (Qmp(QmpOp.CONT),)
    return s, ()
