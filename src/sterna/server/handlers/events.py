"""Events: the three ways to ask for them, and how each becomes messages.

A client registers the oldest way (lifecycle only), by event number, or by event number and guest
with a callback id. One listener per session is on the bus while it has any registration.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sterna.errors import ErrorDomain, InternalError, InvalidArg
from sterna.guest import events as ev
from sterna.rpc.calls import Procedure, procedure
from sterna.rpc.msg_common import Dom, GraphicsAddress, GraphicsIdentity
from sterna.rpc.msg_event import (
    ConnectDomainEventCallbackDeregisterAnyArgs,
    ConnectDomainEventCallbackRegisterAnyArgs,
    ConnectDomainEventCallbackRegisterAnyRet,
    ConnectDomainEventDeregisterAnyArgs,
    ConnectDomainEventDeregisterRet,
    ConnectDomainEventRegisterAnyArgs,
    ConnectDomainEventRegisterRet,
)
from sterna.rpc.msg_qemu import (
    ConnectDomainMonitorEventDeregisterArgs,
    ConnectDomainMonitorEventRegisterArgs,
    ConnectDomainMonitorEventRegisterRet,
    DomainMonitorEventMsg,
)
from sterna.rpc.typed_params import ParamType, encode_params, type_for
from sterna.server.dispatch import check_flags, handles
from sterna.server.session import Session
from sterna.server.wire_values import encode_job

EVENT_NUMBERS = 27
"""Domain events 0 to 26, as libvirt 9.0 has them."""
LEGACY_EVENT_NUMBERS = 16
"""What can be asked for without a callback id."""
PATTERN_CHARS_MAX = 128
PATTERN_REPEATS_MAX = 3

MONITOR_REGEX = 1
MONITOR_IGNORE_CASE = 2


@dataclass(frozen=True, slots=True)
class Registration:
    """A callback id's meaning: which event, of which guest (None: of all)."""

    number: int
    uuid: bytes | None


@dataclass(frozen=True, slots=True)
class MonitorRegistration:
    """The same for QEMU's own events; `wanted` says which names."""

    uuid: bytes | None
    wanted: Callable[[str], object]


class Form:
    """One message an event is sent as.

    Args:
        number: event number it is registered by.
        legacy: its procedure without callback id, if it has one.
        callback: its procedure with callback id.
        values: what follows the domain.
        reason_first: the reason stands before the domain, and is missing in the legacy form.
    """

    def __init__(
        self,
        number: int,
        legacy: str | None,
        callback: str,
        values: Callable[[Any], tuple[Any, ...]],
        *,
        reason_first: bool = False,
    ) -> None:
        self.number = number
        self.values = values
        self.reason_first = reason_first
        self.legacy: Procedure | None = procedure(f"DOMAIN_EVENT_{legacy}") if legacy else None
        self.callback: Procedure = procedure(f"DOMAIN_EVENT_{callback}")

    def message(self, callback_id: int, event: ev.GuestEvent) -> Any:
        kind: Any = self.callback.args
        values = self.values(event)
        dom = encode_ref(event.guest)
        if self.reason_first:
            return kind(callback_id, *values, dom)
        return kind(callback_id, dom, *values)

    def legacy_message(self, event: ev.GuestEvent) -> Any:
        kind: Any = self.legacy.args if self.legacy else None
        values = () if self.reason_first else self.values(event)
        return kind(encode_ref(event.guest), *values)


def encode_ref(guest: ev.GuestRef) -> Dom:
    """The guest as it was when the event happened."""
    return Dom(guest.name, guest.uuid.bytes, guest.id)


def _graphics(e: ev.GraphicsEvent) -> tuple[Any, ...]:
    return (
        e.phase,
        GraphicsAddress(e.local.family, e.local.node, e.local.service),
        GraphicsAddress(e.remote.family, e.remote.node, e.remote.service),
        e.auth_scheme,
        [GraphicsIdentity(kind, name) for kind, name in e.subject],
    )


FORMS: dict[type[ev.GuestEvent], tuple[Form, ...]] = {
    ev.LifecycleEvent: (
        Form(0, "LIFECYCLE", "CALLBACK_LIFECYCLE", lambda e: (int(e.event), int(e.detail))),
    ),
    ev.RebootEvent: (Form(1, "REBOOT", "CALLBACK_REBOOT", lambda e: ()),),
    ev.RtcChangeEvent: (Form(2, "RTC_CHANGE", "CALLBACK_RTC_CHANGE", lambda e: (e.offset_s,)),),
    ev.WatchdogEvent: (Form(3, "WATCHDOG", "CALLBACK_WATCHDOG", lambda e: (e.action,)),),
    ev.IoErrorEvent: (
        Form(
            4,
            "IO_ERROR",
            "CALLBACK_IO_ERROR",
            lambda e: (e.source_path, e.device, e.action),
        ),
        Form(
            6,
            "IO_ERROR_REASON",
            "CALLBACK_IO_ERROR_REASON",
            lambda e: (e.source_path, e.device, e.action, e.reason),
        ),
    ),
    ev.GraphicsEvent: (Form(5, "GRAPHICS", "CALLBACK_GRAPHICS", _graphics),),
    ev.BlockJobEvent: (
        Form(8, "BLOCK_JOB", "CALLBACK_BLOCK_JOB", lambda e: (e.path, e.type, e.status)),
        Form(16, None, "BLOCK_JOB_2", lambda e: (e.target, e.type, e.status)),
    ),
    ev.DiskChangeEvent: (
        Form(
            9,
            "DISK_CHANGE",
            "CALLBACK_DISK_CHANGE",
            lambda e: (e.old_source, e.new_source, e.device, e.reason),
        ),
    ),
    ev.TrayChangeEvent: (
        Form(10, "TRAY_CHANGE", "CALLBACK_TRAY_CHANGE", lambda e: (e.device, e.reason)),
    ),
    ev.PmWakeupEvent: (
        Form(11, "PMWAKEUP", "CALLBACK_PMWAKEUP", lambda e: (e.reason,), reason_first=True),
    ),
    ev.PmSuspendEvent: (
        Form(12, "PMSUSPEND", "CALLBACK_PMSUSPEND", lambda e: (e.reason,), reason_first=True),
    ),
    ev.BalloonChangeEvent: (
        Form(13, "BALLOON_CHANGE", "CALLBACK_BALLOON_CHANGE", lambda e: (e.actual_kib,)),
    ),
    ev.PmSuspendDiskEvent: (
        Form(
            14,
            "PMSUSPEND_DISK",
            "CALLBACK_PMSUSPEND_DISK",
            lambda e: (e.reason,),
            reason_first=True,
        ),
    ),
    ev.DeviceRemovedEvent: (
        Form(15, "DEVICE_REMOVED", "CALLBACK_DEVICE_REMOVED", lambda e: (e.device,)),
    ),
    ev.TunableEvent: (Form(17, None, "CALLBACK_TUNABLE", lambda e: (encode_tunable(e),)),),
    ev.AgentLifecycleEvent: (
        Form(18, None, "CALLBACK_AGENT_LIFECYCLE", lambda e: (e.state, e.reason)),
    ),
    ev.DeviceAddedEvent: (Form(19, None, "CALLBACK_DEVICE_ADDED", lambda e: (e.device,)),),
    ev.MigrationIterationEvent: (
        Form(20, None, "CALLBACK_MIGRATION_ITERATION", lambda e: (e.iteration,)),
    ),
    ev.JobCompletedEvent: (
        Form(21, None, "CALLBACK_JOB_COMPLETED", lambda e: (encode_job(e.stats),)),
    ),
    ev.DeviceRemovalFailedEvent: (
        Form(22, None, "CALLBACK_DEVICE_REMOVAL_FAILED", lambda e: (e.device,)),
    ),
    ev.MetadataChangeEvent: (
        Form(23, None, "CALLBACK_METADATA_CHANGE", lambda e: (e.type, e.namespace)),
    ),
    ev.BlockThresholdEvent: (
        Form(24, None, "BLOCK_THRESHOLD", lambda e: (e.device, e.path, e.threshold, e.excess)),
    ),
    ev.MemoryFailureEvent: (
        Form(25, None, "MEMORY_FAILURE", lambda e: (e.recipient, e.action, e.flags)),
    ),
    ev.MemoryDeviceSizeChangeEvent: (
        Form(26, None, "MEMORY_DEVICE_SIZE_CHANGE", lambda e: (e.device, e.size_bytes)),
    ),
}


def encode_tunable(event: ev.TunableEvent) -> list[Any]:
    return encode_params(
        (name, value, ParamType.ULLONG if type(value) is int else type_for(value))
        for name, value in event.params
    )


def tell(session: Session, event: ev.GuestEvent) -> None:
    """Send one event to one client, once for each registration it matches."""
    if isinstance(event, ev.MonitorEvent):
        tell_monitor(session, event)
        return
    for form in FORMS.get(type(event), ()):
        if form.legacy is not None and form.number in session.legacy:
            session.connection.send_event(form.legacy.name, form.legacy_message(event))
        uuid = event.guest.uuid.bytes
        for callback_id, wanted in list(session.callbacks.items()):
            if (
                isinstance(wanted, Registration)
                and wanted.number == form.number
                and (wanted.uuid is None or wanted.uuid == uuid)
            ):
                session.connection.send_event(form.callback.name, form.message(callback_id, event))


def tell_monitor(session: Session, event: ev.MonitorEvent) -> None:
    """The same for an event of QEMU itself."""
    for callback_id, wanted in list(session.callbacks.items()):
        if (
            isinstance(wanted, MonitorRegistration)
            and (wanted.uuid is None or wanted.uuid == event.guest.uuid.bytes)
            and wanted.wanted(event.event)
        ):
            session.connection.send_event(
                "DOMAIN_MONITOR_EVENT",
                DomainMonitorEventMsg(
                    callback_id,
                    encode_ref(event.guest),
                    event.event,
                    event.seconds,
                    event.micros,
                    event.details,
                ),
            )


def listen(session: Session) -> None:
    """Put the session on the bus, if it is not there."""
    if session.unsubscribe is None:
        subscription = session.context.bus.subscribe(lambda event: tell(session, event))
        session.unsubscribe = subscription.cancel


def leave(session: Session) -> None:
    """Take it off when it listens to nothing any more."""
    if session.unsubscribe is not None and not session.legacy and not session.callbacks:
        session.unsubscribe()
        session.unsubscribe = None


@handles("CONNECT_DOMAIN_EVENT_REGISTER")
def event_register(session: Session, args: None) -> ConnectDomainEventRegisterRet:
    register_legacy(session, 0)
    return ConnectDomainEventRegisterRet(cb_registered=0)


@handles("CONNECT_DOMAIN_EVENT_DEREGISTER")
def event_deregister(session: Session, args: None) -> ConnectDomainEventDeregisterRet:
    deregister_legacy(session, 0)
    return ConnectDomainEventDeregisterRet(cb_registered=0)


@handles("CONNECT_DOMAIN_EVENT_REGISTER_ANY")
def event_register_any(session: Session, args: ConnectDomainEventRegisterAnyArgs) -> None:
    if not 0 <= args.eventID < LEGACY_EVENT_NUMBERS:
        raise InternalError(f"unsupported event ID {args.eventID}", domain=ErrorDomain.RPC)
    register_legacy(session, args.eventID)


@handles("CONNECT_DOMAIN_EVENT_DEREGISTER_ANY")
def event_deregister_any(session: Session, args: ConnectDomainEventDeregisterAnyArgs) -> None:
    if not 0 <= args.eventID < LEGACY_EVENT_NUMBERS:
        raise InternalError(f"unsupported event ID {args.eventID}", domain=ErrorDomain.RPC)
    deregister_legacy(session, args.eventID)


def register_legacy(session: Session, number: int) -> None:
    if number in session.legacy:
        raise InvalidArg("event callback already tracked", domain=ErrorDomain.RPC)
    session.legacy.add(number)
    listen(session)


def deregister_legacy(session: Session, number: int) -> None:
    if number not in session.legacy:
        raise InternalError(f"domain event {number} not registered", domain=ErrorDomain.RPC)
    session.legacy.discard(number)
    leave(session)


@handles("CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY")
def callback_register(
    session: Session, args: ConnectDomainEventCallbackRegisterAnyArgs
) -> ConnectDomainEventCallbackRegisterAnyRet:
    if not 0 <= args.eventID < EVENT_NUMBERS:
        raise InternalError(f"unsupported event ID {args.eventID}", domain=ErrorDomain.RPC)
    uuid = None if args.dom is None else args.dom.uuid
    made = session.add_callback(Registration(args.eventID, uuid))
    listen(session)
    return ConnectDomainEventCallbackRegisterAnyRet(callbackID=made)


@handles("CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY")
def callback_deregister(
    session: Session, args: ConnectDomainEventCallbackDeregisterAnyArgs
) -> None:
    if not isinstance(session.callbacks.get(args.callbackID), Registration):
        raise InternalError(
            f"domain event callback {args.callbackID} not registered", domain=ErrorDomain.RPC
        )
    del session.callbacks[args.callbackID]
    leave(session)


@handles("CONNECT_DOMAIN_MONITOR_EVENT_REGISTER")
def monitor_register(
    session: Session, args: ConnectDomainMonitorEventRegisterArgs
) -> ConnectDomainMonitorEventRegisterRet:
    check_flags(
        args.flags, MONITOR_REGEX | MONITOR_IGNORE_CASE, "qemuConnectDomainQemuMonitorEventRegister"
    )
    uuid = None if args.dom is None else args.dom.uuid
    made = session.add_callback(MonitorRegistration(uuid, name_filter(args.event, args.flags)))
    listen(session)
    return ConnectDomainMonitorEventRegisterRet(callbackID=made)


@handles("CONNECT_DOMAIN_MONITOR_EVENT_DEREGISTER")
def monitor_deregister(session: Session, args: ConnectDomainMonitorEventDeregisterArgs) -> None:
    if not isinstance(session.callbacks.get(args.callbackID), MonitorRegistration):
        raise InternalError(
            f"qemu monitor event callback {args.callbackID} not registered", domain=ErrorDomain.RPC
        )
    del session.callbacks[args.callbackID]
    leave(session)


def name_filter(pattern: str | None, flags: int) -> Callable[[str], object]:
    """Which event names a client wants.

    A regular expression may not make the daemon think for long: few repeats, none of a group.

    Raises:
        InvalidArg: not a regular expression, or one that could take for ever.
    """
    if pattern is None:
        return lambda name: True
    if not flags & MONITOR_REGEX:
        if flags & MONITOR_IGNORE_CASE:
            folded = pattern.upper()
            return lambda name: name.upper() == folded
        return lambda name: name == pattern
    repeats = len(re.findall(r"[*+?{]", pattern))
    if (
        len(pattern) > PATTERN_CHARS_MAX
        or repeats > PATTERN_REPEATS_MAX
        or re.search(r"\)[*+?{]|\\\d|\(\?", pattern)
    ):
        raise InvalidArg(f"regular expression is too complex: '{pattern[:PATTERN_CHARS_MAX]}'")
    try:
        return re.compile(pattern, re.IGNORECASE if flags & MONITOR_IGNORE_CASE else 0).search
    except re.error as error:
        raise InvalidArg(f"failed to parse regular expression '{pattern}': {error}") from error
