"""Connected pairs for tests of connections."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from sterna.rpc.asyncio_shell import Call, ClientConnection, Limits, ServerConnection
from sterna.rpc.msg_connect import ConnectGetHostnameRet

Serve = Callable[[ServerConnection, Call], None]
WAIT_S = 5.0


class Ends:
    """Makes daemon's ends, client's ends and plain sockets, and closes them all."""

    def __init__(self) -> None:
        self.open: list[ServerConnection | ClientConnection | socket.socket] = []

    def server(
        self, serve: Serve, *, limits: Limits | None = None
    ) -> tuple[ServerConnection, socket.socket]:
        """A daemon's end, and the plain non-blocking socket of its client."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        connection = ServerConnection(ours, serve, limits=limits)
        self.open += [connection, theirs]
        return connection, theirs

    def pair(
        self, serve: Serve, *, limits: Limits | None = None
    ) -> tuple[ServerConnection, ClientConnection]:
        """Both ends."""
        ours, theirs = socket.socketpair()
        connection = ServerConnection(ours, serve, limits=limits)
        client = ClientConnection.from_socket(theirs)
        self.open += [connection, client]
        return connection, client

    def client(self) -> tuple[ClientConnection, socket.socket]:
        """A client's end, and the plain non-blocking socket of its daemon."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        client = ClientConnection.from_socket(ours)
        self.open += [client, theirs]
        return client, theirs

    def close(self) -> None:
        """Close everything."""
        for end in self.open:
            if isinstance(end, socket.socket):
                end.close()
            else:
                end.abort("the test is over")


def open_fds() -> set[str]:
    """Descriptors of this process."""
    return set(os.listdir("/proc/self/fd"))


async def until(condition: Callable[[], object], within_s: float = 5.0) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - it looks at state that tells nobody
            await asyncio.sleep(0.001)


def hostname(connection: ServerConnection, call: Call) -> None:
    """Answers everything with a host name."""
    connection.reply(call, ConnectGetHostnameRet("tern"))


class Collects:
    """Keeps calls and answers none."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(self, connection: ServerConnection, call: Call) -> None:
        self.calls.append(call)


async def read(sock: socket.socket, count: int) -> bytes:
    """So many bytes, or fewer if it ends."""
    raw = b""
    async with asyncio.timeout(WAIT_S):
        while len(raw) < count:
            piece = await asyncio.get_running_loop().sock_recv(sock, 65_536)
            if not piece:
                break
            raw += piece
    return raw


async def send(sock: socket.socket, raw: bytes) -> None:
    """All of it."""
    async with asyncio.timeout(WAIT_S):
        await asyncio.get_running_loop().sock_sendall(sock, raw)


async def ended(connection: ServerConnection | ClientConnection) -> str:
    """Why it ended."""
    async with asyncio.timeout(WAIT_S):
        return await connection.wait_closed()
