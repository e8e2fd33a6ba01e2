"""A guest's memory written to a file, for those who look for what went wrong in it.

Two kinds: QEMU's migration stream, as it is, or with MEMORY_ONLY the memory alone as a core file
that crash and gdb read.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntFlag
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sterna.errors import BadArgument, InvalidArg, OperationFailed
from sterna.guest import outgoing
from sterna.guest.events import JobCompletedEvent
from sterna.guest.jobs import Job, Operation
from sterna.guest.jobstats import JobStats, JobType
from sterna.guest.running import PANICKED, Running
from sterna.guest.saveimage import create_image, keep_image
from sterna.guest.states import PausedReason, RunningReason, State
from sterna.guest.surroundings import MONITOR_S
from sterna.qemu.qmp_errors import MonitorGone
from sterna.qemu.qmp_session import Event

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

FD_NAME: Final = "sterna-dump"

FORMATS: Final = ("elf", "kdump-zlib", "kdump-lzo", "kdump-snappy")
"""By the protocol's numbers."""


class DumpFlags(IntFlag):
    """CRASH stops the guest afterwards, LIVE does not pause it, RESET boots it anew."""

    NONE = 0
    CRASH = 1
    LIVE = 2
    BYPASS_CACHE = 4
    RESET = 8
    MEMORY_ONLY = 16


async def dump(
    guest: Guest,
    path: Path,
    flags: DumpFlags = DumpFlags.NONE,
    *,
    format: int = 0,
    api: str = "remoteDispatchDomainCoreDumpWithFormat",
) -> None:
    """Write the guest's memory to a new file; the guest goes on as it was, if no flag says else.

    Raises:
        OperationInvalid (55): it is not running.
        InvalidArg (8), BadArgument (8): flags or a format that can't be.
        OperationAborted (78), OperationFailed (9), SystemCallError (38): the file is gone then.
    """
    _check(flags, format)

    async def work(job: Job) -> None:
        await _dump(guest, job, path, flags, FORMATS[format])

    guest.live_or_refuse()
    await guest.operate(Operation.DUMP, api, work)


def _check(flags: DumpFlags, format: int) -> None:
    if not 0 <= format < len(FORMATS):
        raise InvalidArg(f"format of {format} must be less than {len(FORMATS)}")
    if format and not flags & DumpFlags.MEMORY_ONLY:
        raise InvalidArg("kdump-compressed format is only supported with memory-only dump")
    for one, other in (("CRASH", "LIVE"), ("CRASH", "RESET"), ("LIVE", "RESET")):
        if flags & DumpFlags[one] and flags & DumpFlags[other]:
            raise BadArgument(
                f"Flags 'VIR_DUMP_{one}' and 'VIR_DUMP_{other}' are mutually exclusive"
            )


async def _dump(guest: Guest, job: Job, path: Path, flags: DumpFlags, format: str) -> None:
    running = guest.live_or_refuse()
    ran = guest.state is State.RUNNING
    if ran and not flags & DumpFlags.LIVE:
        await guest.pause_cpus(PausedReason.DUMP)
    part = path.with_name(f".{path.name}.part")
    fd = -1
    try:
        fd = create_image(part, path)
        if flags & DumpFlags.MEMORY_ONLY:
            await _memory(running, job, fd, format)
        else:
            stats = await outgoing.send(guest, job, fd)
            guest.emit(JobCompletedEvent(guest.ref, stats.finished(JobType.COMPLETED)))
        await asyncio.to_thread(keep_image, fd, part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        await _go_on(guest, running, ran=ran)
        raise
    finally:
        if fd >= 0:
            os.close(fd)
    if flags & DumpFlags.CRASH:
        await guest.stop_process(PANICKED)
        return
    if flags & DumpFlags.RESET:
        await running.qemu.execute("system_reset", timeout_s=MONITOR_S)
    await _go_on(guest, running, ran=ran)


async def _go_on(guest: Guest, running: Running, *, ran: bool) -> None:
    """Let the CPUs run if they did before. QEMU itself stops them at the end of its stream."""
    alive = guest.running is running and running.ending is None
    if ran and alive and guest.state is not State.RUNNING:
        await guest.resume_cpus(RunningReason.UNPAUSED)


async def _memory(running: Running, job: Job, fd: int, format: str) -> None:
    """Have QEMU write a core file. It can't be aborted."""
    qemu = running.qemu
    arguments = {"paging": False, "protocol": f"fd:{FD_NAME}", "detach": True, "format": format}
    async with _completed(running) as completed:
        await qemu.execute("getfd", {"fdname": FD_NAME}, fds=(fd,), timeout_s=MONITOR_S)
        await qemu.execute("dump-guest-memory", arguments, timeout_s=MONITOR_S)
        while not completed.done():
            await asyncio.wait([completed], timeout=outgoing.PROGRESS_S)
            if not completed.done():
                job.progress(_stats(job, await qemu.execute("query-dump", timeout_s=MONITOR_S)))
        data = completed.result()
    if data.get("result", {}).get("status") != "completed":
        words = data.get("error") or "unexpectedly failed"
        raise OperationFailed(f"memory-only dump failed: {words}")


def _stats(job: Job, reply: dict[str, Any]) -> JobStats:
    total, done = reply.get("total", 0), reply.get("completed", 0)
    return JobStats(
        JobType.UNBOUNDED,
        job.operation.number,
        memory_total=total,
        memory_processed=done,
        memory_remaining=total - done,
    )


@asynccontextmanager
async def _completed(running: Running) -> AsyncIterator[asyncio.Future[dict[str, Any]]]:
    """Inside, a future of what QEMU says when the dump ends."""
    qemu = running.qemu
    completed: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def heard(event: Event) -> None:
        if event.name == "DUMP_COMPLETED" and not completed.done():
            completed.set_result(event.data)

    def closed(reason: asyncio.Future[str]) -> None:
        if not completed.done():
            completed.set_exception(MonitorGone(reason.result()))

    unsubscribe = qemu.subscribe(heard)
    qemu.closed.add_done_callback(closed)
    try:
        yield completed
    finally:
        unsubscribe()
        qemu.closed.remove_done_callback(closed)
        completed.cancel()
