"""What a side of a migration orders: imperatives. The driver runs them in the order given.

None blocks. One that takes time ends in exactly one event (named with it), so a machine that must
wait for it says so by its phase. Above all: nothing that a `Store` promises is in the same step;
it is ordered when `Stored` has come. (L4, I13)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sterna.migration.core.records import Record
from sterna.migration.core.words import Failure, QmpOp, Timer


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer a call: it succeeded."""

    call: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a call: it failed."""

    call: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Store:
    """Make a record durable. → `Stored` | `StoreFailed`"""

    record: Record


@dataclass(frozen=True, slots=True)
class Qmp:
    """Do a piece of QMP work, within its deadline (I10). → `QmpDone` | `QmpFailed`"""

    op: QmpOp


@dataclass(frozen=True, slots=True)
class Watch:
    """Report the end of this connection as `ConnectionClosed`; at once if it has ended already.

    On the destination this is the autokill registration (I8).
    """

    link: int


@dataclass(frozen=True, slots=True)
class Unwatch:
    """Take every `Watch` back."""


@dataclass(frozen=True, slots=True)
class CheckCaller:
    """Look at that connection's socket now. → `CallerChecked`, before any other event (I2)."""

    link: int


@dataclass(frozen=True, slots=True)
class Launch:
    """Start the incoming QEMU. → `Launched` | `LaunchFailed`"""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the destination what it decided (L5). → `Told` | `Untold`"""


@dataclass(frozen=True, slots=True)
class Tell:
    """Answer a source's question: this decision stands."""

    call: int
    decision: Record


class StopReason(Enum):
    """Why a QEMU is stopped: decides the guest's state, its event and the audit's words."""

    MIGRATED = "migrated"
    FAILED = "failed"
    AUTOKILL = "autokill"
    UNBORN = "unborn"
    """Prepare failed: nobody was told that it started, so nobody is told that it stopped."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill QEMU by force and clean up after it; a launch under way too. → `QemuGone`

    Harmless when it is gone: then `QemuGone` comes at once.
    """

    reason: StopReason


@dataclass(frozen=True, slots=True)
class Define:
    """Write the persistent definition. → `Defined`"""


class View(Enum):
    """What the guest's state and its events shall say now.

    What QEMU itself says (STOP and RESUME while it moves) is the guest's to show.
    """

    STUCK = "stuck"  # source: could not be resumed
    IN_DOUBT = "in doubt"  # source: nobody has said what the destination decided
    INCOMING = "incoming"  # destination: paused (migration)
    POSTCOPY = "post-copy"  # both: pages follow on demand
    POSTCOPY_FAILED = "post-copy failed"  # both: their connection is lost
    RUNNING = "running"  # destination: running (migrated)
    PAUSED = "paused"  # destination: paused (user), as asked
    HELD = "held"  # destination: committed, but `cont` failed


@dataclass(frozen=True, slots=True)
class Show:
    view: View


@dataclass(frozen=True, slots=True)
class Undefine:
    """The guest lives elsewhere now: take the local definition away, if the caller asked."""


@dataclass(frozen=True, slots=True)
class SetTimer:
    """→ `TimerFired` after `seconds`, unless set again or cleared."""

    timer: Timer
    seconds: float


@dataclass(frozen=True, slots=True)
class ClearTimer:
    timer: Timer


@dataclass(frozen=True, slots=True)
class EndJob:
    """Give the guest's job back, free what the migration reserved."""

    succeeded: bool


SourceEffect = (
    Answer
    | Refuse
    | Store
    | Qmp
    | Watch
    | Unwatch
    | Ask
    | Kill
    | Show
    | Undefine
    | SetTimer
    | ClearTimer
    | EndJob
)
DestinationEffect = (
    Answer
    | Refuse
    | Tell
    | Store
    | Qmp
    | Watch
    | Unwatch
    | CheckCaller
    | Launch
    | Kill
    | Define
    | Show
    | SetTimer
    | ClearTimer
    | EndJob
)
