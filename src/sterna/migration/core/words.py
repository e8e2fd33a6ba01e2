"""The vocabulary both machines share: QEMU's statuses, named QMP work, timers, failures."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Status(Enum):
    """QEMU's migration status, by its own names (QEMU 7.2, `MigrationStatus`)."""

    SETUP = "setup"
    ACTIVE = "active"
    PRE_SWITCHOVER = "pre-switchover"
    DEVICE = "device"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    POSTCOPY_ACTIVE = "postcopy-active"
    POSTCOPY_PAUSED = "postcopy-paused"
    POSTCOPY_RECOVER = "postcopy-recover"


class QmpOp(Enum):
    """A piece of QMP work with one outcome; the driver knows the commands it takes."""

    CONFIGURE = "configure"  # source: save originals, set capabilities and parameters
    MIRROR = "mirror"  # source: begin to copy the disks
    SETTLE = "settle"  # source, guest stopped: end the copies where they are equal
    STOP = "stop"
    MIGRATE = "migrate"
    CONTINUE = "continue"
    CANCEL = "cancel"
    PROGRESS = "progress"
    EXPLAIN = "explain"
    START_POSTCOPY = "start post-copy"
    WITHDRAW = "withdraw"  # source: end a post-copy that nobody runs from
    RECOVER = "recover"  # source: a new connection for a post-copy that lost its own
    LISTEN = "listen"  # destination: capabilities, parameters, migrate-incoming
    READY = "ready"
    ALIVE = "alive"  # destination: does QEMU still answer?
    CONT = "cont"  # both
    RESTORE = "restore"


class QmpWhy(Enum):
    REFUSED = "refused"
    """QEMU answered with an error: it did not do it."""
    TIMED_OUT = "timed out"
    """No answer: it may or may not have done it."""
    GONE = "gone"
    """The monitor ended. `QemuGone` follows when the process has."""


class Timer(Enum):
    STALL = "stall"
    CANCEL = "cancel"
    RETRY = "retry"
    FINISH = "finish"
    STORE = "store"
    KILL = "kill"
    CONFIRM = "confirm"
    ASK = "ask"
    RECOVER = "recover"


class Proof(Enum):
    """What a cookie at Confirm says of the destination's decision."""

    NONE = "none"
    COMMITTED = "committed"
    FOREIGN = "foreign"
    """A good cookie of a destination that is not Sterna: libvirt's rule is all there is (I20)."""


class FailureKind(Enum):
    FAILED = "failed"
    CANCELED = "canceled"
    """The user's abort."""
    REVOKED = "revoked"
    """Finish was told to cancel, and that succeeded (code 93)."""
    REFUSED = "refused"
    """The call does not fit the state."""
    TIMED_OUT = "timed out"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed, for whoever asked: a kind for the code, a text for the person (L8)."""

    kind: FailureKind
    text: str
    code: int = 0
    """The protocol's error number where the cause had one; 0 lets the kind decide."""
