"""What is known about a guest's long operation: never waiting behind it (L6)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sterna.errors import OperationUnsupported, SternaError
from sterna.guest.jobs import Operation
from sterna.guest.jobstats import JobStats, JobType

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

REFRESH_S: Final = 0.25
COMPLETED: Final = 1
KEEP_COMPLETED: Final = 2


async def job_stats(guest: Guest, flags: int = 0) -> JobStats | None:
    """Statistics of the running operation, or with COMPLETED of the last good one; None if none.

    Fresh ones if QEMU gives them at once, else the last known.

    Raises: OperationUnsupported (84) on the destination of a migration.
    """
    if flags & COMPLETED:
        return guest.jobs.take_completed(keep=bool(flags & KEEP_COMPLETED))
    job = guest.job
    if job is None or job.operation is Operation.START:
        return None
    if job.operation is Operation.MIGRATION_IN:
        raise OperationUnsupported("migration statistics are available only on the source host")
    if job.refresh is not None:
        with contextlib.suppress(SternaError, TimeoutError):
            async with asyncio.timeout(REFRESH_S):
                job.progress(await job.refresh())
    elapsed_ms = int((time.monotonic() - job.started) * 1000)
    stats = job.stats or JobStats(JobType.UNBOUNDED, job.operation.number)
    return replace(stats, time_elapsed=elapsed_ms)
