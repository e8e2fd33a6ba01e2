"""One life of a guest: what exists from the launch of its QEMU until that QEMU is gone."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sterna.config import DomainDef
from sterna.errors import ErrorDomain, OperationInvalid
from sterna.guest.ports import Monitor, Process
from sterna.guest.states import (
    PausedReason,
    Resumed,
    RunningReason,
    ShutoffReason,
    Stopped,
    Suspended,
)
from sterna.qemu.argv import QmpCall
from sterna.qemu.caps import QemuCaps


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a QEMU stops: the state's reason, the event's word and the audit's."""

    reason: ShutoffReason
    event: Stopped
    audit: str


DESTROYED = Ending(ShutoffReason.DESTROYED, Stopped.DESTROYED, "destroyed")
SHUTDOWN = Ending(ShutoffReason.SHUTDOWN, Stopped.SHUTDOWN, "shutdown")
MIGRATED = Ending(ShutoffReason.MIGRATED, Stopped.MIGRATED, "migrated")
SAVED = Ending(ShutoffReason.SAVED, Stopped.SAVED, "saved")
FAILED = Ending(ShutoffReason.FAILED, Stopped.FAILED, "failed")
PANICKED = Ending(ShutoffReason.CRASHED, Stopped.CRASHED, "crashed")
ORPHANED = Ending(ShutoffReason.DESTROYED, Stopped.DESTROYED, "failed")
"""An incoming guest whose connection ended before Finish: destroyed, and its move failed."""
DIED = Ending(ShutoffReason.CRASHED, Stopped.FAILED, "failed")
"""QEMU ended without a word."""


@dataclass(frozen=True, slots=True)
class BlockReading:
    """One disk's counters and sizes. Times in ns, sizes in bytes."""

    rd_reqs: int = 0
    rd_bytes: int = 0
    rd_times: int = 0
    wr_reqs: int = 0
    wr_bytes: int = 0
    wr_times: int = 0
    fl_reqs: int = 0
    fl_times: int = 0
    allocation: int | None = None
    capacity: int | None = None
    physical: int | None = None


@dataclass(slots=True)
class Readings:
    """The last known readings of one life."""

    blocks: dict[str, BlockReading] = field(default_factory=dict)
    """By the disk's alias."""
    balloon: dict[str, int] = field(default_factory=dict)
    """What the guest's balloon driver reports of its memory; sizes in bytes."""
    balloon_at: int = 0
    """When it reported, seconds since the epoch; 0: never."""


@dataclass(eq=False, slots=True)
class Running:
    """What belongs to one QEMU.

    Attributes:
        id: the number clients see, from 1 in each daemon's life.
        definition: the live definition: what QEMU was started with and has become.
        log_from: where this life begins in the guest's log.
        incoming: waits for a migration that is not decided yet; only Finish ends that.
        migration: that migration, whose decision the guardian looks up if the daemon dies.
        launched: it came to life far enough to be announced.
        ending: why it is being stopped; None while it is not.
        sent: its whole state is with another host; only its migration may let it run here. (L1)
        let_gone: the daemon ends and leaves it to the next one.
        powered_off: QEMU said the guest, or the host, shut down.
        reboot_on_shutdown: the next power-off means "start again" (on_poweroff, fake reboot).
        setup: what to tell QEMU once before its CPUs run.
        caps: what its emulator can do; None for one that an earlier daemon started.
        vcpu_threads: the host's thread of each vcpu.
        readings: last known statistics.
        stopped: done when everything of this life is cleaned up.
    """

    id: int
    definition: DomainDef
    run_dir: Path
    log_path: Path
    log_from: int = 0
    incoming: bool = False
    migration: str | None = None
    launched: bool = False
    started_at: float = 0.0
    process: Process | None = None
    monitor: Monitor | None = None
    ending: Ending | None = None
    sent: bool = False
    let_gone: bool = False
    powered_off: bool = False
    reboot_on_shutdown: bool = False
    expected_resume: tuple[RunningReason, Resumed] | None = None
    expected_stop: tuple[PausedReason, Suspended] | None = None
    cleanup: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    setup: Sequence[QmpCall] = ()
    caps: QemuCaps | None = None
    vcpu_threads: dict[int, int] = field(default_factory=dict)
    readings: Readings = field(default_factory=Readings)
    _xml: str | None = None
    _when_stopped: list[Callable[[Ending], None]] = field(default_factory=list)

    @property
    def qemu(self) -> Monitor:
        """The live monitor.

        Raises: OperationInvalid (55) if the guest is being stopped or not connected yet.
        """
        if self.monitor is None or self.ending is not None:
            raise OperationInvalid("domain is not running", domain=ErrorDomain.DOMAIN)
        return self.monitor

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else -1

    def end_with(self, ending: Ending) -> None:
        """Say why it will stop; the first reason given stands."""
        if self.ending is None:
            self.ending = ending

    def kill(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Signal QEMU through its pidfd; nothing if it was not spawned yet or is gone."""
        if self.process is not None:
            self.process.kill(sig)

    def let_go(self) -> None:
        """Close our ends of it without touching QEMU."""
        self.let_gone = True
        if self.monitor is not None:
            self.monitor.close("the daemon ends")
        if self.process is not None:
            self.process.close()

    def when_stopped(self, callback: Callable[[Ending], None]) -> Callable[[], None]:
        """Call it, synchronously, when this life is over and its state is set.

        Returns what takes it back; harmless when it is too late.
        """
        self._when_stopped.append(callback)

        def forget() -> None:
            if callback in self._when_stopped:
                self._when_stopped.remove(callback)

        return forget

    def tell_stopped(self, ending: Ending) -> None:
        callbacks, self._when_stopped = self._when_stopped, []
        for callback in callbacks:
            callback(ending)
        self.stopped.set()

    def xml(self, make: Callable[[], str]) -> str:
        """The live definition's text as the status record keeps it, made once a change."""
        if self._xml is None:
            self._xml = make()
        return self._xml

    def definition_changed(self) -> None:
        """The live definition was changed: its text must be made anew."""
        self._xml = None
