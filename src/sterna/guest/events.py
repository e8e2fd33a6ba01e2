"""What happens to guests, as values, and the bus that tells whoever listens.

Each class is one event of the remote protocol; the server turns them into messages. They are
raised in the order things happened, on the event loop, by the one writer of the guest's state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

from sterna.guest.jobstats import JobStats
from sterna.guest.states import Detail, Lifecycle

log = logging.getLogger("sterna.guest.events")


@dataclass(frozen=True, slots=True)
class GuestRef:
    """Which guest: as it was when the event happened. `id` is -1 for one that is not running."""

    name: str
    uuid: UUID
    id: int


@dataclass(frozen=True, slots=True)
class GuestEvent:
    """Base of all events; `number` is the protocol's event id."""

    number: ClassVar[int] = -1
    guest: GuestRef


@dataclass(frozen=True, slots=True)
class LifecycleEvent(GuestEvent):
    number = 0
    event: Lifecycle
    detail: Detail


@dataclass(frozen=True, slots=True)
class RebootEvent(GuestEvent):
    number = 1


@dataclass(frozen=True, slots=True)
class RtcChangeEvent(GuestEvent):
    number = 2
    offset_s: int
    """Seconds from UTC."""


@dataclass(frozen=True, slots=True)
class WatchdogEvent(GuestEvent):
    number = 3
    action: int


@dataclass(frozen=True, slots=True)
class IoErrorEvent(GuestEvent):
    """Raised once; the server sends it as events 4 and 6, the second with the reason."""

    number = 6
    source_path: str
    device: str
    action: int
    reason: str


@dataclass(frozen=True, slots=True)
class GraphicsAddress:
    family: int
    node: str
    service: str


@dataclass(frozen=True, slots=True)
class GraphicsEvent(GuestEvent):
    number = 5
    phase: int
    local: GraphicsAddress
    remote: GraphicsAddress
    auth_scheme: str
    subject: tuple[tuple[str, str], ...]
    """Pairs of type and name."""


@dataclass(frozen=True, slots=True)
class BlockJobEvent(GuestEvent):
    """Raised once; the server sends it as events 8 (by path) and 16 (by target)."""

    number = 8
    path: str
    target: str
    type: int
    status: int


@dataclass(frozen=True, slots=True)
class DiskChangeEvent(GuestEvent):
    number = 9
    old_source: str | None
    new_source: str | None
    device: str
    reason: int


@dataclass(frozen=True, slots=True)
class TrayChangeEvent(GuestEvent):
    number = 10
    device: str
    reason: int


@dataclass(frozen=True, slots=True)
class PmWakeupEvent(GuestEvent):
    number = 11
    reason: int = 0


@dataclass(frozen=True, slots=True)
class PmSuspendEvent(GuestEvent):
    number = 12
    reason: int = 0


@dataclass(frozen=True, slots=True)
class BalloonChangeEvent(GuestEvent):
    number = 13
    actual_kib: int


@dataclass(frozen=True, slots=True)
class PmSuspendDiskEvent(GuestEvent):
    number = 14
    reason: int = 0


@dataclass(frozen=True, slots=True)
class DeviceRemovedEvent(GuestEvent):
    number = 15
    device: str


@dataclass(frozen=True, slots=True)
class TunableEvent(GuestEvent):
    number = 17
    params: tuple[tuple[str, int | float | str | bool], ...]


@dataclass(frozen=True, slots=True)
class AgentLifecycleEvent(GuestEvent):
    number = 18
    state: int
    reason: int


@dataclass(frozen=True, slots=True)
class DeviceAddedEvent(GuestEvent):
    number = 19
    device: str


@dataclass(frozen=True, slots=True)
class MigrationIterationEvent(GuestEvent):
    number = 20
    iteration: int


@dataclass(frozen=True, slots=True)
class JobCompletedEvent(GuestEvent):
    number = 21
    stats: JobStats


@dataclass(frozen=True, slots=True)
class DeviceRemovalFailedEvent(GuestEvent):
    number = 22
    device: str


@dataclass(frozen=True, slots=True)
class MetadataChangeEvent(GuestEvent):
    number = 23
    type: int
    namespace: str | None


@dataclass(frozen=True, slots=True)
class BlockThresholdEvent(GuestEvent):
    number = 24
    device: str
    path: str | None
    threshold: int
    excess: int


@dataclass(frozen=True, slots=True)
class MemoryFailureEvent(GuestEvent):
    number = 25
    recipient: int
    action: int
    flags: int


@dataclass(frozen=True, slots=True)
class MemoryDeviceSizeChangeEvent(GuestEvent):
    number = 26
    device: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class MonitorEvent(GuestEvent):
    """QEMU's own event, untouched, for those who asked for monitor events."""

    event: str
    seconds: int
    micros: int
    details: str | None
    """JSON text of the event's data."""


Listener = Callable[[GuestEvent], None]


class Subscription:
    """One listener's place on a bus; `cancel` ends it, more than once is harmless."""

    def __init__(self, listeners: dict[int, Listener], key: int) -> None:
        self._listeners = listeners
        self._key = key

    def cancel(self) -> None:
        self._listeners.pop(self._key, None)


class EventBus:
    """Tells every listener every event, at once and in order. Listeners must not block."""

    def __init__(self) -> None:
        self._listeners: dict[int, Listener] = {}
        self._next = 0

    def subscribe(self, listener: Listener) -> Subscription:
        """Call `listener` with every event from now on."""
        self._next += 1
        self._listeners[self._next] = listener
        return Subscription(self._listeners, self._next)

    def emit(self, event: GuestEvent) -> None:
        for listener in list(self._listeners.values()):
            try:
                listener(event)
            except Exception:
                # A boundary: one listener's bug must not keep the event from the others, nor from
                # the guest whose step raised it.
                log.exception("events.listener_failed event=%s", type(event).__name__)
