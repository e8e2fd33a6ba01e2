"""Streams for people who await: data with back-pressure both ways."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from sterna.errors import SternaError
from sterna.rpc.errors import ConnectionLost, StreamClosed
from sterna.rpc.frame import STREAM_BYTES_MAX
from sterna.rpc.msg_common import Hole
from sterna.rpc.session import ServerSession, StreamEnd, StreamState
from sterna.rpc.session_base import StreamItem
from sterna.rpc.session_client import ClientSession
from sterna.xdr.message import Message

if TYPE_CHECKING:
    from sterna.rpc.asyncio_connection import Connection


class Stream:
    """An open stream. One task may receive while another sends.

    Attributes:
        aborted: the peer gave up or failed, or the connection ended: nothing will be confirmed.
        ret: the message the opening call was answered with (client side).
    """

    def __init__(
        self, connection: Connection, session: ServerSession | ClientSession, state: StreamState
    ) -> None:
        self.aborted = False
        self.ret: Message | None = None
        self._connection = connection
        self._session = session
        self._state = state
        self._items: deque[bytes | Hole] = deque()
        self._no_more = False
        self._why: Exception | None = None
        self._sleepers: list[asyncio.Future[None]] = []
        self._mark = 0

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send data of any length. Waits until what this stream sent before has left.

        Raises:
            StreamClosed: the peer has finished or aborted the stream (server side).
            SternaError: the peer's error, or the connection's end (client side).
        """
        view = memoryview(data)
        for start in range(0, len(view), STREAM_BYTES_MAX):
            await self._wait_writable()
            self._session.stream_send(self._state, bytes(view[start : start + STREAM_BYTES_MAX]))
            self._sent()

    async def send_hole(self, length: int) -> None:
        """Send a hole of `length` bytes; only on a sparse stream. Raises as `send` does."""
        await self._wait_writable()
        self._session.stream_send_hole(self._state, length)
        self._sent()

    async def receive(self) -> bytes | Hole | None:
        """The next data or hole; None when the peer has no more.

        Raises:
            StreamClosed: the client aborted the stream, or is gone (server side).
            SternaError: the peer's error, or the connection's end (client side).
        """
        while not self._items:
            if self._why is not None:
                raise self._why
            if self._no_more:
                return None
            await self._change()
        item = self._items.popleft()
        self._session.stream_taken(item)
        self._connection.stream_changed()
        return item

    async def finish(self) -> None:
        """End the stream in good order."""
        raise NotImplementedError

    # -- called by the connection

    def take(self, item: StreamItem) -> None:
        """Something arrived."""
        match item:
            case bytes() | Hole():
                if self._why is None:
                    self._items.append(item)
                else:
                    self._session.stream_taken(item)
            case StreamEnd.EOF | StreamEnd.FINISHED | StreamEnd.CONFIRMED:
                self._no_more = True
            case StreamEnd.ABORTED:
                self.fail_with(StreamClosed("the client aborted the stream"))
            case SternaError():
                self.fail_with(item)
        if self._state.ended:
            self._connection.forget_stream(self._state)
        self._wake()

    def connection_ended(self, lost: ConnectionLost) -> None:
        """The connection is gone, and the stream with it."""
        self._state.ended = True
        self.fail_with(lost)
        self._wake()

    def fail_with(self, why: Exception) -> None:
        """Nothing more comes or goes."""
        self.aborted = True
        if self._why is None:
            self._why = why
        self._drop_items()

    def _drop_items(self) -> None:
        while self._items:
            self._session.stream_taken(self._items.popleft())

    async def _change(self) -> None:
        """Until something happens to the stream. One task may receive while another finishes."""
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append(sleeper)
        await sleeper

    def _wake(self) -> None:
        sleepers, self._sleepers = self._sleepers, []
        for sleeper in sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    async def _wait_writable(self) -> None:
        await self._connection.wait_written(self._mark)
        if self._why is not None:
            raise self._why

    def _sent(self) -> None:
        # Behind our packet: the next one waits until this one has left, as libvirtd's do.
        self._mark = self._connection.output_mark()
        self._connection.stream_changed()


class ServerStream(Stream):
    """The daemon's end of a stream."""

    _session: ServerSession

    async def send_eof(self) -> None:
        """Say that there is no more data. The client's finish is then confirmed by itself."""
        await self._connection.wait_written(self._mark)
        self._session.stream_eof(self._state)
        self._done()

    async def finish(self) -> None:
        """Confirm that everything the client sent was taken; only after `receive` gave None."""
        self._session.stream_confirm(self._state)
        self._done()

    def fail(self, error: SternaError) -> None:
        """End the stream with an error. Harmless if it has ended."""
        self._session.stream_fail(self._state, error)
        self.end_here()
        self._done()

    def end_here(self) -> None:
        """We have ended it: whoever of ours still waits for input waits in vain."""
        if self._why is None:
            self._why = StreamClosed("the stream was ended here")
        self._drop_items()
        self._wake()

    def connection_ended(self, lost: ConnectionLost) -> None:
        """See `Stream`. A handler of ours is not to blame: it gets a `StreamClosed`."""
        self._why = self._why or StreamClosed(lost.reason)
        super().connection_ended(lost)

    def _done(self) -> None:
        if self._state.ended:
            self._connection.forget_stream(self._state)
        self._connection.stream_changed()


class ClientStream(Stream):
    """The client's end of a stream."""

    _session: ClientSession

    async def finish(self) -> None:
        """Say that we are done and wait for the confirmation. Data not yet received is dropped.

        Raises:
            SternaError: the peer's error, or the connection's end.
        """
        if self._why is None and not self._state.finishing:
            await self._connection.wait_written(self._mark)
            if self._why is None:
                self._session.stream_finish(self._state)
                self._connection.stream_changed()
        await self._wait_ended()
        if self._why is not None:
            raise self._why

    async def abort(self) -> None:
        """Give the stream up, and wait until the peer has confirmed that. Never raises."""
        self._session.stream_abort(self._state)
        self._connection.stream_changed()
        await self._wait_ended()

    async def _wait_ended(self) -> None:
        self._drop_items()
        while not self._state.ended:
            await self._change()
            self._drop_items()
