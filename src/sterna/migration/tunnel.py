"""A migration's data through the connection between the two daemons.

Either end gives its QEMU one half of a socket pair and carries bytes between the other half and a
stream of the connection. A socket and not a pipe: QEMU can shut it down, so that a cancel need not
wait for a peer that takes nothing. The data goes one way only; so `return-path` is off, and what
the source's QEMU says of the end counts only together with the destination's.

Back-pressure goes all the way: what one side does not take fills the other's socket, and QEMU waits
or slows down. Other calls of the connection go between the stream's packets.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from typing import Any, Final, Protocol

from sterna.errors import ErrorDomain, OperationFailed, SternaError, SystemCallError
from sterna.guest.surroundings import Work
from sterna.migration.remote import Upload
from sterna.rpc.errors import StreamClosed
from sterna.rpc.frame import STREAM_BYTES_MAX

log = logging.getLogger("sterna.migration.tunnel")

FD_NAME: Final = "tunnel"
"""By which a QEMU that receives knows its half."""


BUFFER_BYTES: Final = 4 * STREAM_BYTES_MAX
SO_SNDBUFFORCE: Final = 32  # asm-generic/socket.h; Python has no name for it


class Download(Protocol):
    """The stream by which the data comes (`sterna.rpc` server stream)."""

    async def receive(self) -> Any:
        """The next bytes; None at the end. Raises: StreamClosed."""

    async def finish(self) -> None:
        """Confirm that all was taken."""

    def fail(self, error: SternaError) -> None:
        """End it with an error; harmless if it has ended."""


class Tunnel:
    """The source's end."""

    def __init__(self, upload: Upload, work: Work) -> None:
        self._upload, self._work = upload, work
        self._done: asyncio.Future[None] | None = None

    def open(self) -> socket.socket:
        """The half for QEMU to send on. What it sends goes out at once.

        Raises: OSError.
        """
        ours, qemus = _pair()
        self._done = self._work.start(self._carry(ours))
        # Its failure is QEMU's, who finds its socket closed; whoever waits hears it, too.
        self._done.add_done_callback(lambda done: done.cancelled() or done.exception())
        return qemus

    async def delivered(self) -> None:
        """Until the destination has confirmed that it took everything.

        Raises: SternaError, why it did not.
        """
        if self._done is None:
            raise OperationFailed("nothing was sent through the tunnel")
        await asyncio.shield(self._done)

    async def _carry(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        space = memoryview(bytearray(STREAM_BYTES_MAX))
        sent = 0
        with sock:
            try:
                while count := await loop.sock_recv_into(sock, space):
                    await self._upload.send(space[:count])
                    sent += count
            except OSError as exc:  # QEMU was killed with its data unread
                why = os.strerror(exc.errno or errno.EIO)
                raise OperationFailed(f"cannot read from the outgoing guest: {why}") from exc
        await self._upload.finish()
        log.info("tunnel.sent bytes=%d", sent)


class TunnelEnd:
    """The destination's end."""

    def __init__(self, download: Download, work: Work) -> None:
        self._download, self._work = download, work
        self._opened = False

    def open(self) -> socket.socket:
        """The half for QEMU to receive on.

        Raises: OSError.
        """
        ours, qemus = _pair()
        self._opened = True
        self._work.start(self._carry(ours))
        return qemus

    def close(self) -> None:
        """Nobody takes anything any more. (Before it is open the failing call ends its stream.)"""
        if self._opened:
            self._download.fail(OperationFailed("the incoming guest is gone", domain=_STREAMS))

    async def _carry(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with sock:
            try:
                while (data := await self._download.receive()) is not None:
                    if isinstance(data, bytes):
                        await loop.sock_sendall(sock, data)
            except StreamClosed as closed:
                log.info("tunnel.closed why=%r", str(closed))
                return
            except OSError as exc:
                number = exc.errno or errno.EIO
                log.info("tunnel.broken why=%r", os.strerror(number))
                text = "cannot write to the incoming guest"
                self._download.fail(SystemCallError(text, errno=number, domain=_STREAMS))
                return
        await self._download.finish()


def _pair() -> tuple[socket.socket, socket.socket]:
    """Our half and QEMU's, with room for some packets, so that neither waits for each."""
    ours, qemus = socket.socketpair()
    ours.setblocking(False)
    for sock in (ours, qemus):
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_BYTES)
        except PermissionError:  # then as much as everybody may have
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    return ours, qemus


_STREAMS: Final = ErrorDomain.STREAMS
