"""Connections on asyncio: what the daemon and the client use. See `sterna.rpc.session` for the
rules of the protocol; here is only what moves the bytes and hands out what arrived."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Self

from sterna.errors import InternalError, RpcError, SternaError
from sterna.rpc.asyncio_connection import Connection
from sterna.rpc.asyncio_streams import ClientStream, ServerStream, Stream
from sterna.rpc.asyncio_tls import connect_tls
from sterna.rpc.calls import Procedure, procedure
from sterna.rpc.errors import ConnectionLost, StreamClosed
from sterna.rpc.session import Call, Limits, ServerSession, StreamInput, StreamState
from sterna.rpc.session_client import ClientSession, EventReceived, Replied
from sterna.rpc.sockets import (
    Peer,
    SocketTransport,
    Transport,
    close_fds,
    peer_of,
    short_unix_path,
)
from sterna.rpc.tls import TlsTransport
from sterna.xdr.message import Message
from sterna.xdr.wire import WireError

__all__ = [
    "Call",
    "ClientConnection",
    "ClientStream",
    "Limits",
    "Peer",
    "ServerConnection",
    "ServerStream",
    "Stream",
]

log = logging.getLogger(__name__)

Handler = Callable[["ServerConnection", Call], None]
EventHandler = Callable[[Procedure, Any], None]


class ServerConnection(Connection):
    """One client of the daemon.

    Args:
        sock: the accepted socket; the connection owns it from here on.
        handler: called for each call, arguments decoded. It must not wait; it answers now with
            `reply` or `reply_error`, or later from a task of its own.
        transport: what carries the bytes if it is not the plain socket.

    Raises:
        OSError: the client is gone already; the socket is closed then.
    """

    def __init__(
        self,
        sock: socket.socket,
        handler: Handler,
        *,
        limits: Limits | None = None,
        transport: Transport | None = None,
    ) -> None:
        try:
            self.peer = peer_of(sock)
        except OSError:
            sock.close()
            raise
        transport = transport or SocketTransport(sock)
        self._session = ServerSession(
            asyncio.get_running_loop().time(), limits, accept_fds=transport.carries_fds
        )
        self._handler = handler
        super().__init__(transport, self._session)

    @property
    def calls_running(self) -> int:
        """Calls not yet answered."""
        return self._session.calls_running

    def widen(self, limits: Limits) -> None:
        """Other limits from now on, for a client that is trusted with more."""
        self._session.widen(limits)

    def reply(self, call: Call, ret: Message | None = None, fds: Sequence[int] = ()) -> None:
        """Answer a call; forgotten if the connection has ended. The caller keeps its `fds`.

        A `ret` that cannot be encoded is our bug: it is logged, and the client gets an error.

        Raises:
            LocalMistake: the call was answered before.
        """
        if self.closed:
            close_fds(call.take_fds())
            return
        copies = _copies(fds)
        try:
            self._session.reply(call, ret, copies)
        except WireError:
            close_fds(copies)
            log.exception("rpc.reply_not_encoded", extra={"f": {"procedure": call.procedure.name}})
            self._session.reply_error(call, RpcError("Unable to encode message payload"))
        self._after_answer()

    def reply_error(self, call: Call, error: SternaError) -> None:
        """Answer a call with an error; forgotten if the connection has ended.

        Raises:
            LocalMistake: the call was answered before.
        """
        if self.closed:
            close_fds(call.take_fds())
            return
        self._session.reply_error(call, error)
        if call.stream is not None:
            stream = self._streams.pop(call.stream, None)
            if isinstance(stream, ServerStream):
                stream.end_here()
        self._after_answer()

    def send_event(self, name: str | Procedure, message: Message | None) -> None:
        """Send an event, by its procedure or that one's name. Forgotten if the connection ended.

        Raises:
            WireError: the message is not that event's, or cannot be encoded.
        """
        if not self.closed:
            self._session.send_event(procedure(name) if isinstance(name, str) else name, message)
            self._after_send()

    def open_stream(self, call: Call, sparse: bool = False) -> ServerStream:
        """Open the stream that the call asks for. Then answer the call; data may go ahead of it.

        Raises:
            StreamClosed: the connection has ended, or such a stream is open.
            LocalMistake: the procedure opens none.
        """
        state = self._session.open_stream(call, sparse=sparse)
        stream = ServerStream(self, self._session, state)
        if self.closed:
            stream.connection_ended(ConnectionLost(self.close_reason))
        else:
            self._streams[state] = stream
        return stream

    def _after_answer(self) -> None:
        self._after_send()
        if not self._pumping and not self.closed and self._has_more():
            # Not at once: a handler should not find another one running inside its `reply`.
            self._pump_later()

    def _has_more(self) -> bool:
        return self._session.calls_waiting > 0 or self._session.has_unparsed

    def _handle(self, event: Call | StreamInput) -> None:
        if isinstance(event, Call):
            try:
                self._handler(self, event)
            except Exception:  # the connection's boundary: one call's bug is not the others'
                log.exception(
                    "rpc.handler_failed", extra={"f": {"procedure": event.procedure.name}}
                )
                if not event.answered:
                    self.reply_error(event, InternalError("the call failed unexpectedly"))
            return
        stream = self._streams.get(event.stream)
        if stream is not None:
            stream.take(event.item)


class ClientConnection(Connection):
    """A connection to a daemon.

    Attributes:
        events: called with each event's procedure and message; None while nobody wants them.
    """

    def __init__(self, transport: Transport, *, limits: Limits | None = None) -> None:
        self.events: EventHandler | None = None
        self._session = ClientSession(
            asyncio.get_running_loop().time(), limits, accept_fds=transport.carries_fds
        )
        self._waiting: dict[int, asyncio.Future[Replied]] = {}
        self._unwanted_streams: dict[int, StreamState] = {}
        super().__init__(transport, self._session)

    @classmethod
    def from_socket(cls, sock: socket.socket, *, limits: Limits | None = None) -> Self:
        """Over a connected socket, which the connection owns from here on."""
        return cls(SocketTransport(sock), limits=limits)

    @classmethod
    async def connect_unix(cls, path: str | os.PathLike[str]) -> Self:
        """Connect to a daemon on this machine. OSError if nobody listens."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            with short_unix_path(path) as short:
                await asyncio.get_running_loop().sock_connect(sock, short)
        except BaseException:
            sock.close()
            raise
        return cls.from_socket(sock)

    @classmethod
    async def connect_tcp(
        cls, host: str, port: int, *, timeout_s: float = 10.0, limits: Limits | None = None
    ) -> Self:
        """Connect over plain TCP, trying the host's addresses in turn.

        Raises:
            OSError: no address answers; the last one's error.
            TimeoutError: none did in time.
        """
        async with asyncio.timeout(timeout_s):
            sock = await open_tcp(host, port)
        return cls.from_socket(sock, limits=limits)

    @classmethod
    async def connect_tls(
        cls, host: str, port: int, context: ssl.SSLContext, *, timeout_s: float = 10.0
    ) -> Self:
        """Connect over TLS.

        Args:
            context: what we show and whom we believe; see `sterna.rpc.tls.client_context`.

        Raises:
            OSError: no address answers, or the handshake failed; see `sterna.rpc.asyncio_tls`.
            TimeoutError: not done in time.
        """
        async with asyncio.timeout(timeout_s):
            sock = await open_tcp(host, port)
            return cls(TlsTransport(await connect_tls(sock, context, host)))

    async def call(self, name: str, args: Message | None = None, fds: Sequence[int] = ()) -> Any:
        """Make a call and wait for its reply message (None if it is empty).

        There is no deadline: a call may take minutes; keepalive proves that the peer lives.
        Cancelling stops the waiting, not the work. The caller keeps its `fds`.

        Raises:
            SternaError: what the peer answered.
            ConnectionLost: the connection ended; whether the call was done is not known.
            WireError: the arguments cannot be encoded.
        """
        reply = await self._call(procedure(name), args, fds)
        close_fds(reply.fds)
        return reply.ret

    async def call_for_fds(
        self, name: str, args: Message | None = None, fds: Sequence[int] = ()
    ) -> tuple[Any, tuple[int, ...]]:
        """As `call`, for procedures that give descriptors back; the caller owns them."""
        reply = await self._call(procedure(name), args, fds)
        return reply.ret, reply.fds

    async def open_stream(
        self, name: str, args: Message | None = None, *, sparse: bool = False
    ) -> ClientStream:
        """Make a call that opens a stream; `stream.ret` is its reply message. Raises as `call`.

        `sparse` as the call's own flag says.
        """
        self._check_open()
        serial, state = self._session.call(procedure(name), args, sparse=sparse)
        if state is None:
            raise ValueError(f"{name} opens no stream")
        stream = ClientStream(self, self._session, state)
        self._streams[state] = stream
        try:
            reply = await self._reply(serial)
        except SternaError:
            self.forget_stream(state)
            raise
        except asyncio.CancelledError:
            # The peer knows the stream only once it has answered: abort it then.
            stream.fail_with(StreamClosed("nobody waits for the stream any more"))
            self._unwanted_streams[serial] = state
            raise
        stream.ret = reply.ret
        return stream

    def _check_open(self) -> None:
        if self.closed or self._closing:
            raise ConnectionLost(self.close_reason or "closed here")

    async def _call(self, which: Procedure, args: Message | None, fds: Sequence[int]) -> Replied:
        self._check_open()
        if which.stream is not None:
            raise ValueError(f"{which.name} opens a stream")
        copies = _copies(fds)
        try:
            serial, _ = self._session.call(which, args, copies)
        except WireError:
            close_fds(copies)
            raise
        return await self._reply(serial)

    async def _reply(self, serial: int) -> Replied:
        """Let the call out and wait for its answer."""
        answer: asyncio.Future[Replied] = self._loop.create_future()
        self._waiting[serial] = answer
        self._after_send()
        reply = await answer
        if reply.error is not None:
            raise reply.error
        return reply

    def _handle(self, event: Replied | EventReceived | StreamInput) -> None:
        match event:
            case Replied():
                answer = self._waiting.pop(event.serial)
                unwanted = self._unwanted_streams.pop(event.serial, None)
                if unwanted is not None:
                    self._session.stream_abort(unwanted)
                if answer.done():
                    close_fds(event.fds)  # whoever asked has stopped waiting
                else:
                    answer.set_result(event)
            case EventReceived():
                if self.events is not None:
                    self._tell(event)
            case StreamInput():
                stream = self._streams.get(event.stream)
                if stream is not None:
                    stream.take(event.item)

    def _tell(self, event: EventReceived) -> None:
        assert self.events is not None  # noqa: S101 - the caller has looked
        try:
            self.events(event.procedure, event.message)
        except Exception:  # the listener's bug must not end everybody's connection
            log.exception("rpc.listener_failed", extra={"f": {"event": event.procedure.name}})

    def _on_end(self, lost: ConnectionLost) -> None:
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionLost(lost.reason))


async def open_tcp(host: str, port: int) -> socket.socket:
    """A connected socket that does not block. OSError if no address answers; the last one's."""
    loop = asyncio.get_running_loop()
    last: OSError = OSError(f"no address for {host}")
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for family, kind, proto, _, address in found:
        sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, proto)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise last


def _copies(fds: Sequence[int]) -> tuple[int, ...]:
    """Duplicates for the session to own; none is left open if one cannot be made."""
    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(os.dup(fd))  # noqa: PERF401 - those made must be known if one fails
    except OSError:
        close_fds(copies)
        raise
    return tuple(copies)
