"""A monitor connection on the event loop: moves the bytes of a `QmpSession`.

A raw non-blocking socket rather than an asyncio transport, because descriptors travel with the
bytes (SCM_RIGHTS) and because a query then costs little more than QEMU's own time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from sterna.qemu.qmp_errors import MonitorGone, MonitorTimeout, QmpError
from sterna.qemu.qmp_session import Event, Outgoing, QmpSession, Ready, Reply

log = logging.getLogger(__name__)

RECEIVE_BYTES = 1 << 18
"""One read. A whole query-qmp-schema fits."""

EventCallback = Callable[[Event], None]


def listen(path: Path) -> socket.socket:
    """A listening Unix socket at `path`, for a QEMU to inherit as its monitor.

    Bound before QEMU starts, so that one may connect at once and need not poll. A socket left
    by an earlier QEMU is replaced. Only the owner may connect (mode 0600).

    Raises: OSError.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # before bind: the file never has a wider mode
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with short_address(path) as address:
            listener.bind(address)
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def short_address(path: Path) -> Iterator[str]:
    """An address for `path` however deep it is: sun_path holds only 108 bytes."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


class QmpClient:
    """One live monitor. Made by `connect`; ends by `close` or when QEMU ends.

    `closed` is a future that gets the reason, as text, the moment the connection ends, however
    it ends. Wait for it with `wait_closed`, or add a callback: a cancelled wait would cancel a
    future awaited directly.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected stream socket. Use `connect`, which also waits for QEMU."""
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._session = QmpSession()
        self._replies: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        self._backlog: deque[Outgoing] = deque()
        self._writing = False
        self._subscribers: dict[int, EventCallback] = {}
        self._next_subscriber = 0
        self._ready: asyncio.Future[Ready] = self._loop.create_future()
        self.closed: asyncio.Future[str] = self._loop.create_future()
        self._owes_since = 0.0
        self._loop.add_reader(sock.fileno(), self._readable)

    @classmethod
    async def connect(cls, target: socket.socket | Path | str, *, timeout_s: float) -> Self:
        """Connect, negotiate, and return once QEMU takes commands.

        `target` is the path of a monitor's socket or an already connected socket, which is then
        the client's to close.

        Raises:
            MonitorGone: nobody listens there, or QEMU closed before it was ready.
            MonitorTimeout: QEMU did not greet in time.
        """
        if isinstance(target, socket.socket):
            sock = target
        else:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                # A Unix connect never waits here: the backlog has room, or it fails at once.
                sock.setblocking(False)
                with short_address(Path(target)) as address:
                    sock.connect(address)
            except OSError as error:
                sock.close()
                text = f"Failed to connect to monitor socket: {os.strerror(error.errno or 0)}"
                raise MonitorGone(text) from error
        client = cls(sock)
        try:
            async with asyncio.timeout(timeout_s):
                await client._ready
        except TimeoutError:
            client.close()
            raise MonitorTimeout("qmp_capabilities", timeout_s) from None
        except BaseException:
            client.close()
            raise
        return client

    @property
    def version(self) -> tuple[int, int, int]:
        """QEMU's version: major, minor, micro."""
        return self._ready.result().version

    @property
    def package(self) -> str:
        """The distributor's version text, as in "Debian 1:7.2+dfsg-7"."""
        return self._ready.result().package

    @property
    def silent_s(self) -> float:
        """How long QEMU has owed an answer that nobody waits for any more; 0 since it spoke."""
        return self._loop.time() - self._owes_since if self._owes_since else 0.0

    @property
    def is_open(self) -> bool:
        return not self.closed.done()

    async def execute(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float,
        fds: Sequence[int] = (),
        oob: bool = False,
    ) -> Any:
        """Run one command and return what it returned.

        Commands run in the order of the calls. `fds` go along as SCM_RIGHTS (getfd, add-fd); they
        stay the caller's and must stay open until this returns. `oob` runs it beside a command
        that hangs; only some commands allow that (yank, migrate-recover, migrate-pause).

        An event that QEMU sent before the answer was dispatched before this returns.

        Raises:
            QmpError: QEMU refused.
            MonitorGone: the connection ended first.
            MonitorTimeout: no answer in `timeout_s`; the connection stays open, and a late answer
                is dropped.
        """
        if self.closed.done():
            raise MonitorGone(self.closed.result())
        try:
            identity = self._session.command(name, arguments, fds=fds, oob=oob)
        except RuntimeError as error:
            raise MonitorGone(str(error)) from error
        if log.isEnabledFor(logging.DEBUG):
            log.debug("> %d %s %s", identity, name, arguments)
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._replies[identity] = (name, answer)
        alarm = self._loop.call_later(timeout_s, self._expire, identity, timeout_s)
        self._flush()
        try:
            return await answer
        finally:
            alarm.cancel()
            if self._replies.pop(identity, None) is not None:
                self._session.withdraw(identity)

    def subscribe(self, callback: EventCallback) -> Callable[[], None]:
        """Have `callback` called with every event, at once and in QEMU's order.

        It runs inside the reader: short, not raising. Returns a function that ends it and may
        be called more than once.
        """
        key = self._next_subscriber
        self._next_subscriber += 1
        self._subscribers[key] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(key, None)

        return unsubscribe

    async def wait_closed(self) -> str:
        """Wait for the connection's end and return the reason."""
        await asyncio.wait([self.closed])
        return self.closed.result()

    def close(self, reason: str = "the monitor was closed by us") -> None:
        """End the connection; commands under way raise `MonitorGone`. Harmless if closed."""
        if self.closed.done():
            return
        self._loop.remove_reader(self._sock.fileno())
        if self._writing:
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._drop_backlog()
        self._session.receive_eof()
        if log.isEnabledFor(logging.DEBUG):
            log.debug("x %s", reason)
        self.closed.set_result(reason)
        replies, self._replies = self._replies, {}
        for _, answer in replies.values():
            if not answer.done():
                answer.set_exception(MonitorGone(reason))
        if not self._ready.done():
            self._ready.set_exception(MonitorGone(reason))
            self._ready.exception()  # looked at: whoever gave up waiting shall not be warned

    # -- the reader --------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            return self.close(f"qemu unexpectedly closed the monitor: {error.strerror}")
        if not data:
            return self.close("qemu unexpectedly closed the monitor")
        self._owes_since = 0.0
        for message in self._session.receive_data(data):
            if isinstance(message, Reply):
                self._dispatch_reply(message)
            elif isinstance(message, Event):
                self._dispatch_event(message)
            elif not self._ready.done():
                self._ready.set_result(message)
        if self._session.failure is not None:
            return self.close(self._session.failure)
        return self._flush()

    def _dispatch_reply(self, reply: Reply) -> None:
        entry = self._replies.pop(reply.id, None)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("< %d %s", reply.id, reply.error or "ok")
        if entry is None or entry[1].done():
            return  # nobody waits any more: its deadline passed or its caller was cancelled
        name, answer = entry
        if reply.error is None:
            answer.set_result(reply.value)
        else:
            answer.set_exception(QmpError(name, *reply.error))

    def _dispatch_event(self, event: Event) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("< event %s %s", event.name, event.data)
        for callback in tuple(self._subscribers.values()):
            try:
                callback(event)
            except Exception:  # one listener's bug must not cost the others the monitor
                log.exception("qmp.listener_failed event=%s", event.name)

    def _expire(self, identity: int, timeout_s: float) -> None:
        entry = self._replies.pop(identity, None)
        if entry is not None and not entry[1].done():
            self._session.withdraw(identity)
            self._owes_since = self._owes_since or self._loop.time() - timeout_s
            entry[1].set_exception(MonitorTimeout(entry[0], timeout_s))

    # -- the writer --------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send what the session has; what the socket does not take now follows by itself."""
        if self.closed.done():
            return
        for item in self._session.data_to_send():
            if item.fds:
                # Copies, so that a caller who gives up and closes his own cannot make us send a
                # number that means another file by then.
                item = Outgoing(item.data, tuple(os.dup(fd) for fd in item.fds))  # noqa: PLW2901
            self._backlog.append(item)
        self._write()

    def _write(self) -> None:
        while self._backlog:
            item = self._backlog[0]
            try:
                if item.fds:
                    sent = socket.send_fds(self._sock, [item.data], list(item.fds))
                else:
                    sent = self._sock.send(item.data)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                # The reader may still hold QEMU's last words, but a broken pipe is the end.
                return self.close(f"qemu unexpectedly closed the monitor: {error.strerror}")
            for fd in item.fds:
                os.close(fd)
            if sent < len(item.data):
                self._backlog[0] = Outgoing(item.data[sent:])
            else:
                self._backlog.popleft()
        if bool(self._backlog) != self._writing:
            self._writing = bool(self._backlog)
            if self._writing:
                self._loop.add_writer(self._sock.fileno(), self._write)
            else:
                self._loop.remove_writer(self._sock.fileno())
        return None

    def _drop_backlog(self) -> None:
        for item in self._backlog:
            for fd in item.fds:
                os.close(fd)
        self._backlog.clear()
