"""What the client hands out: plain frozen values, no wire types."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sterna.guest.states import State


@dataclass(frozen=True, slots=True)
class GuestInfo:
    """One guest at one moment.

    Attributes:
        id: the host's number for a running guest, None when it is shut off.
        reason: why it is in that state, as the protocol numbers it within the state.
        memory_kib, max_memory_kib: current and largest memory.
        cpu_time_ns: processor time used since it started.
    """

    name: str
    uuid: UUID
    id: int | None
    state: State
    reason: int
    persistent: bool
    autostart: bool
    vcpus: int
    memory_kib: int
    max_memory_kib: int
    cpu_time_ns: int


@dataclass(frozen=True, slots=True)
class GuestEvent:
    """Something that happened to a guest.

    Attributes:
        kind: `lifecycle`, `reboot`, `migration-iteration`, `job-completed`, ...
        event, detail: for lifecycle events the words `started`, `migrated` and so on; else empty.
        at: when the client received it.
        data: what else the event carries.
    """

    kind: str
    guest: str
    uuid: UUID
    event: str
    detail: str
    at: datetime
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a migration has come. Bytes, bytes per second and milliseconds.

    Attributes:
        dirty_rate: bytes of memory the guest rewrites per second; 0 until QEMU has measured it.
        iteration: which pass over memory this is, from 1; 0 before the first.
        eta_ms: what is left divided by what the transfer gains on the guest; None when the guest
            rewrites memory as fast as it is sent, so that no end can be named.
    """

    elapsed_ms: int
    total: int
    processed: int
    remaining: int
    rate: int
    dirty_rate: int
    iteration: int
    downtime_ms: int
    throttle: int
    eta_ms: int | None


@dataclass(frozen=True, slots=True)
class MigrationResult:
    """A migration that ended well.

    Attributes:
        total_ms: from Begin to the last reply.
        downtime_ms: how long neither side ran the guest, as the two daemons measured it; None when
            the destination keeps no such figure.
        transferred: bytes sent.
        offline: it did not run, so that only its definition was moved.
    """

    guest: str
    destination: str
    total_ms: int
    downtime_ms: int | None
    transferred: int
    memory_total: int
    iterations: int
    warnings: tuple[str, ...] = ()
    offline: bool = False
