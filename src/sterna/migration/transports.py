"""The data connection: ports for those who receive, a connected socket for those who send."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any, Final

from sterna.errors import InternalError
from sterna.migration.uri import Endpoint

CONNECT_S: Final = 10.0
"""How long the destination may take to accept the data connection."""
IF_INET6: Final = Path("/proc/net/if_inet6")


class PortPool:
    """TCP ports for incoming guests: the lowest that is free and that no daemon has given away.

    Several daemons may share a machine and the range. Until QEMU has bound a port, a few dozen
    milliseconds later, only a claim tells the others: a name among the kernel's abstract unix
    sockets, which belong to the network namespace, as ports do, and vanish with their process.
    """

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last
        self._claims: dict[int, socket.socket] = {}

    def take(self, address: str) -> int:
        """Reserve a port that can be bound at `address` now.

        QEMU binds it a moment later. A program that isn't Sterna may be faster:
        `migrate-incoming` then fails and with it Prepare.

        Raises: InternalError (1) if none is left.
        """
        for port in range(self._first, self._last + 1):
            claim = None if port in self._claims else _claimed(port)
            if claim is None:
                continue
            if _free(address, port):
                self._claims[port] = claim
                return port
            claim.close()
        span = f"{self._first}-{self._last}"
        raise InternalError(f"Unable to find an unused port in range 'migration' ({span})")

    def release(self, port: int) -> None:
        claim = self._claims.pop(port, None)
        if claim is not None:
            claim.close()


def _claimed(port: int) -> socket.socket | None:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0sterna-migration-port-{port}")
    except OSError:
        claim.close()
        return None
    return claim


def _free(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def any_address() -> str:
    """What listens everywhere on this host: `::` if it has any IPv6 address, else `0.0.0.0`."""
    try:
        return "::" if IF_INET6.read_text(encoding="ascii").strip() else "0.0.0.0"  # noqa: S104 - the documented default: every address
    except OSError:
        return "0.0.0.0"  # noqa: S104 - the documented default: every address


async def connect(endpoint: Endpoint) -> socket.socket:
    """A connected, blocking socket for QEMU to send on.

    Raises: OSError, TimeoutError.
    """
    async with asyncio.timeout(CONNECT_S):
        if endpoint.scheme == "unix":
            return await _connected(socket.AF_UNIX, endpoint.path)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(endpoint.host, endpoint.port or 0, type=socket.SOCK_STREAM)
        failure: OSError = OSError(f"no address for {endpoint.host}")
        for family, _type, _proto, _name, address in found:
            try:
                return await _connected(family, address)
            except OSError as exc:
                failure = exc
        raise failure


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
