"""Getting hold of a living QEMU's monitor again: after the daemon's restart, or a lost connection.

QEMU's monitor socket takes the next connection as soon as the last one is closed, so a lost one
costs nothing but a moment; a guest that can't be reached stays listed and can still be destroyed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from sterna.errors import SternaError
from sterna.guest import monitor, power, stop
from sterna.guest.asking import ask_all
from sterna.guest.ports import Monitor
from sterna.guest.resources import read_back_ptys
from sterna.guest.running import FAILED, Running
from sterna.guest.states import PausedReason, RunningReason, ShutdownReason, State
from sterna.guest.surroundings import MONITOR_S

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

log = logging.getLogger("sterna.guest.reattach")

RETRY_S: Final = 5.0
GONE_S: Final = 2.0
"""A monitor closes because its QEMU ends: so long we wait to hear of that."""


async def connect(guest: Guest, running: Running) -> None:
    """Connect to a life's monitor, listen to it, and see to it that it stays so.

    Raises: SternaError if QEMU does not answer.
    """
    qemu = running.monitor = await guest.surroundings.launcher.connect(running)
    monitor.attach(guest, running)
    qemu.closed.add_done_callback(lambda _reason: _lost(guest, running, qemu))


def _lost(guest: Guest, running: Running, qemu: Monitor) -> None:
    if running.monitor is not qemu:
        return  # given up here, and somebody is after the next one
    if guest.running is running and running.ending is None and not running.let_gone:
        guest.surroundings.work.start(_again(guest, running))


async def _again(guest: Guest, running: Running) -> None:
    try:
        async with asyncio.timeout(GONE_S):
            await running.stopped.wait()
        return
    except TimeoutError:
        log.warning("guest.monitor_lost guest=%s pid=%d", guest.name, running.pid)
    await take_up(guest, running)


async def take_up(guest: Guest, running: Running) -> None:
    """Get hold of its monitor and correct the state, however long its QEMU is silent.

    Nothing is killed for our not reaching it: a QEMU may have been stopped, or wait for a disk.
    """
    while not running.stopped.is_set() and not running.let_gone:
        try:
            await connect(guest, running)
            await ask(guest, running)
        except SternaError as exc:
            if running.monitor is not None and running.ending is None:
                # QEMU serves one client at a time: the next attempt must not wait for this one.
                given_up, running.monitor = running.monitor, None
                given_up.close("no answer")
            log.error("guest.unmanaged guest=%s pid=%d error=%r", guest.name, running.pid, str(exc))
        else:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await running.stopped.wait()


async def ask(guest: Guest, running: Running) -> None:
    """Correct the state by what QEMU says: it went on while nobody listened.

    Raises: SternaError.
    """
    questions = [("query-status", None), ("query-chardev", None), ("query-cpus-fast", None)]
    status, chardevs, cpus = await ask_all(running.qemu, questions, timeout_s=MONITOR_S)
    read_back_ptys(running.definition, chardevs)
    running.vcpu_threads = {c["cpu-index"]: c["thread-id"] for c in cpus}
    running.definition_changed()
    if status["status"] == "shutdown":
        running.powered_off = True
        guest.set_state(State.SHUTDOWN, ShutdownReason.UNKNOWN)
        monitor.after_power_off(guest, running, power.on_poweroff(running))
    elif status["running"] and guest.state is not State.RUNNING:
        guest.set_state(State.RUNNING, RunningReason.UNPAUSED)
    elif not status["running"] and guest.state is State.RUNNING:
        guest.set_state(State.PAUSED, _PAUSED.get(status["status"], PausedReason.UNKNOWN))
    if not running.launched and not running.incoming:
        # The daemon died inside a start, before the guest was let run: nobody waits for it.
        await stop.stop(guest, running, FAILED, grace_s=0)


_PAUSED: Final = {
    "io-error": PausedReason.IOERROR,
    "watchdog": PausedReason.WATCHDOG,
    "postmigrate": PausedReason.MIGRATION,
    "save-vm": PausedReason.SAVE,
    "paused": PausedReason.USER,
}
