"""Events of a host as an asynchronous iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sterna.client.errors import ConnectionFailed
from sterna.client.types import GuestEvent
from sterna.errors import SternaError
from sterna.guest.states import DETAILS, Lifecycle
from sterna.rpc.msg_event import (
    ConnectDomainEventCallbackDeregisterAnyArgs,
    ConnectDomainEventCallbackRegisterAnyArgs,
)
from sterna.xdr.message import Message

if TYPE_CHECKING:
    from sterna.client.api import Host

# The protocol's event numbers and the names that `virsh event` gives them.
KINDS = {
    0: "lifecycle",
    1: "reboot",
    2: "rtc-change",
    3: "watchdog",
    6: "io-error-reason",
    5: "graphics",
    8: "block-job",
    10: "tray-change",
    13: "balloon-change",
    15: "device-removed",
    18: "agent-lifecycle",
    19: "device-added",
    20: "migration-iteration",
    21: "job-completed",
    23: "metadata-change",
    25: "memory-failure",
}
LIFECYCLE_PROCEDURE = "DOMAIN_EVENT_CALLBACK_LIFECYCLE"
# A reader that is slower than its host loses its subscription rather than our memory.
EVENTS_WAITING_MAX = 10_000


class EventStream:
    """Events in the order they came. Iterating ends with the connection."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._queue: asyncio.Queue[GuestEvent | SternaError] = asyncio.Queue()
        self._callbacks: dict[int, str] = {}

    def __aiter__(self) -> AsyncIterator[GuestEvent]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[GuestEvent]:
        while True:
            item = await self._queue.get()
            if isinstance(item, SternaError):
                raise item
            yield item

    def received(self, message: Message) -> None:
        """Takes an event off the connection."""
        callback: int = getattr(message, "callbackID", -1)
        kind = self._callbacks.get(callback)
        if kind is None:
            return
        if self._queue.qsize() >= EVENTS_WAITING_MAX:
            self._queue.put_nowait(
                ConnectionFailed(self._host.uri, "events came faster than they were read")
            )
            self._callbacks.clear()
            return
        self._queue.put_nowait(_event(kind, message))

    def lost(self, reason: str) -> None:
        """The connection ended."""
        self._queue.put_nowait(ConnectionFailed(self._host.uri, reason))

    async def register(self) -> None:
        """Asks the host for every kind of event that it knows."""
        for number, kind in KINDS.items():
            args = ConnectDomainEventCallbackRegisterAnyArgs(number, None)
            try:
                reply = await self._host.call("CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY", args)
            except ConnectionFailed:
                raise
            except SternaError:
                continue  # An older daemon: it has no such events.
            self._callbacks[reply.callbackID] = kind

    async def deregister(self) -> None:
        """Tells the host that nobody listens any more."""
        for callback in self._callbacks:
            await self._host.call(
                "CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY",
                ConnectDomainEventCallbackDeregisterAnyArgs(callback),
            )


@asynccontextmanager
async def subscribed(host: Host) -> AsyncIterator[EventStream]:
    """An event stream that is registered at the host while the block runs."""
    stream = EventStream(host)
    connection = host.connection

    def lost() -> None:
        stream.lost(connection.close_reason)

    host.add_event_listener(stream.received)
    connection.add_close_callback(lost)
    try:
        await stream.register()
        yield stream
        if not connection.closed:
            await stream.deregister()
    finally:
        host.remove_event_listener(stream.received)
        connection.remove_close_callback(lost)


def _event(kind: str, message: Any) -> GuestEvent:
    dom = message.dom
    event = detail = ""
    data = {
        name: getattr(message, name)
        for name in message.__match_args__
        if name not in ("callbackID", "dom", "params")
    }
    if kind == "lifecycle":
        event, detail = lifecycle_words(data.pop("event"), data.pop("detail"))
    if kind == "job-completed":
        data = {param.field: param.value for param in message.params}
    return GuestEvent(
        kind=kind,
        guest=dom.name,
        uuid=UUID(bytes=dom.uuid),
        event=event,
        detail=detail,
        at=datetime.now(UTC),
        data=data,
    )


def lifecycle_words(event: int, detail: int) -> tuple[str, str]:
    """`("started", "booted")` for the protocol's two numbers."""
    if event not in Lifecycle._value2member_map_:
        return str(event), str(detail)
    known = Lifecycle(event)
    details = DETAILS[known]
    word = details(detail).name if detail in details._value2member_map_ else str(detail)
    return known.name.lower(), word.lower().replace("_", " ")
