"""What the source's side of a migration knows, whom it believes, and its words for people."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from sterna.migration.core.effects import Answer, Refuse, SourceEffect
from sterna.migration.core.words import Failure, FailureKind, Proof

LOOK_S: Final = 1.0
"""How often it is looked whether data moves (I11, I12)."""
PATIENCE: Final = 5
"""After so many looks in a row without a byte moved a migration is stalled, by default."""
CANCEL_S: Final = 10.0
"""How long an abort waits for its outcome before it is answered; QEMU is asked on and on."""
RETRY_S: Final = 0.2
TRIES_MAX: Final = 50
"""How often `cont` is tried: the destination's QEMU may die a little later than its answer
comes, and hold the image locks until then."""
CONFIRM_S: Final = 15.0
"""How long the guest stands without a word from the controller before the destination is asked;
longer than a Finish may take there."""
GONE_ASK_S: Final = 6.0
"""How long a source without a QEMU waits before it asks: what it sent is the only copy now, and to
ask ends it if it is undecided. The destination decides by itself before that (L3)."""
RECOVER_S: Final = (0.5, 1.0, 2.0, 4.0, 5.0)
"""Pauses between attempts to give a broken post-copy a new connection; the last one goes on."""
ASK_S: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 5.0)
"""Pauses between questions that nobody answered; the last one goes on for ever."""


class Phase(Enum):
    BEGUN = "begin3"
    RECORDING = "recording"
    CONFIGURING = "configuring"
    MIRRORING = "mirroring"
    PAUSING = "pausing"
    STARTING = "starting"
    COPYING = "perform3"
    SETTLING = "settling"
    SWITCHING = "switching"
    CANCELLING = "cancelling"
    EXPLAINING = "explaining"
    PERFORMED = "perform3_done"
    IN_DOUBT = "in doubt"
    HANDING_OVER = "confirm3"
    TAKING_BACK = "confirm3_cancelled"
    SERVING = "postcopy"
    WITHDRAWING = "withdrawing"
    STOPPING = "stopping"
    RESUMING = "resuming"
    RESTORING = "restoring"
    ENDED = "none"


# QEMU is sending it, or is about to.
GOING: Final = {
    Phase.STARTING,
    Phase.COPYING,
    Phase.SETTLING,
    Phase.SWITCHING,
    Phase.CANCELLING,
}
# The destination may have the whole guest, or has it.
MAY_BE_THERE: Final = {
    Phase.SWITCHING,
    Phase.PERFORMED,
    Phase.IN_DOUBT,
    Phase.HANDING_OVER,
    Phase.SERVING,
    Phase.WITHDRAWING,
    Phase.STOPPING,
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where the source is.

    Attributes:
        guest: its name, for texts.
        live: memory moves while the guest runs.
        shall_run: it ran at the start, and nobody but the controller has paused it since.
        link: the controller's connection; None once it has ended.
        stopped: the CPUs stand, as far as QEMU said.
        disks: they are copied, too, so QEMU waits for us at the switchover.
        gone: there is no QEMU any more; what it sent may run at the destination.
        patience: looks in a row without a byte moved that are too many.
        idle: how many there were.
        looking: QEMU has not answered the last look yet.
        asks: the destination can be asked what it decided; a real libvirtd cannot.
        asking: a question is on its way.
        unheard: questions in a row that nobody answered, as far as the pauses grow.
        said_cancelled: the Confirm that waits says that the destination did not start the guest.
        postcopy: it may be switched to post-copy.
        starts: calls that want that.
        post: the destination may run it, and this QEMU has pages that are missing there.
        broken: the connection for those pages is lost.
    """

    guest: str
    live: bool
    shall_run: bool
    phase: Phase = Phase.BEGUN
    link: int | None = None
    perform: int | None = None
    confirm: int | None = None
    aborts: tuple[int, ...] = ()
    failure: Failure | None = None
    stopped: bool = False
    disks: bool = False
    gone: bool = False
    moved: int = -1
    patience: int = PATIENCE
    idle: int = 0
    looking: bool = False
    tries: int = 0
    asks: bool = False
    asking: bool = False
    unheard: int = 0
    said_cancelled: bool = False
    postcopy: bool = False
    starts: tuple[int, ...] = ()
    post: bool = False
    broken: bool = False


class Verdict(Enum):
    HAND_OVER = "hand over"
    TAKE_BACK = "take back"
    ASK = "ask"
    UNPROVEN = "unproven"


def verdict(cancelled: bool, proof: Proof, *, asks: bool) -> Verdict:
    """What a Confirm after a completed copy does. The one place where the source believes anybody.

    `committed` stands for ever, so its proof wins over a controller that says `cancelled` (L4).
    Without proof the destination is asked (L5). One that cannot be asked is not Sterna, and then
    libvirt's rules are all there is.
    """
    if proof is Proof.COMMITTED or (proof is Proof.FOREIGN and not cancelled):
        return Verdict.HAND_OVER
    if asks:
        return Verdict.ASK
    return Verdict.TAKE_BACK if cancelled else Verdict.UNPROVEN


# -- words ----------------------------------------------------------------------------------------


def told(s: Source) -> Failure:
    """What failed, and where the guest is now (L8)."""
    failure = s.failure or Failure(FailureKind.FAILED, "job 'migration out' unexpectedly failed")
    now = "is paused here" if s.stopped else "runs on here"
    now = "does not run any more" if s.gone else now
    return replace(failure, text=f"{failure.text}; domain '{s.guest}' {now}")


def explained(s: Source, text: str) -> Source:
    said = f"job 'migration out' failed: {text}" if text else "job 'migration out' failed"
    return replace(s, failure=s.failure or Failure(FailureKind.FAILED, said))


def out_of_turn(s: Source) -> Failure:
    if s.phase is Phase.ENDED:
        return Failure(FailureKind.REFUSED, f"domain '{s.guest}' is not being migrated")
    text = f"another migration job is already running for domain '{s.guest}'"
    return Failure(FailureKind.REFUSED, text)


def too_late(s: Source) -> Failure:
    text = f"domain '{s.guest}' was sent completely; its migration cannot be aborted any more"
    return Failure(FailureKind.REFUSED, text)


def confirmed(s: Source, *, is_here: bool) -> tuple[SourceEffect, ...]:
    """Answer the Confirm that waits. One that said otherwise than it is hears so (L8)."""
    if s.confirm is None:
        return ()
    if s.failure is not None and is_here:
        return (Refuse(s.confirm, told(s)),)
    if s.said_cancelled is is_here:
        return (Answer(s.confirm),)
    text = (
        f"the destination did not start domain '{s.guest}'; it runs on here"
        if is_here
        else f"the destination has started domain '{s.guest}'; it runs there"
    )
    return (Refuse(s.confirm, Failure(FailureKind.REFUSED, text)),)
