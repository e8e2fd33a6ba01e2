"""The source in post-copy: its guest may run at the destination, and misses pages that are here.

From `postcopy-active` on the source can neither say by itself that the guest is its own, nor end
its QEMU: the destination decides (L4), and then needs the rest. So the verdict is the same as after
a whole copy, and only what follows it differs: `committed` leads to SERVING until QEMU says
`completed`, `aborted` to WITHDRAWING, which makes QEMU let go of the migration before `cont`.
Everything of it is here; `source.py` only leads here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sterna.migration.core import events as on
from sterna.migration.core.effects import (
    Answer,
    ClearTimer,
    EndJob,
    Kill,
    Qmp,
    Refuse,
    SetTimer,
    Show,
    SourceEffect,
    StopReason,
    Undefine,
    View,
)
from sterna.migration.core.records import Record
from sterna.migration.core.source_state import (
    LOOK_S,
    RECOVER_S,
    RETRY_S,
    Phase,
    Source,
)
from sterna.migration.core.source_ways import Step, cancel, doubt, performed, unwind
from sterna.migration.core.words import Failure, FailureKind, QmpOp, QmpWhy, Status, Timer

STATUSES: Final = (Status.POSTCOPY_ACTIVE, Status.POSTCOPY_PAUSED, Status.POSTCOPY_RECOVER)
OPS: Final = (QmpOp.START_POSTCOPY, QmpOp.WITHDRAW, QmpOp.RECOVER)


def recovered(s: Source, record: Record | None, status: Status) -> Step:
    """The daemon that drove it died, and QEMU is in post-copy."""
    s = replace(s, postcopy=True, post=True, broken=status is not Status.POSTCOPY_ACTIVE)
    if record is Record.HANDED_OVER:
        return serve(s)
    if record is Record.TAKEN_BACK:
        return withdraw(s)
    if not s.asks:
        # What it is told of a destination that cannot be asked, only its controller could say.
        return doubt(s)
    return doubt(s, at_once=True)


def called(s: Source, call: int) -> Step:
    """Somebody wants post-copy now."""
    if s.phase is not Phase.COPYING:
        text = "post-copy can only be started while outgoing migration is in progress"
        return s, (Refuse(call, Failure(FailureKind.REFUSED, text)),)
    if not s.postcopy:
        text = (
            "switching to post-copy requires migration to be started with VIR_MIGRATE_POSTCOPY flag"
        )
        return s, (Refuse(call, Failure(FailureKind.REFUSED, text)),)
    begun = () if s.starts else (Qmp(QmpOp.START_POSTCOPY),)
    return replace(s, starts=(*s.starts, call)), begun


def status(s: Source, status: Status) -> Step:
    """What QEMU says, once it has to do with post-copy."""
    match s.phase, status:
        case Phase.STARTING, Status.POSTCOPY_ACTIVE if s.failure is not None:
            return cancel(s, s.failure)
        case ((Phase.STARTING | Phase.COPYING), (Status.POSTCOPY_ACTIVE | Status.POSTCOPY_PAUSED)):
            s, effects = performed(replace(s, stopped=True, post=True, idle=0))
            s, more = _paused(s) if status is Status.POSTCOPY_PAUSED else (s, ())
            return s, (Show(View.POSTCOPY), *effects, *more)
        case _, Status.COMPLETED if s.post:
            return _complete(s)
        case _, Status.POSTCOPY_PAUSED if s.post and not s.broken:
            return _paused(s)
        case _, Status.POSTCOPY_ACTIVE if s.broken:
            s = replace(s, broken=False, tries=0)
            again = (SetTimer(Timer.STALL, LOOK_S),) if s.phase is Phase.SERVING else ()
            return s, (ClearTimer(Timer.RECOVER), Show(View.POSTCOPY), *again)
        case Phase.SERVING, (Status.FAILED | Status.CANCELLED):
            # Not by us: somebody has ended it by QEMU's monitor. There is nothing more to give.
            return lost(s)
    return s, ()


def serve(s: Source) -> Step:
    """The destination has it for ever: give it the pages it misses, and end after that. (I23)"""
    s = replace(s, phase=Phase.SERVING, tries=0)
    if not s.broken:
        # QEMU may have completed while nobody listened.
        return s, (Qmp(QmpOp.PROGRESS),)
    s, refusals = _tell_broken(s)
    return s, (*refusals, SetTimer(Timer.RECOVER, RECOVER_S[0]))


def withdraw(s: Source) -> Step:
    """The destination never ran it: QEMU has to let go of the migration before `cont`."""
    return replace(s, phase=Phase.WITHDRAWING), (Qmp(QmpOp.WITHDRAW),)


def done(s: Source, ev: on.QmpDone) -> Step:
    match s.phase, ev.op:
        case _, QmpOp.START_POSTCOPY:
            answers = tuple(Answer(call) for call in s.starts)
            return replace(s, starts=()), answers
        case Phase.WITHDRAWING, QmpOp.WITHDRAW:
            return unwind(replace(s, post=False, broken=False))
        case Phase.SERVING, QmpOp.RECOVER if ev.value == 0:
            return _stop(s)
        case Phase.SERVING, QmpOp.RECOVER:
            # Should that connection be lost, too, before QEMU has taken it up.
            return s, (SetTimer(Timer.RECOVER, RECOVER_S[-1]),)
        case Phase.SERVING, QmpOp.PROGRESS:
            s, effects = status(s, ev.status) if ev.status is not None else (s, ())
            if s.phase is Phase.SERVING and not s.broken:
                effects = (*effects, SetTimer(Timer.STALL, LOOK_S))
            return s, effects
    return s, ()


def failed(s: Source, ev: on.QmpFailed) -> Step:
    match s.phase, ev.op:
        case _, QmpOp.START_POSTCOPY:
            failure = Failure(FailureKind.FAILED, ev.text, ev.code)
            return replace(s, starts=()), tuple(Refuse(call, failure) for call in s.starts)
        case Phase.WITHDRAWING, QmpOp.WITHDRAW:
            return s, (SetTimer(Timer.RECOVER, RETRY_S),)
        case Phase.SERVING, QmpOp.RECOVER if s.broken:
            return _later(s)
        case Phase.SERVING, QmpOp.PROGRESS if ev.why is not QmpWhy.GONE:
            # Who waits must not wait with it. (I10)
            s, refusals = _tell(s, f"QEMU of domain '{s.guest}' does not answer")
            return s, (*refusals, SetTimer(Timer.STALL, LOOK_S))
    return s, ()


def try_again(s: Source) -> Step:
    """The timer for it has fired."""
    if s.phase is Phase.WITHDRAWING:
        return withdraw(s)
    if s.phase is Phase.SERVING and s.broken:
        return s, (Qmp(QmpOp.RECOVER),)
    return s, ()


def look(s: Source) -> Step:
    """An event of QEMU's may have been lost."""
    return s, (() if s.broken else (Qmp(QmpOp.PROGRESS),))


def lost(s: Source) -> Step:
    """Its QEMU ended while pages were missing there: what is left of the guest is there."""
    s, refusals = _tell_broken(s)
    s = replace(s, phase=Phase.STOPPING)
    clear = (ClearTimer(Timer.RECOVER), ClearTimer(Timer.STALL))
    if not s.gone:
        return s, (*clear, *refusals, Kill(StopReason.MIGRATED))
    return replace(s, phase=Phase.ENDED), (*clear, *refusals, Undefine(), EndJob(True))


def no_abort() -> Failure:
    return Failure(FailureKind.REFUSED, "cannot abort migration in post-copy mode")


def _complete(s: Source) -> Step:
    """The destination has every page: from here on it is a copy like any other."""
    s = replace(s, post=False, broken=False)
    if s.phase is Phase.SERVING:
        return _stop(s)
    return s, (ClearTimer(Timer.RECOVER),)


def _stop(s: Source) -> Step:
    s = replace(s, phase=Phase.STOPPING, post=False, broken=False)
    clear = (ClearTimer(Timer.RECOVER), ClearTimer(Timer.STALL))
    return s, (*clear, Kill(StopReason.MIGRATED))


def _paused(s: Source) -> Step:
    """The connection for the pages is lost. QEMU keeps what it has, on both sides."""
    s = replace(s, broken=True)
    show = Show(View.POSTCOPY_FAILED)
    match s.phase:
        case Phase.SERVING:
            s, refusals = _tell_broken(s)
            return s, (
                ClearTimer(Timer.STALL),
                show,
                *refusals,
                SetTimer(Timer.RECOVER, RECOVER_S[0]),
            )
        case Phase.PERFORMED:
            # Whether it runs there already is not known here; if not, it had better run here.
            s, effects = doubt(s, at_once=True)
            return s, (show, *effects)
    return s, (show,)


def _tell_broken(s: Source) -> tuple[Source, tuple[SourceEffect, ...]]:
    """Who waits for the end hears at once that it does not come now. (I23)"""
    return _tell(
        s,
        "job 'migration out' failed in post-copy phase: the connection to the destination is lost",
    )


def _tell(s: Source, what: str) -> tuple[Source, tuple[SourceEffect, ...]]:
    if s.confirm is None:
        return s, ()
    text = f"{what}; domain '{s.guest}' runs at the destination and misses memory that is here"
    refusal = Refuse(s.confirm, Failure(FailureKind.FAILED, text))
    return replace(s, confirm=None), (refusal,)


def _later(s: Source) -> Step:
    wait_s = RECOVER_S[min(s.tries, len(RECOVER_S) - 1)]
    return replace(s, tries=min(s.tries + 1, len(RECOVER_S) - 1)), (
        SetTimer(Timer.RECOVER, wait_s),
    )
