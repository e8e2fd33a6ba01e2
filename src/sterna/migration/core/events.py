"""What can happen to a side of a migration: facts, in the past tense.

Calls carry the id of the call, so that its answer finds it, and the id of the connection it came
over. Both are numbers of this daemon's run.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sterna.migration.core.records import Record
from sterna.migration.core.words import Proof, QmpOp, QmpWhy, Status, Timer


@dataclass(frozen=True, slots=True)
class PerformCalled:
    call: int
    link: int
    asks: bool = False
    """The destination has said where it answers what it decided."""
    disks: bool = False
    """Disks are copied, too."""


@dataclass(frozen=True, slots=True)
class ConfirmCalled:
    call: int
    link: int
    cancelled: bool
    proof: Proof
    """What the cookie that came along says of the destination's decision."""


@dataclass(frozen=True, slots=True)
class FinishCalled:
    call: int
    link: int
    cancelled: bool
    permitted: bool = True
    """The source has given this migration away: its cookie says so, or the source is not Sterna
    and cannot. QEMU here may have loaded everything and the source's still take it back."""
    paused: bool = False
    """The guest shall not run: the caller's flag, or the source's word at the switchover (I19)."""


@dataclass(frozen=True, slots=True)
class AbortCalled:
    call: int


@dataclass(frozen=True, slots=True)
class PostcopyCalled:
    """Somebody wants the guest to run at the destination before all of its memory is there."""

    call: int


@dataclass(frozen=True, slots=True)
class AskCalled:
    """A person wants the destination to be asked now."""


@dataclass(frozen=True, slots=True)
class Forced:
    """A person says what became of a guest in doubt, and answers for it."""

    call: int
    taken_back: bool


@dataclass(frozen=True, slots=True)
class Told:
    """The destination's answer: COMMITTED or ABORTED, for ever (L4)."""

    decision: Record


@dataclass(frozen=True, slots=True)
class Untold:
    """Nobody who could know has answered; nothing is known (L5)."""

    why: str


@dataclass(frozen=True, slots=True)
class Asked:
    """The source asks what was decided. To answer decides, if nothing was (L4)."""

    call: int


@dataclass(frozen=True, slots=True)
class UserPaused:
    """Someone suspended the guest during the migration.

    Over the controller's own connection it is a client's `--timeout` and ends with the migration;
    from anybody else it is a wish that goes with the guest. (I19)
    """

    by_controller: bool


@dataclass(frozen=True, slots=True)
class GuestBroke:
    """The guest stopped at an I/O error, and the caller does not want to send it on like that."""

    text: str


@dataclass(frozen=True, slots=True)
class DisksReady:
    """Every disk's copy has caught up; from now on each write goes to both."""


@dataclass(frozen=True, slots=True)
class DiskFailed:
    """A disk's copy ended by itself."""

    text: str


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    link: int


@dataclass(frozen=True, slots=True)
class CallerChecked:
    """Answer to `CheckCaller`: whether that connection's peer is there at this moment (I2)."""

    alive: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """A record is durable. `stands` is what the store holds now: the first decision, if there was
    one before (L4)."""

    stands: Record


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """A record was not written and will not be."""

    record: Record
    why: str


@dataclass(frozen=True, slots=True)
class QmpDone:
    op: QmpOp
    value: int = 0
    """PROGRESS: bytes moved so far. RECOVER: 0 if the destination wants no more pages."""
    text: str = ""
    """EXPLAIN: QEMU's own words for its failure."""
    status: Status | None = None
    """PROGRESS, EXPLAIN: the migration status now; None if QEMU knows of no migration."""


@dataclass(frozen=True, slots=True)
class QmpFailed:
    op: QmpOp
    why: QmpWhy
    text: str
    code: int = 0


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """QEMU's MIGRATION event."""

    status: Status


@dataclass(frozen=True, slots=True)
class CpusStopped:
    """QEMU's STOP event."""


@dataclass(frozen=True, slots=True)
class CpusStarted:
    """QEMU's RESUME event."""


@dataclass(frozen=True, slots=True)
class QemuGone:
    """The process ended and everything of it is cleaned up, whoever ended it."""

    why: str
    code: int = 0


@dataclass(frozen=True, slots=True)
class Launched:
    pass


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """No QEMU came to life, or it died on the way; nothing of it is left."""

    why: str
    code: int = 0


class DefineOutcome(Enum):
    WRITTEN = "written"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Defined:
    outcome: DefineOutcome


@dataclass(frozen=True, slots=True)
class TimerFired:
    timer: Timer


SourceEvent = (
    PerformCalled
    | ConfirmCalled
    | AbortCalled
    | PostcopyCalled
    | AskCalled
    | Forced
    | Told
    | Untold
    | UserPaused
    | GuestBroke
    | DisksReady
    | DiskFailed
    | ConnectionClosed
    | Stored
    | StoreFailed
    | QmpDone
    | QmpFailed
    | StatusChanged
    | CpusStopped
    | CpusStarted
    | QemuGone
    | TimerFired
)
DestinationEvent = (
    FinishCalled
    | Asked
    | ConnectionClosed
    | CallerChecked
    | Stored
    | StoreFailed
    | QmpDone
    | QmpFailed
    | StatusChanged
    | CpusStarted
    | QemuGone
    | Launched
    | LaunchFailed
    | Defined
    | TimerFired
)
