"""The data connection: ports for those who receive, a connected socket for those who send."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any, Final

from sterna.errors import InternalError
from sterna.host.ports import PortClaim, claim_port
from sterna.migration.uri import Endpoint
from sterna.rpc.sockets import limit_tcp_silence

CONNECT_S: Final = 10.0
"""How long the destination may take to accept the data connection."""
IF_INET6: Final = Path("/proc/net/if_inet6")


class PortPool:
    """TCP ports for incoming guests, out of the range that was set."""

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last
        self._claims: dict[int, PortClaim] = {}

    def take(self, address: str) -> int:
        """Reserve a port that can be bound at `address` now.

        Raises: InternalError (1) if none is left; SystemCallError if that is no address of ours.
        """
        claim = claim_port(address, self._first, self._last)
        if claim is None:
            span = f"{self._first}-{self._last}"
            raise InternalError(f"Unable to find an unused port in range 'migration' ({span})")
        self._claims[claim.port] = claim
        return claim.port

    def release(self, port: int) -> None:
        claim = self._claims.pop(port, None)
        if claim is not None:
            claim.release()


def any_address() -> str:
    """What listens everywhere on this host: `::` if it has any IPv6 address, else `0.0.0.0`."""
    try:
        return "::" if IF_INET6.read_text(encoding="ascii").strip() else "0.0.0.0"  # noqa: S104 - the documented default: every address
    except OSError:
        return "0.0.0.0"  # noqa: S104 - the documented default: every address


async def connect(endpoint: Endpoint, *, silence_s: float) -> socket.socket:
    """A connected, blocking socket for QEMU to send on; its kernel gives a peer up that has
    acknowledged nothing for `silence_s`.

    Raises: OSError, TimeoutError.
    """
    async with asyncio.timeout(CONNECT_S):
        if endpoint.scheme == "unix":
            return await _connected(socket.AF_UNIX, endpoint.path)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(endpoint.host, endpoint.port or 0, type=socket.SOCK_STREAM)
        why = "no address for it"
        for family, _type, _proto, _name, address in found:
            try:
                sock = await _connected(family, address)
            except OSError as exc:
                why = os.strerror(exc.errno) if exc.errno else str(exc)
            else:
                limit_tcp_silence(sock, silence_s)
                return sock
        where = f"{endpoint.host}:{endpoint.port}"
        raise OSError(f"unable to connect to server at '{where}': {why}")


async def _connected(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
        sock.setblocking(True)
    except BaseException:
        sock.close()
        raise
    return sock
