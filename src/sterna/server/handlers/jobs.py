"""What a guest's long operation is doing, and stopping it. Reads answer the last known numbers."""

from __future__ import annotations

from sterna.guest.actor import Guest
from sterna.guest.jobs import Call
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


def running_stats(guest: Guest) -> JobStats | None:
    """The numbers of the operation under way; None if there is none.

    Raises:
        OperationInvalid (55): the guest is not running.
    """
    guest.live_or_refuse()
    job = guest.job
    if job is None:
        return None
    if job.stats is not None:
        return job.stats
    return JobStats(type=JobType.UNBOUNDED, operation=job.operation.number)


@handles("DOMAIN_GET_JOB_INFO")
def domain_get_job_info(session: Session, args: DomainGetJobInfoArgs) -> DomainGetJobInfoRet:
    stats = running_stats(find(session, args.dom))
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
def domain_get_job_stats(session: Session, args: DomainGetJobStatsArgs) -> DomainGetJobStatsRet:
    check_flags(args.flags, COMPLETED | KEEP_COMPLETED, "qemuDomainGetJobStats")
    guest = find(session, args.dom)
    if args.flags & COMPLETED:
        stats = guest.jobs.take_completed(keep=bool(args.flags & KEEP_COMPLETED))
    else:
        stats = running_stats(guest)
    if stats is None:
        return DomainGetJobStatsRet(type=int(JobType.NONE), params=[])
    return DomainGetJobStatsRet(type=int(stats.type), params=encode_job(stats))


async def abort(guest: Guest, api: str) -> None:
    """Ask the operation to end early; whoever runs it says how that went."""
    guest.live_or_refuse()

    async def work() -> None:
        guest.jobs.abort()

    if guest.job is None:
        guest.jobs.abort()
    await guest.do(Call.ABORT, api, work)


@handles("DOMAIN_ABORT_JOB")
async def domain_abort_job(session: Session, args: DomainAbortJobArgs) -> None:
    await abort(find(session, args.dom), "remoteDispatchDomainAbortJob")


@handles("DOMAIN_ABORT_JOB_FLAGS")
async def domain_abort_job_flags(session: Session, args: DomainAbortJobFlagsArgs) -> None:
    check_flags(args.flags, 0, "qemuDomainAbortJobFlags")
    await abort(find(session, args.dom), "remoteDispatchDomainAbortJobFlags")
