"""What both kinds of connection do with a socket: read, write, watch for its end, keep time.

Reading and writing go by `add_reader` and `add_writer`: asyncio's own transports would lose the
file descriptors. A plain handler's reply leaves in the same turn of the loop in which its call
arrived.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sterna.rpc.errors import ConnectionLost, ProtocolViolation, RpcFailure
from sterna.rpc.session_base import BaseSession, StreamState
from sterna.rpc.sockets import Transport, close_fds

if TYPE_CHECKING:
    from sterna.rpc.asyncio_streams import Stream

log = logging.getLogger(__name__)

EVENTS_PER_TURN = 64
"""So that one client's thousand calls in one read leave the loop to the others."""
CLOSE_LINGER_S = 2.0
"""How long a closing connection waits for its peer to read the last replies."""


class Connection:
    """A socket and a session. Ends by itself when the peer does.

    Attributes:
        closed: whether it has ended; the close callbacks have run then.
        close_reason: why, as one sentence; empty while it is open.
    """

    def __init__(self, transport: Transport, session: BaseSession) -> None:
        self.closed = False
        self.close_reason = ""
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._base = session
        self._close_callbacks: list[Callable[[], None]] = []
        self._streams: dict[StreamState, Stream] = {}
        self._closing = False
        self._pumping = False
        self._pump_due = False
        self._reading = False
        self._writing = False
        self._hangup: select.epoll | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._written = 0
        self._write_waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._watch_input()

    # -- the end

    def add_close_callback(self, callback: Callable[[], None], /) -> None:
        """Call it once when the connection ends, however it ends: synchronously, and before
        anything else is cleaned up (L3). On an ended connection it is called at once."""
        if self.closed:
            callback()
        else:
            self._close_callbacks.append(callback)

    def remove_close_callback(self, callback: Callable[[], None], /) -> None:
        """Forget it; harmless if it is not there."""
        if callback in self._close_callbacks:
            self._close_callbacks.remove(callback)

    def peer_gone(self) -> bool:
        """Look at the socket now: has the peer closed or reset it? True also if its last words
        are still unread (I2)."""
        return self.closed or self._transport.gone()

    async def wait_closed(self) -> str:
        """Until the connection has ended; gives the reason."""
        await asyncio.shield(self._ended)
        return self.close_reason

    def close(self) -> None:
        """End the connection once what was sent has left, or after two seconds."""
        if self.closed or self._closing:
            return
        self._closing = True
        self._after_send()

    def abort(self, reason: str) -> None:
        """End the connection now. What was not yet sent is lost."""
        self._end(reason)

    def _end(self, why: str | RpcFailure) -> None:
        if self.closed:
            return
        self.closed = True
        self.close_reason = str(why)
        # First of all: whatever lives by this connection must die with it, at once (L3).
        callbacks, self._close_callbacks = self._close_callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception:  # one callback's failure must not save the next one's guest
                log.exception("rpc.close_callback_failed")
        self._forget_socket()
        lost = ConnectionLost(self.close_reason)
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.connection_ended(lost)
        for _, waiter in self._write_waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._write_waiters.clear()
        self._on_end(lost)
        if not self._ended.done():
            self._ended.set_result(None)
        level = logging.WARNING if isinstance(why, ProtocolViolation) else logging.DEBUG
        log.log(level, "rpc.connection_ended", extra={"f": {"reason": self.close_reason}})

    def _forget_socket(self) -> None:
        fd = self._transport.fileno()
        if fd >= 0:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
        if self._hangup is not None:
            self._loop.remove_reader(self._hangup.fileno())
            self._hangup.close()
            self._hangup = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        close_fds(self._base.drop_fds())
        self._transport.close()

    def _on_end(self, lost: ConnectionLost) -> None:
        """For the roles: what else ends with the connection."""

    # -- input

    def _watch_input(self) -> None:
        self._reading = True
        self._loop.add_reader(self._transport.fileno(), self._on_readable)
        if self._hangup is not None:
            self._loop.remove_reader(self._hangup.fileno())

    def _unwatch_input(self) -> None:
        """Stop reading, and still notice at once when the peer goes (L3).

        The loop's own selector reports a hang-up only together with reading; an epoll of our own
        asks for nothing else.
        """
        self._reading = False
        fd = self._transport.fileno()
        self._loop.remove_reader(fd)
        if self._hangup is None:
            self._hangup = select.epoll()
            self._hangup.register(fd, select.EPOLLRDHUP)
        self._loop.add_reader(self._hangup.fileno(), self._on_hangup)

    def _on_hangup(self) -> None:
        self._end("the peer closed the connection")

    def _on_readable(self) -> None:
        if self._pump_due:
            return
        try:
            data, fds = self._transport.read()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as why:
            self._end(f"the connection broke: {why.strerror}")
            return
        except ProtocolViolation as breach:
            self._end(breach)
            return
        if not data:
            close_fds(fds)
            self._end("the peer closed the connection")
            return
        self._base.receive(data, fds, self._loop.time())
        self._pump()

    def _pump(self) -> None:
        """Handle what was received, then send what came of it."""
        self._pump_due = False
        self._pumping = True
        try:
            for _ in range(EVENTS_PER_TURN):
                if self.closed or self._closing:
                    break
                event = self._base.next_event()
                if event is None:
                    break
                self._handle(event)
            else:
                self._pump_later()
        finally:
            self._pumping = False
        was_full = not self._base.wants_input
        self._settle()
        if was_full and not self.closed and self._base.wants_input:
            # The answers have left and made room for what was read but not yet looked at.
            self._pump_later()

    def _pump_later(self) -> None:
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump_if_open)

    def _pump_if_open(self) -> None:
        if not self.closed:
            self._pump()

    def _handle(self, event: Any) -> None:
        raise NotImplementedError

    # -- output

    def _after_send(self) -> None:
        """After anything was given to the session: let it out, unless the pump does."""
        if not self._pumping:
            self._settle()

    def _settle(self) -> None:
        if self.closed:
            return
        session = self._base
        if session.output and not self._writing:
            self._write()
            if self.closed:
                return
        unwanted = session.take_unwanted_fds()
        if unwanted:
            close_fds(unwanted)
        if session.failure is not None:
            self._end(session.failure)
            return
        if self._closing:
            self._settle_closing()
            return
        wanted = session.wants_input
        if wanted != self._reading:
            if wanted:
                self._watch_input()
            else:
                self._unwatch_input()

    def _settle_closing(self) -> None:
        if not self._base.output:
            self._end("closed here")
        elif self._reading:
            self._unwatch_input()
            self._set_timer(self._loop.time() + CLOSE_LINGER_S)

    def _write(self) -> None:
        """Send as much as goes. What does not is sent when the socket takes it."""
        output = self._base.output
        try:
            while output:
                count = self._transport.write(output)
                self._base.sent(count)
                self._written += count
        except (BlockingIOError, InterruptedError):
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._transport.fileno(), self._on_writable)
        except OSError as why:
            self._end(f"the connection broke: {why.strerror}")
            return
        else:
            if self._writing:
                self._writing = False
                self._loop.remove_writer(self._transport.fileno())
        waiters = self._write_waiters
        while waiters and (waiters[0][0] <= self._written or waiters[0][1].done()):
            _, waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _on_writable(self) -> None:
        self._write()
        if not self.closed:
            # With room again, calls that waited for it may run.
            self._pump()

    def output_mark(self) -> int:
        """A place in the output: behind everything sent so far."""
        return self._written + self._base.output_bytes

    async def wait_written(self, mark: int) -> None:
        """Until everything before the mark has gone to the socket, or the connection ended."""
        if mark > self._written and not self.closed:
            waiter = self._loop.create_future()
            self._write_waiters.append((mark, waiter))
            await waiter

    # -- time

    def start_keepalive(self, interval_s: float = 5.0, count: int = 5) -> None:
        """Ping a silent peer, and end the connection when it does not answer.

        Only for peers that understand: a client that asked for feature 10, or a server that
        said yes to it. See `sterna.rpc.keepalive`.
        """
        if not self.closed:
            self._base.keepalive.allow(interval_s, count, self._loop.time())
            self._rearm()

    def limit_silence(self, seconds: float | None) -> None:
        """End the connection after this much silence at the latest; None takes the limit back.

        A peer that may not be pinged is allowed to be silent; over TCP the kernel's own probes
        still notice when its host is gone.
        """
        if not self.closed:
            self._transport.limit_silence(seconds)
            self._base.keepalive.limit_silence(seconds, self._loop.time())
            self._rearm()

    def _rearm(self) -> None:
        deadline = self._base.deadline()
        if deadline is not None and not self._closing:
            self._set_timer(deadline)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._closing:
            self._end("closed here, with replies the peer did not read")
            return
        self._base.tick(self._loop.time())
        self._settle()
        if not self.closed:
            self._rearm()

    # -- for streams

    def stream_changed(self) -> None:
        """A stream gave something to the session, or took from it."""
        self._after_send()
        if self._base.has_unparsed and not self.closed and not self._pumping:
            self._pump_later()

    def forget_stream(self, state: StreamState) -> None:
        """Nothing more arrives for it."""
        self._streams.pop(state, None)
