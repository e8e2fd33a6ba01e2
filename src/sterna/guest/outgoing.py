"""Sending a guest's state to a file descriptor and loading it from one: save, restore, dump.

The engine of live migration with a file at the other end. The live kind, between two hosts, is the
migration package's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from sterna.errors import OperationAborted, OperationFailed
from sterna.guest.jobs import Job
from sterna.guest.jobstats import JobStats
from sterna.guest.running import Running
from sterna.guest.surroundings import MONITOR_S
from sterna.qemu.qmp_errors import MonitorGone
from sterna.qemu.qmp_session import Event

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

UNLIMITED_BPS: Final = 9223372036853727232
"""What libvirt 9.0 sets for "no limit": the largest whole number of MiB that QEMU takes."""

PROGRESS_S: Final = 0.25
"""How old the numbers may be that a job shows."""

FD_NAME: Final = "sterna-state"
_ENDED: Final = ("completed", "failed", "cancelled")


async def send(guest: Guest, job: Job, fd: int) -> JobStats:
    """Have QEMU write its whole state to `fd`; the CPUs must be stopped, or be stopped by it.

    The job can be aborted meanwhile and shows its progress.

    Raises:
        OperationAborted (78): somebody aborted the job.
        OperationFailed (9): QEMU could not, in its words.
    """
    running = guest.live_or_refuse()
    qemu = running.qemu

    async def watch() -> None:
        # So that those who ask meanwhile need not wait for QEMU. (L6)
        while True:
            job.progress(_stats(job, await qemu.execute("query-migrate", timeout_s=MONITOR_S)))
            await asyncio.sleep(PROGRESS_S)

    def cancel() -> None:
        cancelling = qemu.execute("migrate_cancel", timeout_s=MONITOR_S)
        guest.surroundings.work.start(cancelling).add_done_callback(_looked_at)

    old = await qemu.execute("query-migrate-parameters", timeout_s=MONITOR_S)
    fast = {"max-bandwidth": UNLIMITED_BPS}
    await qemu.execute("migrate-set-parameters", fast, timeout_s=MONITOR_S)
    await qemu.execute("getfd", {"fdname": FD_NAME}, fds=(fd,), timeout_s=MONITOR_S)
    try:
        async with _ended(running) as ended:
            job.cancel = cancel
            await qemu.execute("migrate", {"uri": f"fd:{FD_NAME}"}, timeout_s=MONITOR_S)
            watching = asyncio.ensure_future(watch())
            try:
                status = await ended
            finally:
                watching.cancel()
                await asyncio.wait([watching])
                _looked_at(watching)
        job.cancel = None
        reply = await qemu.execute("query-migrate", timeout_s=MONITOR_S)
    finally:
        job.cancel = None
        with contextlib.suppress(MonitorGone):
            slow = {"max-bandwidth": old["max-bandwidth"]}
            await qemu.execute("migrate-set-parameters", slow, timeout_s=MONITOR_S)
    if status == "completed":
        return _stats(job, reply)
    if job.cancelled:
        raise OperationAborted(f"{job.operation.value} job: canceled by client")
    words = reply.get("error-desc") or "unexpectedly failed"
    raise OperationFailed(f"{job.operation.value} job: {words}")


async def cancel(running: Running) -> None:
    """End a sending that an earlier daemon began; nothing if there is none.

    Raises: MonitorGone, MonitorTimeout, TimeoutError.
    """
    qemu = running.qemu
    async with _ended(running) as ended, asyncio.timeout(MONITOR_S):
        reply = await qemu.execute("query-migrate", timeout_s=MONITOR_S)
        if reply.get("status", "none") in ("none", *_ENDED):
            return
        await qemu.execute("migrate_cancel", timeout_s=MONITOR_S)
        await ended


async def load(running: Running, fd: int, *, timeout_s: float) -> None:
    """Have an incoming QEMU load the state in `fd`.

    Raises: OperationFailed (9), TimeoutError, MonitorGone.
    """
    qemu = running.qemu
    await qemu.execute("getfd", {"fdname": FD_NAME}, fds=(fd,), timeout_s=MONITOR_S)
    async with _ended(running) as ended, asyncio.timeout(timeout_s):
        await qemu.execute("migrate-incoming", {"uri": f"fd:{FD_NAME}"}, timeout_s=MONITOR_S)
        status = await ended
    if status != "completed":
        raise OperationFailed(f"job 'restore' failed: QEMU reports {status}")


@contextlib.asynccontextmanager
async def _ended(running: Running) -> AsyncIterator[asyncio.Future[str]]:
    """Inside, a future of the status this migration ends with.

    QEMU says it by itself, since every launch switches the capability `events` on.
    """
    qemu = running.qemu
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def heard(event: Event) -> None:
        status = event.data.get("status")
        if event.name == "MIGRATION" and status in _ENDED and not ended.done():
            ended.set_result(status)

    def closed(reason: asyncio.Future[str]) -> None:
        if not ended.done():
            ended.set_exception(MonitorGone(reason.result()))

    unsubscribe = qemu.subscribe(heard)
    qemu.closed.add_done_callback(closed)
    try:
        yield ended
    finally:
        unsubscribe()
        qemu.closed.remove_done_callback(closed)
        ended.cancel()


def _stats(job: Job, reply: dict[str, Any]) -> JobStats:
    elapsed_ms = int((time.monotonic() - job.started) * 1000)
    return JobStats.of_migration(job.operation.number, reply, time_elapsed=elapsed_ms)


def _looked_at(done: asyncio.Future[Any]) -> None:
    """Its failure tells nothing new: QEMU may refuse a cancel that comes too late, or be gone;
    the migration's end tells."""
    if not done.cancelled():
        done.exception()
