"""The destination in post-copy: the guest runs here while pages of it are still at the source.

Before the decision nothing is different, but that a lost connection ends it: QEMU has all but
memory, so Finish may decide and let it run (L4). From then on the guest is here and nowhere else.
Neither a controller's end nor a lost connection kills it, and Finish stays open until QEMU has all
of it; only the loss of the source's QEMU loses it. (I23)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sterna.migration.core.destination_state import LOOK_S, Destination, Phase
from sterna.migration.core.destination_ways import Step, kept, when_ready
from sterna.migration.core.effects import ClearTimer, Qmp, Refuse, SetTimer, Show, View
from sterna.migration.core.words import Failure, FailureKind, QmpOp, Status, Timer

STATUSES: Final = (Status.POSTCOPY_ACTIVE, Status.POSTCOPY_PAUSED, Status.POSTCOPY_RECOVER)


def status(s: Destination, status: Status) -> Step:
    """What QEMU says, once it has to do with post-copy."""
    match s.phase, status:
        case ((Phase.PREPARED | Phase.FINISHING), Status.POSTCOPY_ACTIVE):
            return replace(s, post=True), (Qmp(QmpOp.READY),)
        case ((Phase.PREPARED | Phase.FINISHING), Status.POSTCOPY_PAUSED):
            text = (
                f"the connection for the memory of domain '{s.guest}' was lost before it ran here"
            )
            s = replace(s, unready=Failure(FailureKind.FAILED, text))
            return when_ready(s)
        case ((Phase.COMMITTING | Phase.STARTING), Status.POSTCOPY_PAUSED):
            return replace(s, broken=True), ()
        case Phase.RECEIVING, Status.POSTCOPY_PAUSED if not s.broken or s.finish or s.others:
            return _break(s)
        case Phase.RECEIVING, Status.POSTCOPY_ACTIVE if s.broken:
            shown = View.POSTCOPY if s.view is View.RUNNING else s.view
            return replace(s, broken=False), (Show(shown), SetTimer(Timer.STALL, LOOK_S))
        case Phase.RECEIVING, Status.COMPLETED:
            s, effects = kept(replace(s, post=False, broken=False), s.view)
            return s, (ClearTimer(Timer.STALL), *effects)
        case _, Status.COMPLETED:
            # All of it is here, before the guest ran: from now on a migration like any other.
            s = replace(s, post=False, broken=False)
            begun = s.phase in (Phase.PREPARED, Phase.FINISHING)
            return s, ((Qmp(QmpOp.READY),) if begun and not s.ready else ())
    return s, ()


def looked(s: Destination, found: Status | None) -> Step:
    """QEMU says how far it is; an event of it may have been lost."""
    s, effects = status(s, found) if found is not None else (s, ())
    if s.phase is Phase.RECEIVING and not s.broken:
        return s, (*effects, SetTimer(Timer.STALL, LOOK_S))
    return s, effects


def mute(s: Destination) -> Step:
    """QEMU does not answer. Who waits must not wait with it (I10); the guest stays ours (L4)."""
    text = f"QEMU of domain '{s.guest}' does not answer; the domain was started here and stays here"
    s, refusals = _tell(s, Failure(FailureKind.TIMED_OUT, text))
    return s, (*refusals, SetTimer(Timer.STALL, LOOK_S))


def broken(s: Destination) -> Failure:
    text = (
        "job 'migration in' failed in post-copy phase: the connection to the source is lost;"
        f" domain '{s.guest}' stays here and waits for the rest of its memory"
    )
    return Failure(FailureKind.FAILED, text)


def _break(s: Destination) -> Step:
    """Pages cannot be had now. Who waits for the end hears so at once. (I23)"""
    s = replace(s, broken=True)
    s, refusals = _tell(s, broken(s))
    return s, (ClearTimer(Timer.STALL), Show(View.POSTCOPY_FAILED), *refusals)


def _tell(s: Destination, failure: Failure) -> tuple[Destination, tuple[Refuse, ...]]:
    calls = [call for call in (s.finish, *s.others) if call is not None]
    return replace(s, finish=None, others=()), tuple(Refuse(call, failure) for call in calls)
