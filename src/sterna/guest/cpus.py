"""Letting a guest's CPUs run and stopping them, with the reason the state shall carry.

QEMU says what truly happened by its RESUME and STOP events, which arrive before the command's
answer; who asked leaves word of why, and the monitor's handler uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sterna.errors import OperationInvalid
from sterna.guest.states import PausedReason, Resumed, RunningReason, State, Suspended
from sterna.guest.surroundings import MONITOR_S

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

RESUMED_FOR: Final = {
    RunningReason.MIGRATED: Resumed.MIGRATED,
    RunningReason.MIGRATION_CANCELED: Resumed.MIGRATED,
    RunningReason.FROM_SNAPSHOT: Resumed.FROM_SNAPSHOT,
    # Observed with libvirt 9.0: a restored guest that goes on says "from snapshot".
    RunningReason.RESTORED: Resumed.FROM_SNAPSHOT,
    RunningReason.POSTCOPY: Resumed.POSTCOPY,
    RunningReason.POSTCOPY_FAILED: Resumed.POSTCOPY_FAILED,
}
"""What the RESUMED event says for a reason; the others say "unpaused"."""

SUSPENDED_FOR: Final = {
    PausedReason.MIGRATION: Suspended.MIGRATED,
    PausedReason.IOERROR: Suspended.IOERROR,
    PausedReason.WATCHDOG: Suspended.WATCHDOG,
    PausedReason.FROM_SNAPSHOT: Suspended.FROM_SNAPSHOT,
    PausedReason.API_ERROR: Suspended.API_ERROR,
    PausedReason.POSTCOPY: Suspended.POSTCOPY,
    PausedReason.POSTCOPY_FAILED: Suspended.POSTCOPY_FAILED,
}
"""What the SUSPENDED event says for a reason; the others say "paused"."""


async def resume_cpus(guest: Guest, reason: RunningReason, *, timeout_s: float = MONITOR_S) -> None:
    """Let the CPUs run. Afterwards the state is running for `reason`.

    Raises: OperationInvalid if there is no QEMU, or its guest has been sent elsewhere; QmpError,
    MonitorGone, MonitorTimeout.
    """
    running = guest.live_or_refuse()
    if running.sent and reason is not RunningReason.MIGRATION_CANCELED:
        # A reboot, or what follows a crash, comes from events and asks nobody. QEMU refuses `cont`
        # while it sends the last of a guest, but not afterwards. (L1)
        raise OperationInvalid(f"domain '{guest.name}' was sent to another host")
    running.expected_resume = (reason, RESUMED_FOR.get(reason, Resumed.UNPAUSED))
    try:
        await running.qemu.execute("cont", timeout_s=timeout_s)
    finally:
        running.expected_resume = None
    if guest.running is running and guest.state is not State.RUNNING:
        # QEMU says nothing when they ran already.
        guest.set_running(reason, RESUMED_FOR.get(reason, Resumed.UNPAUSED))


async def pause_cpus(guest: Guest, reason: PausedReason, *, timeout_s: float = MONITOR_S) -> None:
    """Stop the CPUs. Afterwards the state is paused for `reason`.

    Raises: as `resume_cpus`.
    """
    running = guest.live_or_refuse()
    running.expected_stop = (reason, SUSPENDED_FOR.get(reason, Suspended.PAUSED))
    try:
        await running.qemu.execute("stop", timeout_s=timeout_s)
    finally:
        running.expected_stop = None
    if guest.running is running and guest.state is State.RUNNING:
        guest.set_paused(reason, SUSPENDED_FOR.get(reason, Suspended.PAUSED))
