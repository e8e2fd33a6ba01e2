"""The source's disks, where they are copied along: each is mirrored to the destination until both
are equal, then memory moves, and the mirrors end while the guest stands.

That is why QEMU waits at the switchover for these migrations, and for no others: between the last
write of the guest and the first one there the copies must have ended well (L1 is as much about
disks). `migrate-continue` is sent only after that, so `completed` proves it.
"""

from __future__ import annotations

from dataclasses import replace

from sterna.migration.core import events as on
from sterna.migration.core import source_ways as ways
from sterna.migration.core.effects import ClearTimer, Qmp, SetTimer
from sterna.migration.core.source_state import LOOK_S, Phase, Source
from sterna.migration.core.source_ways import Step, cancel, moved, send, stalled, switch, unwind
from sterna.migration.core.words import Failure, FailureKind, QmpOp, Timer


def mirror(s: Source) -> Step:
    """Begin to copy. It is looked whether it goes on as for memory. (I12)"""
    s = replace(s, phase=Phase.MIRRORING, moved=-1, idle=0, looking=False)
    return s, (Qmp(QmpOp.MIRROR), SetTimer(Timer.STALL, LOOK_S))


def settle(s: Source) -> Step:
    """The guest stands: end the copies."""
    s = replace(s, phase=Phase.SETTLING, idle=0)
    return s, (Qmp(QmpOp.SETTLE), SetTimer(Timer.STALL, LOOK_S))


def give_up(s: Source, failure: Failure) -> Step:
    """Nothing but disks has moved: `unwind` ends the mirrors, last."""
    s, effects = unwind(replace(s, failure=s.failure or failure))
    return s, (ClearTimer(Timer.STALL), *effects)


def look(s: Source) -> Step:
    """A second has gone by while disks are copied. There is no migration yet to cancel."""
    return give_up(s, stalled(s)) if s.idle >= s.patience else ways.look(s)


def ready(s: Source) -> Step:
    if s.phase is not Phase.MIRRORING:
        return s, ()
    s, effects = send(s)
    return s, (ClearTimer(Timer.STALL), *effects)


def done(s: Source, ev: on.QmpDone) -> Step:
    match s.phase, ev.op:
        case Phase.MIRRORING, QmpOp.PROGRESS:
            # What it says of a status is an earlier migration's.
            return moved(replace(s, looking=False), ev.value)
        case Phase.SETTLING, QmpOp.SETTLE:
            return switch(s)
    return s, ()


def failed(s: Source, ev: on.QmpFailed) -> Step:
    failure = Failure(FailureKind.FAILED, ev.text, ev.code)
    match s.phase, ev.op:
        case Phase.MIRRORING, QmpOp.MIRROR:
            return give_up(s, failure)
        case Phase.MIRRORING, QmpOp.PROGRESS:
            return replace(s, looking=False), ()
        case Phase.SETTLING, QmpOp.SETTLE:
            return cancel(s, failure)
    return s, ()
