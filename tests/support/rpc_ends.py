"""Connected pairs for tests of connections."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from sterna.rpc.asyncio_shell import Call, ClientConnection, Limits, ServerConnection

Serve = Callable[[ServerConnection, Call], None]


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
