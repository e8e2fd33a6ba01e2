"""What a guest's long operation is doing, and stopping it. Reads answer the last known numbers."""

from __future__ import annotations

import asyncio
import contextlib

from sterna.errors import OperationUnsupported, SternaError
from sterna.guest.actor import Guest
from sterna.guest.jobs import Call, Operation
from sterna.guest.jobstats import JobStats, JobType
from sterna.rpc.msg_domain import (
    DomainAbortJobArgs,
    DomainAbortJobFlagsArgs,
    DomainGetJobInfoArgs,
    DomainGetJobInfoRet,
    DomainGetJobStatsArgs,
    DomainGetJobStatsRet,
)
from sterna.server.dispatch import check_flags, handles
from sterna.server.objects import find
from sterna.server.session import Session
from sterna.server.wire_values import encode_job

COMPLETED, KEEP_COMPLETED = 1, 2
ABORT_POSTCOPY = 1
"""Flag of an abort: break the connection for pages, and nothing else."""
REFRESH_S = 0.25
"""How long a fresh number is waited for before the last known one is given."""


def running_stats(guest: Guest) -> JobStats | None:
    """The numbers of the operation under way; None if there is none.

    Raises:
        OperationInvalid (55): the guest is not running.
        OperationUnsupported (84): it is the destination of a migration.
    """
    running = guest.live_or_refuse()
    job = guest.job
    if job is None:
        return None
    if job.operation is Operation.MIGRATION_IN:
        if not running.incoming:
            return None  # it has arrived, and is only being tidied up after
        raise OperationUnsupported("migration statistics are available only on the source host")
    if job.stats is not None:
        return job.stats
    return JobStats(type=JobType.UNBOUNDED, operation=job.operation.number)


async def refreshed_stats(session: Session, guest: Guest) -> JobStats | None:
    """The same, fresh where QEMU gives them at once (L6).

    Raises:
        OperationInvalid (55): the guest is not running.
    """
    with contextlib.suppress(SternaError, TimeoutError):
        async with asyncio.timeout(REFRESH_S):
            await session.context.migrations.source.refresh_stats(guest)
    return running_stats(guest)


@handles("DOMAIN_GET_JOB_INFO")
async def domain_get_job_info(session: Session, args: DomainGetJobInfoArgs) -> DomainGetJobInfoRet:
    stats = await refreshed_stats(session, find(session, args.dom))
    if stats is None:
        return DomainGetJobInfoRet(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    return DomainGetJobInfoRet(
        type=int(stats.type),
        timeElapsed=stats.time_elapsed,
        timeRemaining=0,
        dataTotal=stats.data_total,
        dataProcessed=stats.data_processed,
        dataRemaining=stats.data_remaining,
        memTotal=stats.memory_total,
        memProcessed=stats.memory_processed,
        memRemaining=stats.memory_remaining,
        fileTotal=stats.disk_total,
        fileProcessed=stats.disk_processed,
        fileRemaining=stats.disk_remaining,
    )


@handles("DOMAIN_GET_JOB_STATS")
async def domain_get_job_stats(
    session: Session, args: DomainGetJobStatsArgs
) -> DomainGetJobStatsRet:
    check_flags(args.flags, COMPLETED | KEEP_COMPLETED, "qemuDomainGetJobStats")
    guest = find(session, args.dom)
    if args.flags & COMPLETED:
        stats = guest.jobs.take_completed(keep=bool(args.flags & KEEP_COMPLETED))
    else:
        stats = await refreshed_stats(session, guest)
    if stats is None:
        return DomainGetJobStatsRet(type=int(JobType.NONE), params=[])
    return DomainGetJobStatsRet(type=int(stats.type), params=encode_job(stats))


async def abort(session: Session, guest: Guest, api: str) -> None:
    """Ask the operation to end early; whoever runs it says how that went."""
    guest.live_or_refuse()
    if session.context.migrations.source.is_outgoing(guest):
        await session.context.migrations.source.abort(guest)
        return

    async def work() -> None:
        guest.jobs.abort()

    if guest.job is None:
        guest.jobs.abort()
    await guest.do(Call.ABORT, api, work)


@handles("DOMAIN_ABORT_JOB")
async def domain_abort_job(session: Session, args: DomainAbortJobArgs) -> None:
    await abort(session, find(session, args.dom), "remoteDispatchDomainAbortJob")


@handles("DOMAIN_ABORT_JOB_FLAGS")
async def domain_abort_job_flags(session: Session, args: DomainAbortJobFlagsArgs) -> None:
    check_flags(args.flags, ABORT_POSTCOPY, "qemuDomainAbortJobFlags")
    if args.flags & ABORT_POSTCOPY:
        guest = find(session, args.dom)
        guest.live_or_refuse()
        await session.context.migrations.source.break_postcopy(guest)
        return
    await abort(session, find(session, args.dom), "remoteDispatchDomainAbortJobFlags")
