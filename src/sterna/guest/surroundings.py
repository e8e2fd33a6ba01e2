"""What all guests of a host share: places, settings, store, bus, and someone to do the work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from uuid import UUID

from sterna.config.caps import EmulatorFacts
from sterna.errors import SternaError
from sterna.guest.autokill import Autokill
from sterna.guest.events import EventBus
from sterna.guest.ports import Monitor, Process
from sterna.guest.running import Running
from sterna.qemu.caps import QemuCaps
from sterna.qemu.process import ProcessId, User
from sterna.store.ports import Store

if TYPE_CHECKING:
    from sterna.guest.resources import Taken

log = logging.getLogger("sterna.guest")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GuestPaths:
    """Directories, which exist.

    Attributes:
        run: one directory a running guest: monitor and channel sockets.
        log: one log a guest, NAME.log.
        nvram: UEFI variables, NAME_VARS.fd.
        save: managed save images, NAME.save.
    """

    run: Path
    log: Path
    nvram: Path
    save: Path


@dataclass(frozen=True, slots=True)
class GuestSettings:
    """How QEMU is run on this host. `user` None: as the daemon itself."""

    user: User | None = None
    vnc_listen: str = "127.0.0.1"
    vnc_port_min: int = 5900
    vnc_port_max: int = 65535
    stop_grace_s: float = 10.0
    """How long a QEMU told to end (SIGTERM) may take before it is killed."""
    start_timeout_s: float = 30.0
    monitor_timeout_s: float = 10.0
    """A monitor silent for longer is hung (I10)."""


class Emulators(Protocol):
    """The QEMU binaries of the host."""

    async def caps(self, binary: str | None = None, arch: str = "x86_64") -> QemuCaps:
        """What a binary can do; without one, the host's own for the architecture."""
        ...

    async def facts(self, binary: str | None = None, arch: str = "x86_64") -> EmulatorFacts:
        """The same, as far as definitions depend on it."""
        ...


class Launcher(Protocol):
    """Starts QEMU processes and finds them again (`sterna.guest.launcher.QemuLauncher`)."""

    async def spawn(self, running: Running, taken: Taken, *, incoming: bool) -> Process:
        """Start the process of a live definition, CPUs stopped; `incoming` with a state to come.

        One that waits for a migration dies with this daemon until `release`, unless that migration
        is committed in the store (L3).

        Raises: SternaError, OSError.
        """
        ...

    def release(self, running: Running) -> None:
        """An incoming one is decided: from now on it outlives this daemon."""

    def keep(self, running: Running, migration: str) -> None:
        """It is being sent away: if this daemon dies meanwhile it stays, running (L2)."""

    def let_go(self, migration: str) -> None:
        """It has been sent, or stays: nothing is to be done if this daemon dies. Harmless twice."""

    async def connect(self, running: Running) -> Monitor:
        """Its monitor, ready for commands. Raises: SternaError if QEMU does not answer."""
        ...

    async def end_stray(self, run_dir: Path) -> None:
        """End the QEMU whose monitor is in this directory, if there is one."""

    def attach(self, ident: ProcessId) -> Process:
        """A process of an earlier daemon. Raises: ProcessLookupError unless that very one lives."""
        ...


class Work:
    """Does what must be finished even when the one who asked has hung up."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it in the daemon's scope and wait; a cancelled wait leaves the work running."""
        return await self.start(work)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run it in the daemon's scope. Its failure is the future's, or logged if nobody waits."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._tasks.create_task(_carried_out(work, done))
        return done


async def _carried_out(work: Coroutine[Any, Any, T], done: asyncio.Future[T]) -> None:
    try:
        result = await work
    except Exception as exc:
        # The actor's boundary: one guest's failure must not end the daemon's task group.
        if not done.cancelled():
            done.set_exception(exc)
        elif isinstance(exc, SternaError):
            # Its state and events say the same; only the one who asked has gone.
            log.warning("guest.abandoned_work_failed error=%r", str(exc))
        else:
            log.exception("guest.abandoned_work_failed")
        return
    except BaseException:
        done.cancel()
        raise
    if not done.cancelled():
        done.set_result(result)


async def always(_guest: UUID, _name: str) -> None:
    """Nobody else can have it."""


@dataclass(slots=True)
class Surroundings:
    """Shared by all guests of one registry.

    `may_start` is asked before a guest is started from a definition or a saved image; it raises
    OperationInvalid (55) if another host has it.
    """

    paths: GuestPaths
    settings: GuestSettings
    store: Store
    emulators: Emulators
    launcher: Launcher
    work: Work
    bus: EventBus = field(default_factory=EventBus)
    autokill: Autokill = field(default_factory=Autokill)
    may_start: Callable[[UUID, str], Awaitable[None]] = always
    last_id: int = 0
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def write_down(self, change: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Future[T]:
        """Change what is defined: one change at a time, each to its end whoever hangs up meanwhile.

        Memory and disk would say different things otherwise, and the next start believes the disk.
        """

        async def alone() -> T:
            async with self._writing:
                return await change()

        return self.work.start(alone())

    def next_id(self) -> int:
        """A number for a new life: from 1, never given twice in a daemon's life."""
        self.last_id += 1
        return self.last_id


MONITOR_S: Final = 10.0
"""Deadline of one monitor command: a QEMU that is silent for longer hangs (I10)."""
