"""Jobs: who is changing a guest, who may beside whom, and until when the others wait.

Two kinds, as a client of libvirt knows them. A *call* holds the guest for one API call. An
*operation* (migration, save, dump, start) may last for hours; the calls it allows go on beside it.
Every holder is named, with its phase, start and last progress, and ends with its owner (L7).
Reads take no job at all (L6).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, Flag, auto
from typing import Any, Final

from sterna.errors import OperationInvalid, OperationTimeout
from sterna.guest.jobstats import JobOperation, JobStats
from sterna.guest.ports import ClientLink

WAIT_S: Final = 30.0
"""How long a call waits for its turn. libvirt 9.0 waits as long (observed)."""


class Call(Flag):
    """What one API call does to the guest."""

    QUERY = auto()
    DESTROY = auto()
    SUSPEND = auto()
    MODIFY = auto()
    ABORT = auto()
    MIGRATION_OP = auto()


class Operation(Enum):
    """A long operation: its name in texts and the calls allowed beside it.

    Observed with libvirt 9.0: beside an outgoing migration run query, destroy, abort, suspend and
    the migration's own controls; beside an incoming one only destroy.
    """

    MIGRATION_OUT = "migration out"
    MIGRATION_IN = "migration in"
    SAVE = "save"
    DUMP = "dump"
    START = "start"

    @property
    def allowed(self) -> Call:
        return _ALLOWED[self]

    @property
    def number(self) -> JobOperation:
        return _NUMBERS[self]


_USUAL: Final = Call.QUERY | Call.DESTROY | Call.ABORT
_ALLOWED: Final = {
    Operation.MIGRATION_OUT: _USUAL | Call.SUSPEND | Call.MIGRATION_OP,
    Operation.MIGRATION_IN: Call.DESTROY,
    Operation.SAVE: _USUAL,
    Operation.DUMP: _USUAL,
    Operation.START: Call.DESTROY,
}
_NUMBERS: Final = {
    Operation.MIGRATION_OUT: JobOperation.MIGRATION_OUT,
    Operation.MIGRATION_IN: JobOperation.MIGRATION_IN,
    Operation.SAVE: JobOperation.SAVE,
    Operation.DUMP: JobOperation.DUMP,
    Operation.START: JobOperation.START,
}

# Neither changes the guest's configuration nor needs it to stand still.
_BESIDE_CALLS: Final = Call.ABORT | Call.DESTROY | Call.MIGRATION_OP


@dataclass(eq=False, slots=True)
class CallJob:
    """One call that holds the guest now."""

    kind: Call
    api: str
    started: float = field(default_factory=time.monotonic)


@dataclass(eq=False, slots=True)
class Job:
    """One long operation.

    Attributes:
        api: the call that began it, as error texts name holders.
        phase: its own word for where it is; "" for one that has no phases.
        started: monotonic seconds.
        started_at: the same, by the wall clock.
        progress_at: monotonic time of the last sign of progress.
        stats: last known statistics, for those who ask meanwhile (L6).
        cancel: how to abort it; None if it cannot be.
        data: the operation's own, kept in the status record: JSON values only.
    """

    operation: Operation
    api: str
    phase: str = ""
    started: float = field(default_factory=time.monotonic)
    started_at: float = field(default_factory=time.time)
    progress_at: float = field(default_factory=time.monotonic)
    stats: JobStats | None = None
    cancel: Callable[[], None] | None = None
    cancelled: bool = False
    data: dict[str, Any] = field(default_factory=dict)
    owner: ClientLink | None = None
    _on_owner_gone: Callable[[], None] | None = None

    def enter(self, phase: str) -> None:
        """Go to a phase of one's own."""
        self.phase = phase
        self.progress()

    def progress(self, stats: JobStats | None = None) -> None:
        """Note a sign of progress, and the statistics if there are new ones."""
        self.progress_at = time.monotonic()
        if stats is not None:
            self.stats = stats

    def hold(self, owner: ClientLink, on_gone: Callable[[], None]) -> None:
        """Tie the job to a connection between two calls: `on_gone` runs when it ends (L7)."""
        self.release()
        if owner.closed:
            on_gone()
            return
        self.owner, self._on_owner_gone = owner, on_gone
        owner.add_close_callback(on_gone)

    def release(self) -> None:
        """Untie it; harmless if it is not tied."""
        if self.owner is not None and self._on_owner_gone is not None:
            self.owner.remove_close_callback(self._on_owner_gone)
        self.owner = self._on_owner_gone = None


@dataclass(eq=False, slots=True)
class _Waiter:
    wanted: CallJob | Job
    turn: asyncio.Future[None]


class Jobs:
    """The jobs of one guest. `on_change` is called after a long operation begins, moves or ends."""

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.job: Job | None = None
        self.call: CallJob | None = None
        self.completed: JobStats | None = None
        """Statistics of the last operation that ended well, until read or replaced."""
        self._on_change = on_change
        self._waiting: deque[_Waiter] = deque()

    @property
    def holder(self) -> str:
        """The API call that keeps others waiting, for error texts."""
        return self.call.api if self.call else self.job.api if self.job else ""

    async def begin(self, kind: Call, api: str, *, wait_s: float = WAIT_S) -> CallJob:
        """Wait for the turn of one call, first come first served.

        Raises:
            OperationTimeout (68): the holder did not finish in time; the text names it.
        """
        call = CallJob(kind, api)
        await self._take(call, wait_s)
        return call

    async def begin_operation(
        self, operation: Operation, api: str, *, phase: str = "", wait_s: float = WAIT_S
    ) -> Job:
        """Wait for the turn of a long operation.

        Raises:
            OperationTimeout (68): another holder did not finish in time.
        """
        job = Job(operation, api, phase)
        await self._take(job, wait_s)
        self._on_change()
        return job

    def take_up(self, operation: Operation, record: Mapping[str, Any]) -> Job:
        """An operation whose daemon died goes on here, as its status record says."""
        job = Job(operation, record["api"], record["phase"], started_at=record["started_at"])
        job.data.update(record["data"])
        self.job = job
        return job

    def end(self, job: CallJob | Job) -> None:
        """Give the turn back. Harmless if it was taken away already (the guest stopped)."""
        if job is self.call:
            self.call = None
        elif job is self.job:
            self.job.release()
            self.job = None
            self._on_change()
        self._wake()

    def complete(self, job: Job, stats: JobStats | None) -> None:
        """End an operation that succeeded and keep its statistics for one who asks after it."""
        self.completed = stats
        self.end(job)

    def drop(self, *, operations: bool = True) -> None:
        """The guest stopped: nobody holds it any more, whatever they believe.

        Their own `end` will find nothing to give back.
        """
        self.call = None
        if operations and self.job is not None:
            self.job.release()
            self.job = None
        self._wake()

    def abort(self) -> None:
        """Ask the running operation to end early.

        Raises:
            OperationInvalid (55): there is none, or it cannot be aborted.
        """
        if self.job is None:
            raise OperationInvalid("no job is active on the domain")
        if self.job.cancel is None:
            raise OperationInvalid(f"cannot abort {self.job.operation.value}; use destroy instead")
        self.job.cancelled = True
        self.job.cancel()

    @contextmanager
    def during(self, job: CallJob | Job) -> Iterator[None]:
        """End `job` with the block."""
        try:
            yield
        finally:
            self.end(job)

    def take_completed(self, *, keep: bool) -> JobStats | None:
        """Statistics of the last good operation; one look without `keep` forgets them."""
        stats = self.completed
        if not keep:
            self.completed = None
        return stats

    async def _take(self, wanted: CallJob | Job, wait_s: float) -> None:
        if self._may(wanted):
            # Nobody is overtaken: who could go has been woken, the rest waits for something else.
            self._grant(wanted)
            return
        waiter = _Waiter(wanted, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(wait_s):
                await waiter.turn
        except BaseException as exc:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self._wake()
            else:
                self.end(wanted)  # the turn came in the very moment of giving up
            if isinstance(exc, TimeoutError):
                text = f"cannot acquire state change lock (held by monitor={self.holder})"
                raise OperationTimeout(text) from None
            raise

    def _may(self, wanted: CallJob | Job) -> bool:
        if isinstance(wanted, Job):
            return self.job is None and self.call is None
        if self.job is not None and wanted.kind not in self.job.operation.allowed:
            return False
        return _beside_calls(wanted) or self.call is None

    def _grant(self, wanted: CallJob | Job) -> None:
        if isinstance(wanted, Job):
            wanted.started = wanted.progress_at = time.monotonic()
            self.job = wanted
        elif not _beside_calls(wanted):
            self.call = wanted

    def _wake(self) -> None:
        """Give turns, in order. One that a long operation keeps out is passed over by others."""
        for waiter in list(self._waiting):
            if self._may(waiter.wanted):
                self._waiting.remove(waiter)
                self._grant(waiter.wanted)
                if not waiter.turn.done():
                    waiter.turn.set_result(None)


def _beside_calls(wanted: CallJob | Job) -> bool:
    return isinstance(wanted, CallJob) and wanted.kind in _BESIDE_CALLS
