"""What the destination's side of a migration knows, and its words for people."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from sterna.migration.core.effects import (
    Refuse,
    StopReason,
    Tell,
    View,
)
from sterna.migration.core.records import (
    Record,
)
from sterna.migration.core.words import (
    Failure,
    FailureKind,
)

FINISH_S: Final = 10.0
"""How long Finish waits for the last of the guest. The source's `completed` means that the
destination has loaded everything (return-path), so this only bounds a Finish that came too early
or a QEMU that hangs (I10)."""
STORE_S: Final = 1.0
"""How long a kill waits for the `aborted` record. No record means aborted anyway (L4)."""
KILL_S: Final = 10.0
"""How long callers wait for a process that the kernel does not let die."""
LOOK_S: Final = 5.0
"""How often it is looked whether a guest in post-copy has all of its memory."""
RETRY_S: Final = 0.2
TRIES_MAX: Final = 50


class Phase(Enum):
    LAUNCHING = "launching"
    LISTENING = "listening"
    PREPARED = "prepare"
    FINISHING = "finish3"
    COMMITTING = "committing"
    STARTING = "starting"
    RECEIVING = "postcopy"
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
        post: it may run before all of its memory is here; the rest follows.
        broken: the connection for that rest is lost.
        view: how it shall be shown once all of it is here.
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
    post: bool = False
    broken: bool = False
    view: View = View.RUNNING
    gone: bool = False
    shown: bool = False
    """Listeners were told that it started."""
    failure: Failure | None = None
    reason: StopReason = StopReason.FAILED
    tries: int = 0


UNDECIDED: Final = frozenset({Phase.LAUNCHING, Phase.LISTENING, Phase.PREPARED, Phase.FINISHING})


# -- words ----------------------------------------------------------------------------------------


def refusals(s: Destination) -> tuple[Refuse | Tell, ...]:
    """For all who wait, once the guest can never run here. Images are free by now, so a source
    that hears it can go on at once."""
    failure = s.failure or revoked(s)
    calls = [call for call in (s.prepare, s.finish, *s.others) if call is not None]
    return (
        *(Refuse(call, failure) for call in calls),
        *(Refuse(call, revoked(s)) for call in s.cancels),
        *(Tell(call, Record.ABORTED) for call in s.askers),
    )


def revoked(s: Destination) -> Failure:
    return Failure(FailureKind.REVOKED, f"domain '{s.guest}' was not started here")


def started(s: Destination) -> Failure:
    text = f"domain '{s.guest}' has been started here; that cannot be cancelled"
    return Failure(FailureKind.REFUSED, text)


def lost(s: Destination) -> Failure:
    text = f"the connection that prepared or finishes domain '{s.guest}' has ended"
    return Failure(FailureKind.FAILED, text)


def out_of_turn(s: Destination) -> Failure:
    text = f"domain '{s.guest}' is not processing incoming migration"
    return Failure(FailureKind.REFUSED, text)
