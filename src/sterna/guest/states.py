"""States, reasons and what a lifecycle event may say, with the protocol's numbers."""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """What a guest is doing."""

    NOSTATE = 0
    RUNNING = 1
    BLOCKED = 2
    PAUSED = 3
    SHUTDOWN = 4
    SHUTOFF = 5
    CRASHED = 6
    PMSUSPENDED = 7


class RunningReason(IntEnum):
    UNKNOWN = 0
    BOOTED = 1
    MIGRATED = 2
    RESTORED = 3
    FROM_SNAPSHOT = 4
    UNPAUSED = 5
    MIGRATION_CANCELED = 6
    SAVE_CANCELED = 7
    WAKEUP = 8
    CRASHED = 9
    POSTCOPY = 10
    POSTCOPY_FAILED = 11


class PausedReason(IntEnum):
    UNKNOWN = 0
    USER = 1
    MIGRATION = 2
    SAVE = 3
    DUMP = 4
    IOERROR = 5
    WATCHDOG = 6
    FROM_SNAPSHOT = 7
    SHUTTING_DOWN = 8
    SNAPSHOT = 9
    CRASHED = 10
    STARTING_UP = 11
    POSTCOPY = 12
    POSTCOPY_FAILED = 13
    API_ERROR = 14


class ShutdownReason(IntEnum):
    UNKNOWN = 0
    USER = 1


class ShutoffReason(IntEnum):
    UNKNOWN = 0
    SHUTDOWN = 1
    DESTROYED = 2
    CRASHED = 3
    MIGRATED = 4
    SAVED = 5
    FAILED = 6
    FROM_SNAPSHOT = 7
    DAEMON = 8


class CrashedReason(IntEnum):
    UNKNOWN = 0
    PANICKED = 1


class PmSuspendedReason(IntEnum):
    UNKNOWN = 0


Reason = (
    RunningReason
    | PausedReason
    | ShutdownReason
    | ShutoffReason
    | CrashedReason
    | PmSuspendedReason
)
"""Why a guest is in its state; which of them depends on the state."""

REASONS: dict[State, type[Reason]] = {
    State.RUNNING: RunningReason,
    State.PAUSED: PausedReason,
    State.SHUTDOWN: ShutdownReason,
    State.SHUTOFF: ShutoffReason,
    State.CRASHED: CrashedReason,
    State.PMSUSPENDED: PmSuspendedReason,
}


class Lifecycle(IntEnum):
    """What happened to a guest: the `event` of a lifecycle event."""

    DEFINED = 0
    UNDEFINED = 1
    STARTED = 2
    SUSPENDED = 3
    RESUMED = 4
    STOPPED = 5
    SHUTDOWN = 6
    PMSUSPENDED = 7
    CRASHED = 8


class Defined(IntEnum):
    ADDED = 0
    UPDATED = 1
    RENAMED = 2
    FROM_SNAPSHOT = 3


class Undefined(IntEnum):
    REMOVED = 0
    RENAMED = 1


class Started(IntEnum):
    BOOTED = 0
    MIGRATED = 1
    RESTORED = 2
    FROM_SNAPSHOT = 3
    WAKEUP = 4


class Suspended(IntEnum):
    PAUSED = 0
    MIGRATED = 1
    IOERROR = 2
    WATCHDOG = 3
    RESTORED = 4
    FROM_SNAPSHOT = 5
    API_ERROR = 6
    POSTCOPY = 7
    POSTCOPY_FAILED = 8


class Resumed(IntEnum):
    UNPAUSED = 0
    MIGRATED = 1
    FROM_SNAPSHOT = 2
    POSTCOPY = 3
    POSTCOPY_FAILED = 4


class Stopped(IntEnum):
    SHUTDOWN = 0
    DESTROYED = 1
    CRASHED = 2
    MIGRATED = 3
    SAVED = 4
    FAILED = 5
    FROM_SNAPSHOT = 6


class ShutDown(IntEnum):
    FINISHED = 0
    GUEST = 1
    HOST = 2


class PmSuspended(IntEnum):
    MEMORY = 0
    DISK = 1


class Crashed(IntEnum):
    PANICKED = 0
    CRASHLOADED = 1


Detail = (
    Defined | Undefined | Started | Suspended | Resumed | Stopped | ShutDown | PmSuspended | Crashed
)
"""The `detail` of a lifecycle event; which of them depends on the event."""

STOPPED_BY: dict[ShutoffReason, Stopped] = {
    ShutoffReason.UNKNOWN: Stopped.SHUTDOWN,
    ShutoffReason.SHUTDOWN: Stopped.SHUTDOWN,
    ShutoffReason.DESTROYED: Stopped.DESTROYED,
    ShutoffReason.CRASHED: Stopped.CRASHED,
    ShutoffReason.MIGRATED: Stopped.MIGRATED,
    ShutoffReason.SAVED: Stopped.SAVED,
    ShutoffReason.FAILED: Stopped.FAILED,
    ShutoffReason.FROM_SNAPSHOT: Stopped.FROM_SNAPSHOT,
    ShutoffReason.DAEMON: Stopped.FAILED,
}
"""What the STOPPED event says for each reason a guest is shut off."""

DETAILS: dict[Lifecycle, type[Detail]] = {
    Lifecycle.DEFINED: Defined,
    Lifecycle.UNDEFINED: Undefined,
    Lifecycle.STARTED: Started,
    Lifecycle.SUSPENDED: Suspended,
    Lifecycle.RESUMED: Resumed,
    Lifecycle.STOPPED: Stopped,
    Lifecycle.SHUTDOWN: ShutDown,
    Lifecycle.PMSUSPENDED: PmSuspended,
    Lifecycle.CRASHED: Crashed,
}
"""Which details an event may have."""
