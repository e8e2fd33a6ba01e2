"""Calls that open a stream: a guest's console, its channels, a picture of its screen."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from typing import Any

from sterna.errors import ErrorDomain, RpcError, SystemCallError
from sterna.guest import screenshot
from sterna.guest.actor import Guest
from sterna.guest.console import Session as Terminal
from sterna.rpc.asyncio_shell import Call, ServerStream
from sterna.rpc.errors import StreamClosed
from sterna.rpc.msg_device import DomainScreenshotRet
from sterna.server.dispatch import check_flags, handles
from sterna.server.objects import find
from sterna.server.session import Session

CONSOLE_FORCE, CONSOLE_SAFE = 1, 2
READ_BYTES = 65_536

Opener = Callable[[Guest, str | None, int, Callable[[], None]], Terminal]


@handles("DOMAIN_OPEN_CONSOLE", whole_call=True)
async def domain_open_console(session: Session, call: Call) -> None:
    args: Any = call.args
    check_flags(args.flags, CONSOLE_FORCE | CONSOLE_SAFE, "qemuDomainOpenConsole")
    guest = find(session, args.dom)
    opener = session.context.consoles.open_console
    await serve_terminal(session, call, guest, args.dev_name, flags=args.flags, opener=opener)


@handles("DOMAIN_OPEN_CHANNEL", whole_call=True)
async def domain_open_channel(session: Session, call: Call) -> None:
    args: Any = call.args
    check_flags(args.flags, CONSOLE_FORCE, "qemuDomainOpenChannel")
    guest = find(session, args.dom)
    opener = session.context.consoles.open_channel
    await serve_terminal(session, call, guest, args.name, flags=args.flags, opener=opener)


async def serve_terminal(
    session: Session, call: Call, guest: Guest, name: str | None, *, flags: int, opener: Opener
) -> None:
    """Open it, answer the call, and pass bytes both ways until one side ends.

    Raises:
        SternaError: why it cannot be opened; nothing was answered then.
    """
    taken = asyncio.Event()
    terminal = opener(guest, name, flags, taken.set)
    try:
        stream = session.connection.open_stream(call)
        session.connection.reply(call)
        await Relay(terminal.fd, stream, taken, lambda: guest.running is None).run()
    finally:
        terminal.close()


class Relay:
    """Bytes between a terminal and a stream.

    When the guest stops the client gets end-of-file; when another session takes the terminal over
    it gets an error (libvirt 9.0, observed).
    """

    def __init__(
        self, fd: int, stream: ServerStream, taken: asyncio.Event, stopped: Callable[[], bool]
    ) -> None:
        # Our own descriptor: the session may close its own at any moment, and the number be reused.
        self._fd = os.dup(fd)
        self._stream = stream
        self._taken = taken
        self._stopped = stopped
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Until the stream has ended."""
        try:
            async with asyncio.TaskGroup() as tasks:
                out = tasks.create_task(self._to_client())
                watch = tasks.create_task(self._watch_taken(out))
                try:
                    await self._to_guest()
                finally:
                    out.cancel()
                    watch.cancel()
        except* StreamClosed:
            pass  # the client aborted, or is gone: nobody is left to tell
        finally:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            os.close(self._fd)

    async def _watch_taken(self, out: asyncio.Task[None]) -> None:
        await self._taken.wait()
        if self._stopped():
            return  # reading finds the end of file by itself
        out.cancel()
        self._stream.fail(RpcError("stream had I/O failure", domain=ErrorDomain.STREAMS))

    async def _to_client(self) -> None:
        while data := await self._read():
            await self._stream.send(data)
        await self._stream.send_eof()

    async def _to_guest(self) -> None:
        while (data := await self._stream.receive()) is not None:
            if not isinstance(data, bytes):
                continue
            try:
                await self._write(data)
            except OSError as error:
                self._stream.fail(
                    SystemCallError(
                        "cannot write to stream",
                        errno=error.errno or errno.EIO,
                        domain=ErrorDomain.STREAMS,
                    )
                )
                return
        await self._stream.finish()

    async def _read(self) -> bytes:
        """What the guest said; empty at the end."""
        while True:
            try:
                return os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError:
                return b""  # EIO: a terminal whose other end has closed

    async def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)

    async def _ready(self, add: Callable[..., None], remove: Callable[[int], object]) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        add(self._fd, _set, ready)
        try:
            await ready
        finally:
            remove(self._fd)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


@handles("DOMAIN_SCREENSHOT", whole_call=True)
async def domain_screenshot(session: Session, call: Call) -> None:
    args: Any = call.args
    check_flags(args.flags, 0, "qemuDomainScreenshot")
    picture = await screenshot.take(find(session, args.dom), args.screen)
    try:
        stream = session.connection.open_stream(call)
        session.connection.reply(call, DomainScreenshotRet(mime=picture.mime))
        await send_file(stream, picture.fd)
    finally:
        os.close(picture.fd)


async def send_file(stream: ServerStream, fd: int) -> None:
    """All of a file, then its end; the client's finish is confirmed by the stream."""
    try:
        while data := await asyncio.to_thread(os.read, fd, READ_BYTES):
            await stream.send(data)
        await stream.send_eof()
        while await stream.receive() is not None:
            pass
    except StreamClosed:
        pass  # the client has seen enough
