"""The handshakes of TLS on a socket that does not block, as a server and as a client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from sterna.rpc.tls import WELCOME

T = TypeVar("T")


class CertificateRefused(ConnectionError):
    """The server would not have us, and has closed without a word."""

    def __init__(self) -> None:
        super().__init__("the host does not accept our certificate, or we have none to show")
        self.strerror = str(self)


async def accept_tls(sock: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A client's handshake. The socket is the result's, or closed.

    Raises:
        OSError: the client speaks no TLS, has no good certificate, or went away.
    """
    tls = _wrapped(sock, context, server_side=True)
    try:
        await _when_ready(tls, tls.do_handshake)
    except BaseException:
        tls.close()
        raise
    return tls


async def welcome(tls: ssl.SSLSocket) -> None:
    """Tell a client that it may come in. OSError if it went away."""
    await _when_ready(tls, lambda: tls.send(WELCOME))


async def connect_tls(sock: socket.socket, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    """Shake hands over a connected socket and wait to be let in. The socket is the result's, or
    closed.

    Args:
        host: the name or address that the server's certificate must have.

    Raises:
        ssl.SSLCertVerificationError: the server's certificate is not to be believed.
        CertificateRefused: the server does not want ours.
        OSError: the handshake failed otherwise.
    """
    tls = _wrapped(sock, context, host=host)
    try:
        await _when_ready(tls, tls.do_handshake)
        try:
            said = await _when_ready(tls, lambda: tls.recv(len(WELCOME)))
        except ConnectionResetError:
            said = b""
        if said != WELCOME:
            raise CertificateRefused
    except BaseException:
        tls.close()
        raise
    return tls


def _wrapped(
    sock: socket.socket, context: ssl.SSLContext, *, server_side: bool = False, host: str = ""
) -> ssl.SSLSocket:
    try:
        return context.wrap_socket(
            sock,
            server_side=server_side,
            server_hostname=host or None,
            do_handshake_on_connect=False,
        )
    except BaseException:
        sock.close()
        raise


async def _when_ready(tls: ssl.SSLSocket, step: Callable[[], T]) -> T:
    """Take a step again each time the socket is ready for it. Raises what the step raises."""
    loop = asyncio.get_running_loop()
    fd = tls.fileno()
    while True:
        ready: asyncio.Future[None] = loop.create_future()
        try:
            return step()
        except ssl.SSLWantReadError:
            loop.add_reader(fd, _set, ready)
        except ssl.SSLWantWriteError:
            loop.add_writer(fd, _set, ready)
        try:
            await ready
        finally:
            with contextlib.suppress(ValueError):
                loop.remove_reader(fd)
                loop.remove_writer(fd)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
