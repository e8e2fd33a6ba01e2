"""Power as a person sees it: off, on again, reset; and what on_poweroff and on_crash ask for.

QEMU is started with -no-shutdown, so that a guest that powers off leaves us the word on what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from enum import Enum, IntFlag
from typing import TYPE_CHECKING, Final

from sterna.errors import BadArgument, ErrorDomain, OperationInvalid
from sterna.guest import stop
from sterna.guest.agent import agent_refusal
from sterna.guest.cpus import resume_cpus
from sterna.guest.jobs import Call
from sterna.guest.running import DESTROYED, PANICKED, SHUTDOWN, Running
from sterna.guest.states import PausedReason, RunningReason, State
from sterna.guest.surroundings import MONITOR_S

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

log = logging.getLogger("sterna.guest.power")

DECISION_S: Final = 2.0
"""How long a destroy waits for a migration's owner to write its decision."""


class Action(Enum):
    """What follows when a guest powers off or crashes."""

    DESTROY = "destroy"
    RESTART = "restart"
    PRESERVE = "preserve"


class ShutdownMode(IntFlag):
    """How a guest is asked to shut down or reboot."""

    DEFAULT = 0
    ACPI = 1
    AGENT = 2
    INITCTL = 4
    SIGNAL = 8
    PARAVIRT = 16


_ACTIONS = {
    "restart": Action.RESTART,
    "rename-restart": Action.RESTART,
    "coredump-restart": Action.RESTART,
    "preserve": Action.PRESERVE,
}


def on_poweroff(running: Running) -> Action:
    """What follows a power-off: what the definition says, or a reboot that was asked for."""
    if running.reboot_on_shutdown:
        return Action.RESTART
    return _ACTIONS.get(running.definition.on_poweroff or "destroy", Action.DESTROY)


async def stop_powered_off(guest: Guest, running: Running) -> None:
    """End the QEMU of a guest that has powered off."""
    grace_s = guest.surroundings.settings.stop_grace_s
    await stop.stop(guest, running, SHUTDOWN, grace_s=grace_s)


async def carry_out_crash(guest: Guest, running: Running) -> None:
    """Do what on_crash asks for after a panic."""
    action = _ACTIONS.get(running.definition.on_crash or "destroy", Action.DESTROY)
    if action is Action.DESTROY:
        grace_s = guest.surroundings.settings.stop_grace_s
        await stop.stop(guest, running, PANICKED, grace_s=grace_s)
    elif action is Action.RESTART:
        await start_again(guest, running)


async def start_again(guest: Guest, running: Running) -> None:
    """Boot the machine anew in the same QEMU, as a reset button does."""
    running.reboot_on_shutdown = False
    reason = RunningReason.CRASHED if guest.state is State.CRASHED else RunningReason.BOOTED
    await running.qemu.execute("system_reset", timeout_s=MONITOR_S)
    await resume_cpus(guest, reason)
    running.powered_off = False


# -- what a client asks for -------------------------------------------------------------------


async def suspend(
    guest: Guest,
    api: str = "remoteDispatchDomainSuspend",
    *,
    reason: PausedReason = PausedReason.USER,
) -> None:
    """Stop the CPUs; nothing if they stand already.

    Raises: OperationInvalid (55): not running, or powered down inside.
    """

    async def work() -> None:
        guest.live_or_refuse()
        if guest.state is State.PMSUSPENDED:
            raise OperationInvalid("domain is pmsuspended")
        if guest.state is not State.PAUSED:
            await guest.pause_cpus(reason)

    guest.live_or_refuse()
    await guest.do(Call.SUSPEND, api, work)


async def resume(guest: Guest, api: str = "remoteDispatchDomainResume") -> None:
    """Let the CPUs run.

    Raises: OperationInvalid (55): not running, already running, or suspended by the guest itself.
    """

    async def work() -> None:
        guest.live_or_refuse()
        if guest.state is State.RUNNING:
            raise OperationInvalid("domain is already running")
        if guest.state is State.PMSUSPENDED:
            raise OperationInvalid("domain is pmsuspended")
        await guest.resume_cpus(RunningReason.UNPAUSED)

    guest.live_or_refuse()
    await guest.do(Call.MODIFY, api, work)


async def shutdown(
    guest: Guest,
    mode: ShutdownMode = ShutdownMode.DEFAULT,
    api: str = "remoteDispatchDomainShutdownFlags",
) -> None:
    """Press the power button. The guest decides what that means, and when.

    Raises: OperationInvalid (55), AgentUnresponsive (86).
    """
    await _press(guest, mode, api, reboot=False)


async def reboot(
    guest: Guest,
    mode: ShutdownMode = ShutdownMode.DEFAULT,
    api: str = "remoteDispatchDomainReboot",
) -> None:
    """Press the power button and start again when the guest has powered off.

    Raises: as `shutdown`.
    """
    await _press(guest, mode, api, reboot=True)


async def _press(guest: Guest, mode: ShutdownMode, api: str, *, reboot: bool) -> None:
    name = "qemuDomainReboot" if reboot else "qemuDomainShutdownFlags"
    unknown = mode & ~(ShutdownMode.ACPI | ShutdownMode.AGENT)
    if unknown:
        raise BadArgument(f"unsupported flags (0x{int(unknown):x}) in function {name}")

    async def work() -> None:
        running = guest.live_or_refuse()
        if mode is ShutdownMode.AGENT:
            raise agent_refusal(running.definition, running=guest.state is State.RUNNING)
        if guest.state is not State.RUNNING and not reboot:
            # Nobody would see the button; libvirt refuses the same (observed).
            raise OperationInvalid("domain is not running")
        running.reboot_on_shutdown = reboot
        guest.post_status()
        await running.qemu.execute("system_powerdown", timeout_s=MONITOR_S)

    guest.live_or_refuse()
    await guest.do(Call.MODIFY, api, work)


async def reset(guest: Guest, api: str = "remoteDispatchDomainReset") -> None:
    """The reset button: at once, without asking the guest."""

    async def work() -> None:
        running = guest.live_or_refuse()
        await running.qemu.execute("system_reset", timeout_s=MONITOR_S)
        # Whatever it was asked for before, it begins anew.
        running.reboot_on_shutdown = False

    guest.live_or_refuse()
    await guest.do(Call.MODIFY, api, work)


async def wake_up(guest: Guest, api: str = "remoteDispatchDomainPMWakeup") -> None:
    """Wake a guest that has suspended itself to memory. Raises: QmpError if it has not."""

    async def work() -> None:
        await guest.live_or_refuse().qemu.execute("system_wakeup", timeout_s=MONITOR_S)

    guest.live_or_refuse()
    await guest.do(Call.MODIFY, api, work)


async def inject_nmi(guest: Guest, api: str = "remoteDispatchDomainInjectNMI") -> None:
    """Interrupt the guest's CPUs as no software can ignore."""

    async def work() -> None:
        await guest.live_or_refuse().qemu.execute("inject-nmi", timeout_s=MONITOR_S)

    guest.live_or_refuse()
    await guest.do(Call.MODIFY, api, work)


async def destroy(
    guest: Guest, *, graceful: bool = False, api: str = "remoteDispatchDomainDestroyFlags"
) -> None:
    """Pull the plug. Beside any job: its holder finds the guest gone (L7).

    `graceful` never kills: it gives up if QEMU doesn't end by itself.

    Raises:
        OperationInvalid (55): it is not running.
        ResourceBusy (87): QEMU would not go.
    """
    running = guest.running
    if running is None:
        raise OperationInvalid("domain is not running", domain=ErrorDomain.DOMAIN)
    registration = guest.surroundings.autokill.find(guest.uuid)
    if registration is not None and registration.incoming:
        # Its owner's decision comes first, then the owner kills it (L4). Should the owner hang,
        # the kill below comes without: a migration nobody decided counts as aborted.
        registration.callback()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DECISION_S):
                await running.stopped.wait()
    if running.stopped.is_set():
        return
    grace_s = guest.surroundings.settings.stop_grace_s
    ending = stop.stop(guest, running, DESTROYED, grace_s=grace_s, force=not graceful)
    await guest.surroundings.work.do(ending)
