"""What QEMU says by itself, turned into the guest's state and events.

Runs inside the monitor's reader: short, and anything that must wait is handed to `Work`. Events
and their fields are those of QEMU's QMP reference (7.2).
"""

from __future__ import annotations

import contextvars
import json
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from sterna.guest import events as e
from sterna.guest import power
from sterna.guest.agent import AGENT_CHANNEL
from sterna.guest.definitions import channel_by_alias, disk_by_event
from sterna.guest.jobs import Operation
from sterna.guest.states import (
    Crashed,
    CrashedReason,
    Lifecycle,
    PausedReason,
    PmSuspended,
    PmSuspendedReason,
    Resumed,
    RunningReason,
    ShutDown,
    ShutdownReason,
    Started,
    State,
    Stopped,
    Suspended,
)
from sterna.qemu.qmp_session import Event

if TYPE_CHECKING:
    from sterna.guest.actor import Guest
    from sterna.guest.running import Running

log = logging.getLogger("sterna.guest.monitor")

Handler = Callable[["Guest", "Running", dict[str, Any]], None]


def attach(guest: Guest, running: Running) -> None:
    """Listen to this life's monitor from now on."""
    if running.monitor is None:
        raise RuntimeError("no monitor to listen to")

    def heard(event: Event) -> None:
        if guest.running is not running:
            return
        handler = _HANDLERS.get(event.name)
        if handler is not None:
            handler(guest, running, event.data)
        details = json.dumps(event.data) if event.data else None
        seconds, micros = divmod(event.at_us, 1_000_000)
        guest.emit(e.MonitorEvent(guest.ref, event.name, seconds, micros, details))

    # In a context of their own: log lines must not name the client who happened to start it.
    running.monitor.subscribe(lambda event: contextvars.Context().run(heard, event))


def _stop(guest: Guest, running: Running, _data: dict[str, Any]) -> None:
    if guest.state is not State.RUNNING or running.powered_off:
        return  # told already; or it is about to start again, and a person sees no pause
    if running.expected_stop is not None:
        reason, detail = running.expected_stop
        running.expected_stop = None
    elif guest.job is not None and guest.job.operation is Operation.MIGRATION_OUT:
        reason, detail = PausedReason.MIGRATION, Suspended.MIGRATED
    else:
        reason, detail = PausedReason.UNKNOWN, Suspended.PAUSED
    guest.set_paused(reason, detail)


def _resume(guest: Guest, running: Running, _data: dict[str, Any]) -> None:
    if guest.state is State.RUNNING:
        return
    if running.expected_resume is not None:
        reason, detail = running.expected_resume
        running.expected_resume = None
    elif guest.job is not None and guest.job.operation is Operation.MIGRATION_OUT:
        # QEMU starts the guest again by itself when its migration fails or is cancelled.
        reason, detail = RunningReason.MIGRATION_CANCELED, Resumed.MIGRATED
    else:
        reason, detail = RunningReason.UNPAUSED, Resumed.UNPAUSED
    guest.set_running(reason, detail)


def _shutdown(guest: Guest, running: Running, data: dict[str, Any]) -> None:
    """The guest powered off (QEMU waits, -no-shutdown), or QEMU was told to end."""
    if guest.state is State.CRASHED:
        return  # the panic was told already, and its own action follows
    running.powered_off = True
    if data.get("reason") == "host-signal" or running.ending is not None:
        # QEMU is on its way out; the rest follows its end. One that was saved or has moved away
        # was not shut down, and libvirt 9.0 doesn't say so either (observed).
        if running.ending is None or running.ending.event is Stopped.DESTROYED:
            guest.emit_lifecycle(Lifecycle.SHUTDOWN, ShutDown.HOST)
        return
    action = power.on_poweroff(running)
    if data.get("reason") in ("guest-reset", "host-qmp-system-reset"):
        # on_reboot=destroy: QEMU was started so that a reset ends it.
        action = power.Action.DESTROY
    elif data.get("reason") == "host-qmp-quit":
        action = power.Action.DESTROY
    if action is power.Action.DESTROY:
        guest.set_state(State.SHUTDOWN, ShutdownReason.USER)
        asked = ShutDown.GUEST if data.get("guest") else ShutDown.HOST
        guest.emit_lifecycle(Lifecycle.SHUTDOWN, asked)
    after_power_off(guest, running, action)


def after_power_off(guest: Guest, running: Running, action: power.Action) -> None:
    """Do what shall follow now that the guest has powered off and its QEMU waits."""
    if action is power.Action.RESTART:
        _in_work(guest, power.start_again(guest, running))
    else:
        _in_work(guest, power.stop_powered_off(guest, running))


def _reset(guest: Guest, _running: Running, _data: dict[str, Any]) -> None:
    guest.emit(e.RebootEvent(guest.ref))


def _panicked(guest: Guest, running: Running, data: dict[str, Any]) -> None:
    if guest.state is State.CRASHED or data.get("action") == "run":
        return
    if guest.state is State.RUNNING:
        # Its CPUs stop with it. Clients of libvirt 9.0 hear of that first (observed).
        guest.emit_lifecycle(Lifecycle.SUSPENDED, Suspended.PAUSED)
    guest.set_state(State.CRASHED, CrashedReason.PANICKED)
    guest.emit_lifecycle(Lifecycle.CRASHED, Crashed.PANICKED)
    _in_work(guest, power.carry_out_crash(guest, running))


def _crashloaded(guest: Guest, _running: Running, _data: dict[str, Any]) -> None:
    guest.emit_lifecycle(Lifecycle.CRASHED, Crashed.CRASHLOADED)


_WATCHDOG_ACTIONS = {
    "none": 0,
    "pause": 1,
    "reset": 2,
    "poweroff": 3,
    "shutdown": 4,
    "debug": 5,
    "inject-nmi": 6,
}
_IO_ACTIONS = {"ignore": 0, "stop": 1, "report": 2}


def _watchdog(guest: Guest, running: Running, data: dict[str, Any]) -> None:
    action = _WATCHDOG_ACTIONS.get(data.get("action", ""), 0)
    if data.get("action") == "pause":
        running.expected_stop = (PausedReason.WATCHDOG, Suspended.WATCHDOG)
    guest.emit(e.WatchdogEvent(guest.ref, action))


def _io_error(guest: Guest, running: Running, data: dict[str, Any]) -> None:
    disk = disk_by_event(running.definition, data)
    path, alias = disk if disk is not None else ("", data.get("device", ""))
    reason = ""
    if data.get("action") == "stop":
        running.expected_stop = (PausedReason.IOERROR, Suspended.IOERROR)
        # The text libvirt 9.0 sends; only "enospc" has a word of its own.
        reason = "enospc" if data.get("nospace") else ""
    action = _IO_ACTIONS.get(data.get("action", ""), 0)
    guest.emit(e.IoErrorEvent(guest.ref, path, alias, action, reason))


def _rtc_change(guest: Guest, _running: Running, data: dict[str, Any]) -> None:
    guest.emit(e.RtcChangeEvent(guest.ref, int(data.get("offset", 0))))


def _balloon(guest: Guest, running: Running, data: dict[str, Any]) -> None:
    actual_kib = int(data.get("actual", 0)) // 1024
    running.definition.current_memory = actual_kib
    running.definition_changed()
    guest.emit(e.BalloonChangeEvent(guest.ref, actual_kib))


def _tray(guest: Guest, running: Running, data: dict[str, Any]) -> None:
    disk = disk_by_event(running.definition, data)
    alias = disk[1] if disk is not None else data.get("device", "")
    guest.emit(e.TrayChangeEvent(guest.ref, alias, 0 if data.get("tray-open") else 1))


def _device_deleted(guest: Guest, _running: Running, data: dict[str, Any]) -> None:
    if data.get("device"):
        guest.emit(e.DeviceRemovedEvent(guest.ref, data["device"]))


def _suspended(guest: Guest, _running: Running, _data: dict[str, Any]) -> None:
    if guest.state is State.RUNNING:
        guest.set_state(State.PMSUSPENDED, PmSuspendedReason.UNKNOWN)
        guest.emit_lifecycle(Lifecycle.PMSUSPENDED, PmSuspended.MEMORY)
    guest.emit(e.PmSuspendEvent(guest.ref))


def _suspended_to_disk(guest: Guest, _running: Running, _data: dict[str, Any]) -> None:
    guest.emit_lifecycle(Lifecycle.PMSUSPENDED, PmSuspended.DISK)
    guest.emit(e.PmSuspendDiskEvent(guest.ref))


def _woke_up(guest: Guest, _running: Running, _data: dict[str, Any]) -> None:
    if guest.state is State.PMSUSPENDED:
        guest.set_state(State.RUNNING, RunningReason.WAKEUP)
        guest.emit_lifecycle(Lifecycle.STARTED, Started.WAKEUP)
    guest.emit(e.PmWakeupEvent(guest.ref))


def _migration_pass(guest: Guest, _running: Running, data: dict[str, Any]) -> None:
    guest.emit(e.MigrationIterationEvent(guest.ref, int(data.get("pass", 0))))


CONNECTED, DISCONNECTED = 1, 2
REASON_STARTED, REASON_CHANNEL = 1, 2


def _port_change(guest: Guest, running: Running, data: dict[str, Any]) -> None:
    channel = channel_by_alias(running.definition, data.get("id", ""))
    if channel is None:
        return
    connected = bool(data.get("open"))
    word = "connected" if connected else "disconnected"
    if channel.target_state == word:
        return
    channel.target_state = word
    running.definition_changed()
    if channel.target_name == AGENT_CHANNEL:
        state = CONNECTED if connected else DISCONNECTED
        guest.emit(e.AgentLifecycleEvent(guest.ref, state, REASON_CHANNEL))


_RECIPIENTS = {"hypervisor": 0, "guest": 1}
_FAILURE_ACTIONS = {"ignore": 0, "inject": 1, "fatal": 2, "reset": 3}


def _memory_failure(guest: Guest, _running: Running, data: dict[str, Any]) -> None:
    flags = data.get("flags") or {}
    bits = (1 if flags.get("action-required") else 0) | (2 if flags.get("recursive") else 0)
    recipient = _RECIPIENTS.get(data.get("recipient", ""), 0)
    action = _FAILURE_ACTIONS.get(data.get("action", ""), 0)
    guest.emit(e.MemoryFailureEvent(guest.ref, recipient, action, bits))


_FAMILIES = {"ipv4": 0, "ipv6": 1, "unix": 2}


def _graphics(phase: int) -> Handler:
    def handler(guest: Guest, _running: Running, data: dict[str, Any]) -> None:
        server, client = data.get("server") or {}, data.get("client") or {}
        names = (("x509dname", "x509_dname"), ("saslUsername", "sasl_username"))
        subject = tuple((word, client[key]) for word, key in names if client.get(key))
        guest.emit(
            e.GraphicsEvent(
                guest.ref,
                phase,
                _address(server),
                _address(client),
                server.get("auth", ""),
                subject,
            )
        )

    return handler


def _address(data: dict[str, Any]) -> e.GraphicsAddress:
    family = _FAMILIES.get(data.get("family", ""), 0)
    return e.GraphicsAddress(family, data.get("host", ""), data.get("service", ""))


def _in_work(guest: Guest, work: Coroutine[Any, Any, None]) -> None:
    def report(failure: BaseException | None) -> None:
        if failure is not None:
            log.error("guest.reaction_failed guest=%s error=%r", guest.name, str(failure))

    done = guest.surroundings.work.start(work)
    done.add_done_callback(lambda f: None if f.cancelled() else report(f.exception()))


_HANDLERS: dict[str, Handler] = {
    "STOP": _stop,
    "RESUME": _resume,
    "SHUTDOWN": _shutdown,
    "RESET": _reset,
    "GUEST_PANICKED": _panicked,
    "GUEST_CRASHLOADED": _crashloaded,
    "WATCHDOG": _watchdog,
    "BLOCK_IO_ERROR": _io_error,
    "RTC_CHANGE": _rtc_change,
    "BALLOON_CHANGE": _balloon,
    "DEVICE_TRAY_MOVED": _tray,
    "DEVICE_DELETED": _device_deleted,
    "SUSPEND": _suspended,
    "SUSPEND_DISK": _suspended_to_disk,
    "WAKEUP": _woke_up,
    "MIGRATION_PASS": _migration_pass,
    "VSERPORT_CHANGE": _port_change,
    "MEMORY_FAILURE": _memory_failure,
    "VNC_CONNECTED": _graphics(0),
    "VNC_INITIALIZED": _graphics(1),
    "VNC_DISCONNECTED": _graphics(2),
}
