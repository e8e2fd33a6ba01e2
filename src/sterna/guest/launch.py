"""Bringing a QEMU to life: from a definition to a process that answers on its monitor.

A QEMU is always started with its CPUs stopped (-S); whoever launched it lets them run. Capabilities
are never probed here, the monitor's socket is bound before QEMU exists so that nobody polls for it,
and the status record is on disk before the CPUs may run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sterna.config import DomainDef, assign_aliases, check_start, clone
from sterna.config.variants import strip_live
from sterna.errors import (
    ErrorDomain,
    InternalError,
    OperationInvalid,
    SternaError,
    SystemCallError,
)
from sterna.guest import audit, reattach, stop
from sterna.guest.agent import AGENT_CHANNEL
from sterna.guest.asking import Command, ask_all
from sterna.guest.events import AgentLifecycleEvent
from sterna.guest.monitor import DISCONNECTED, REASON_STARTED
from sterna.guest.pinning import pin
from sterna.guest.processor import read_back_processor
from sterna.guest.resources import Taken, read_back_ptys, take
from sterna.guest.running import FAILED, Running
from sterna.guest.states import PausedReason, State
from sterna.guest.surroundings import MONITOR_S
from sterna.guest.unbuilt import refuse_unbuilt
from sterna.guest.vcpus import plug_in_again
from sterna.qemu.process import User, last_words
from sterna.qemu.qmp_errors import MonitorGone

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

log = logging.getLogger("sterna.guest.launch")

_CHATTER: Final = "char device redirected to "
"""What QEMU says of every terminal it makes; no reason to die of."""

SHORT_NAME: Final = 20
"""Characters of the name in the run directory's: enough to know it, short enough for sun_path."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to launch.

    Attributes:
        definition: a completed one; it is copied.
        incoming: wait for a state that is loaded later (`-incoming defer`).
        migration: the one whose destination this is; only its Finish makes it a guest (L4).
        reset_nvram: begin with the firmware's own variables again.
    """

    definition: DomainDef
    incoming: bool = False
    migration: str | None = None
    reset_nvram: bool = False


async def launch(
    guest: Guest,
    plan: Plan,
    *,
    audit_reason: str,
    before_spawn: Callable[[], None] = lambda: None,
) -> Running:
    """Launch the guest's QEMU and return once it takes commands; its CPUs are stopped.

    `guest.running` is set from the first moment, so that a kill reaches even a launch that has
    not spawned anything yet; `before_spawn` is called then, to arm one. No event is raised; the
    state is paused(starting-up).

    Raises:
        SternaError: why it could not be started, with QEMU's own words (L8). Nothing is left.
    """
    surroundings = guest.surroundings
    if plan.migration is None:
        await surroundings.may_start(guest.uuid, guest.name)
    live = clone(plan.definition)
    id = surroundings.next_id()
    run_dir = surroundings.paths.run / f"{id}-{_short(guest.name)}"
    log_path = surroundings.paths.log / f"{guest.name}.log"
    running = Running(id, live, run_dir, log_path, started_at=time.time())
    running.migration, running.incoming = plan.migration, plan.migration is not None
    guest.running = running
    guest.state, guest.reason = State.PAUSED, PausedReason.STARTING_UP
    try:
        before_spawn()
        await _spawn(guest, running, plan)
        await _get_to_know(running)
        _refuse_if_ending(running)
        await guest.save_status()
    except BaseException as exc:
        await _undo(guest, running)
        audit.record(
            "start", audit_reason, name=guest.name, uuid=guest.uuid, pid=running.pid, success=False
        )
        if isinstance(exc, MonitorGone):
            raise _died(running) from exc
        if isinstance(exc, OSError):
            emulator = running.definition.devices.emulator
            raise SystemCallError(f"Cannot start {emulator}", errno=exc.errno or 0) from exc
        raise
    audit.record(
        "start", audit_reason, name=guest.name, uuid=guest.uuid, pid=running.pid, success=True
    )
    log.info("guest.launched guest=%s id=%d pid=%d", guest.name, id, running.pid)
    return running


async def _spawn(guest: Guest, running: Running, plan: Plan) -> None:
    surroundings = guest.surroundings
    live = running.definition
    arch = (live.os.arch if live.os is not None else None) or "x86_64"
    check_start(live, await surroundings.emulators.facts(live.devices.emulator, arch))
    refuse_unbuilt(live)
    _make_run_dir(running.run_dir, surroundings.settings.user)
    strip_live(live)
    assign_aliases(live)
    with contextlib.ExitStack() as ours:
        taken = Taken(close=ours)
        take(surroundings, running, taken, incoming=plan.incoming, reset_nvram=plan.reset_nvram)
        if running.ending is None:
            running.process = await surroundings.launcher.spawn(
                running, taken, incoming=plan.incoming
            )
            stop.watch(guest, running)
            # From here on a later daemon must find it, should this one die.
            guest.post_status()
    _refuse_if_ending(running)
    await reattach.connect(guest, running)


def _refuse_if_ending(running: Running) -> None:
    """Killed before it was born: its connection closed meanwhile. (I8)"""
    if running.ending is not None:
        raise OperationInvalid("domain is not running", domain=ErrorDomain.DOMAIN)


async def _get_to_know(running: Running) -> None:
    """Ask QEMU for what only it knows: terminals, vcpu threads. All at once, one round trip."""
    qemu, live = running.qemu, running.definition
    await plug_in_again(running)
    # QEMU then tells of every step of a migration by itself, so that nobody has to poll.
    events = {"capabilities": [{"capability": "events", "state": True}]}
    commands: list[Command] = [("migrate-set-capabilities", events)]
    commands += [(call.command, call.arguments) for call in running.setup]
    if live.on_reboot == "destroy":
        commands.append(("set-action", {"reboot": "shutdown"}))
    commands += [("query-chardev", None), ("query-cpus-fast", None)]
    *_, chardevs, cpus = await ask_all(qemu, commands, timeout_s=MONITOR_S)
    read_back_ptys(live, chardevs)
    # The balloon is flat until the guest's driver says otherwise: QEMU has all of the memory.
    live.current_memory = live.memory
    running.vcpu_threads = {c["cpu-index"]: c["thread-id"] for c in cpus}
    pin(running)
    await read_back_processor(running, cpus)
    running.definition_changed()


async def _undo(guest: Guest, running: Running) -> None:
    """Leave nothing of a launch that failed, and say why in the state."""
    running.end_with(FAILED)
    if running.process is not None:
        running.kill(signal.SIGKILL)
        await running.stopped.wait()
        return
    await stop.finish(guest, running)


def _died(running: Running) -> SternaError:
    """Why a QEMU did not come to life: its own words, else how it ended (L8)."""
    said = last_words(running.log_path, running.log_from).splitlines()
    words = "\n".join(line for line in said if not line.startswith(_CHATTER))
    if not words and running.process is not None and running.process.exit is not None:
        words = f"it {running.process.exit}"
    return InternalError(f"process exited while connecting to monitor: {words}".rstrip(": "))


async def gave_up(guest: Guest, running: Running, why: BaseException) -> BaseException:
    """End a QEMU that came to life but never became a guest; returns the error to raise."""
    await _undo(guest, running)
    return _died(running) if isinstance(why, MonitorGone) else why


def announce_agent(guest: Guest, running: Running) -> None:
    """Tell that the guest agent's channel starts unconnected, as libvirt 9.0 does (observed)."""
    for channel in running.definition.devices.channels:
        if channel.target_name == AGENT_CHANNEL:
            channel.target_state = "disconnected"
            guest.emit(AgentLifecycleEvent(guest.ref, DISCONNECTED, REASON_STARTED))


def _short(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:SHORT_NAME]


def _make_run_dir(path: Path, user: User | None) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if user is not None:
        os.chown(path, user.uid, user.gid)
