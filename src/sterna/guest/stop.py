"""The end of a QEMU: asked, forced, or found dead. Every way leads through `_finish`, once.

A process's end is seen by its pidfd, so nothing here waits for a monitor that hangs, and no job is
waited for: who held one finds it taken away (L3, L7, I8).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import shutil
import signal
import time
from typing import TYPE_CHECKING, Final

from sterna.errors import OperationInvalid, ResourceBusy
from sterna.guest import audit
from sterna.guest.running import DESTROYED, DIED, FAILED, SHUTDOWN, Ending, Running
from sterna.guest.states import Lifecycle, ShutDown, State, Stopped
from sterna.qemu.process import Exit
from sterna.store.errors import StoreFailed

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

log = logging.getLogger("sterna.guest.stop")

DRAIN_S: Final = 1.0
"""How long the monitor's last words are waited for once the process is gone: they are in our own
socket buffer by then, so the end of file follows at once."""

KILLED_S: Final = 10.0
"""After SIGKILL only the kernel can keep a process (a disk that doesn't answer)."""


def kill_now(guest: Guest, ending: Ending = DESTROYED) -> None:
    """Kill the guest's QEMU by force, at once: returns with the signal sent.

    For close callbacks: takes no job and waits for nothing. If the launch has not spawned the
    process yet, it will not. The rest of the stop follows by itself; `Running.stopped` tells.
    """
    running = guest.running
    if running is None:
        return
    running.end_with(ending)
    running.kill(signal.SIGKILL)
    log.warning("guest.killed guest=%s pid=%d reason=%s", guest.name, running.pid, ending.audit)


async def stop(
    guest: Guest, running: Running, ending: Ending, *, grace_s: float, force: bool = True
) -> None:
    """End a QEMU and wait until everything of it is cleaned up.

    SIGTERM first: QEMU then flushes its disks. After `grace_s`, SIGKILL if `force`; with 0 it is
    killed at once.

    Raises:
        ResourceBusy (87): it would not go and was not to be killed, or the kernel holds it.
    """
    was, running.ending = running.ending, running.ending or ending
    if grace_s > 0:
        running.kill(signal.SIGTERM)
        if await _stopped_within(running, grace_s):
            return
        if not force:
            # It goes on: a graceful destroy that failed must leave a guest that works.
            running.ending = was
            raise ResourceBusy(f"Failed to terminate process {running.pid} with SIGTERM")
    running.kill(signal.SIGKILL)
    if not await _stopped_within(running, KILLED_S):
        raise ResourceBusy(f"Failed to terminate process {running.pid} with SIGKILL")
    if guest.running is running:  # pragma: no cover - `stopped` is set after it is let go
        raise OperationInvalid("domain is still active")


async def _stopped_within(running: Running, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await running.stopped.wait()
    except TimeoutError:
        return False
    return True


def watch(guest: Guest, running: Running) -> None:
    """See to it that the end of this QEMU, however it comes, is followed by its clean-up."""
    if running.process is None:
        raise RuntimeError("nothing to watch")
    work = guest.surroundings.work

    def gone(_exit: Exit) -> None:
        # In a context of its own: log lines must not name the client who happened to start it.
        ended = contextvars.Context().run(work.start, finish(guest, running))
        ended.add_done_callback(_log_failure)

    running.process.when_gone(gone)


async def finish(guest: Guest, running: Running) -> None:
    """The process is gone (or never was): clean up, set the state, tell everybody. Once a life."""
    await _hear_out(running)
    ending = running.ending or _guess(running)
    running.ending = ending
    pid = running.pid
    _clean_up(running)
    guest.surroundings.autokill.remove(guest.uuid)
    if running.launched and ending.event is Stopped.DESTROYED and not running.powered_off:
        # A killed QEMU can't say it, but it is what happened: the host shut it down. Clients of
        # libvirt 9.0 see this event before every "destroyed" (observed).
        guest.emit_lifecycle(Lifecycle.SHUTDOWN, ShutDown.HOST)
    guest.running = None
    guest.jobs.drop()
    guest.set_state(State.SHUTOFF, ending.reason)
    if running.launched:
        audit.record("stop", ending.audit, name=guest.name, uuid=guest.uuid, pid=pid, success=True)
    if not guest.persistent:
        guest.forget()
    if running.launched:
        guest.emit_lifecycle(Lifecycle.STOPPED, ending.event)
    try:
        await guest.surroundings.store.delete_live(guest.uuid)
    except StoreFailed as exc:
        # The record will be found stale at the next start: pid and start time say so.
        log.error("guest.record_kept guest=%s error=%r", guest.name, str(exc))
    log.info("guest.stopped guest=%s reason=%s pid=%d", guest.name, ending.audit, pid)
    running.tell_stopped(ending)
    await _remember(guest, running, ending, pid)


async def _remember(guest: Guest, running: Running, ending: Ending, pid: int) -> None:
    """Keep for people how this life ended; a full disk keeps nobody from starting the next."""
    ran_s = round(time.time() - running.started_at, 1)
    detail = {"name": guest.name, "reason": ending.audit, "pid": pid, "ran_s": ran_s}
    try:
        await guest.surroundings.store.add_history(guest.uuid, "stopped", detail)
    except StoreFailed as exc:
        log.warning("guest.history_lost guest=%s error=%r", guest.name, str(exc))


async def _hear_out(running: Running) -> None:
    """Let the monitor deliver what QEMU said before its end, its reason above all (L8)."""
    monitor = running.monitor
    if monitor is None:
        return
    if not monitor.closed.done():
        await asyncio.wait([monitor.closed], timeout=DRAIN_S)
    monitor.close()


def _guess(running: Running) -> Ending:
    """Why a QEMU ended that nobody here had told to."""
    if running.powered_off:
        return SHUTDOWN
    return FAILED if running.incoming or not running.launched else DIED


def _clean_up(running: Running) -> None:
    try:
        running.cleanup.close()
    except Exception:
        # A boundary: whatever could not be taken back, the guest has ended and must be seen so.
        log.exception("guest.cleanup_failed dir=%s", running.run_dir)
    shutil.rmtree(running.run_dir, ignore_errors=True)
    if running.process is not None:
        running.process.close()


def _log_failure(done: asyncio.Future[None]) -> None:
    if not done.cancelled() and (exc := done.exception()) is not None:
        log.error("guest.stop_failed", exc_info=exc)
