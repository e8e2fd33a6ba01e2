"""The public Python API: connect to hosts, look at their guests, move them.

::

    import asyncio
    import sterna

    async def main() -> None:
        async with sterna.connect("qemu+tcp://a/system") as a, sterna.connect("/run/b/sock") as b:
            result = await a.guest("web1").migrate(b)
            print(result.total_ms, result.downtime_ms)

    asyncio.run(main())

Every method raises `sterna.errors.SternaError`: the host's own error under the class of its code,
or `sterna.client.errors.ConnectionFailed` when the host cannot be reached or went away.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from sterna.client.errors import ConnectionFailed
from sterna.client.events import EventStream, subscribed
from sterna.client.guest import Guest, list_doms
from sterna.client.session import default_uri, open_session
from sterna.client.types import GuestInfo
from sterna.rpc.asyncio_shell import ClientConnection
from sterna.rpc.asyncio_streams import ClientStream
from sterna.rpc.calls import Procedure
from sterna.rpc.errors import ConnectionLost
from sterna.rpc.msg_connect import ConnectSupportsFeatureArgs
from sterna.rpc.msg_domain import DomainCreateXmlArgs, DomainDefineXmlFlagsArgs
from sterna.rpc.msg_story import GuestHistoryArgs
from sterna.together import together
from sterna.xdr.message import Message

LIST_ACTIVE, LIST_INACTIVE = 1, 2
DEFINE_VALIDATE = 1
CREATE_PAUSED, CREATE_AUTODESTROY = 1, 2


class Host:
    """One host's daemon. Made by `connect`; usable inside its `async with` only."""

    def __init__(self, uri: str | None = None) -> None:
        self.uri = uri or default_uri()
        self._connection: ClientConnection | None = None
        self._session: AbstractAsyncContextManager[ClientConnection] | None = None
        self._listeners: list[Callable[[Message], None]] = []

    async def __aenter__(self) -> Self:
        self._session = open_session(self.uri)
        self._connection = await self._session.__aenter__()
        self._connection.events = self._tell
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.__aexit__(kind, error, trace)

    @property
    def connection(self) -> ClientConnection:
        """The protocol connection below, for what this API does not cover."""
        if self._connection is None:
            raise ConnectionFailed(self.uri, "the session is not open: use `async with connect()`")
        return self._connection

    def add_event_listener(self, listener: Callable[[Message], None]) -> None:
        """Call it with every event message; for `events`, which knows what to do with them."""
        self._listeners.append(listener)

    def remove_event_listener(self, listener: Callable[[Message], None]) -> None:
        """Stop calling it."""
        self._listeners.remove(listener)

    def _tell(self, _procedure: Procedure, message: Message | None) -> None:
        if message is not None:
            for listener in tuple(self._listeners):
                listener(message)

    async def call(
        self, procedure: str, args: Message | None = None, *, fds: Sequence[int] = ()
    ) -> Any:
        """One call of the remote protocol by its procedure's name; the reply message, or None.

        Raises:
            ConnectionFailed: the connection ended; whether the call was done is not known.
            SternaError: what the host answered.
        """
        try:
            return await self.connection.call(procedure, args, fds)
        except ConnectionLost as error:
            raise ConnectionFailed(self.uri, error.reason) from error

    async def open_stream(self, procedure: str, args: Message) -> ClientStream:
        """A call that opens a stream; the stream ends with the connection.

        Raises:
            ConnectionFailed: the connection ended.
            SternaError: what the host answered.
        """
        try:
            return await self.connection.open_stream(procedure, args)
        except ConnectionLost as error:
            raise ConnectionFailed(self.uri, error.reason) from error

    async def supports(self, feature: int) -> bool:
        """Whether the host answers 1 to a feature number of the protocol."""
        reply = await self.call("CONNECT_SUPPORTS_FEATURE", ConnectSupportsFeatureArgs(feature))
        return bool(reply.supported)

    async def hostname(self) -> str:
        """The host's name."""
        return str((await self.call("CONNECT_GET_HOSTNAME")).hostname)

    async def versions(self) -> dict[str, int]:
        """Of the protocol and of QEMU: major·1,000,000 + minor·1,000 + micro."""
        library = await self.call("CONNECT_GET_LIB_VERSION")
        hypervisor = await self.call("CONNECT_GET_VERSION")
        return {"library": library.lib_ver, "hypervisor": hypervisor.hv_ver}

    async def capabilities(self) -> str:
        """The host's capabilities XML."""
        return str((await self.call("CONNECT_GET_CAPABILITIES")).capabilities)

    def guest(self, name: str) -> Guest:
        """The guest of that name or UUID; looked up when it is first used."""
        return Guest(self, name)

    async def guests(self, *, inactive: bool = True) -> list[Guest]:
        """The host's guests; without `inactive` only those that have a QEMU."""
        flags = LIST_ACTIVE | (LIST_INACTIVE if inactive else 0)
        return [Guest(self, dom.name, dom) for dom in await list_doms(self, flags)]

    async def history(self, guest: str = "", *, limit: int = 0) -> list[dict[str, Any]]:
        """What happened, newest first: `at` (ms since the epoch), `guest` (uuid), `kind`, `detail`.

        `guest` is a name or UUID, also of one that is not there any more; "" for all. Without a
        limit it is a thousand entries.

        Raises: NoSupport if the daemon is not Sterna.
        """
        reply = await self.call("GUEST_HISTORY", GuestHistoryArgs(guest, limit))
        return [
            {
                "at": entry.at,
                "guest": str(UUID(bytes=entry.guest)),
                "kind": entry.kind,
                "detail": json.loads(entry.detail),
            }
            for entry in reply.entries
        ]

    async def infos(self, *, inactive: bool = True) -> list[GuestInfo]:
        """What each guest is and does now; asked for all at once."""
        guests = await self.guests(inactive=inactive)
        infos = await together(*(guest.info_or_none() for guest in guests))
        return [info for info in infos if info is not None]

    async def define(self, xml: str, *, validate: bool = False) -> Guest:
        """Keeps a definition, new or in place of the one with its name and UUID."""
        flags = DEFINE_VALIDATE if validate else 0
        reply = await self.call("DOMAIN_DEFINE_XML_FLAGS", DomainDefineXmlFlagsArgs(xml, flags))
        return Guest(self, reply.dom.name, reply.dom)

    async def create(self, xml: str, *, paused: bool = False, autodestroy: bool = False) -> Guest:
        """Starts a transient guest. With `autodestroy` it dies with this connection."""
        flags = (CREATE_PAUSED if paused else 0) | (CREATE_AUTODESTROY if autodestroy else 0)
        reply = await self.call("DOMAIN_CREATE_XML", DomainCreateXmlArgs(xml, flags))
        return Guest(self, reply.dom.name, reply.dom)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[EventStream]:
        """What happens to the host's guests, from now on, as an asynchronous iterator.

        ``async with host.events() as events: async for event in events: ...``
        """
        async with subscribed(self) as stream:
            yield stream


def connect(uri: str | None = None) -> Host:
    """A host, to be used in ``async with``.

    Args:
        uri: a connection URI, the path of a daemon's socket, or its `--root` directory; without
            it `STERNA_URI`, else this machine's daemon.
    """
    return Host(uri)
