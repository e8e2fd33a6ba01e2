"""The door at which other hosts ask what was decided here, and nothing else is served.

It is opened for the first guest that comes here, and kept from then on, at the same port over all
restarts: a source may ask at any time (L5), and knows no other place. A daemon that never received
a guest has no such door. See docs/explanation/asking.md.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Final

from sterna.guest.surroundings import Work
from sterna.migration.answers import Host
from sterna.migration.transports import any_address
from sterna.migration.uri import bracketed
from sterna.server.listeners import Accepted, Listener, ListenError, bind_tcp
from sterna.server.logging import event
from sterna.store.errors import StoreFailed
from sterna.store.ports import Store

PORT_KEY: Final = "decision_port"
"""Where the store keeps the port, among the host's own values."""
FIRST_PORT: Final = 49216
"""Behind those that incoming guests take by default."""
TRIES_MAX: Final = 128
RETRY_S: Final = 1.0
LOOKUP_S: Final = 2.0
"""How long the resolver may take to say which address is ours."""
QUESTION_BYTES_MAX: Final = 64 * 1024
"""A question has 80 bytes and a host's name. Strangers must not make us keep megabytes."""

log = logging.getLogger(__name__)


class DecisionListener:
    """The sockets of that door, once there are any.

    Args:
        port: the one to take at first; 0 for the first free one from 49216 upward.
    """

    def __init__(self, store: Store, host: Host, port: int, *, retry_s: float = RETRY_S) -> None:
        self._store = store
        self._host = host
        self._wanted = port
        self._retry_s = retry_s
        self._accept: Accepted | None = None
        self._listeners: list[Listener] = []
        self._port = 0
        self._opening = asyncio.Lock()

    @property
    def port(self) -> int:
        """The port that sources are told; 0 as long as there is none."""
        return self._port

    @property
    def listening(self) -> bool:
        return bool(self._listeners)

    async def start(self, accept: Accepted, work: Work) -> None:
        """Open the door again, if this host ever had one. Who comes is given to `accept`.

        A port that is taken is tried again until it is ours, as a part of `work`.
        """
        self._accept = accept
        kept = (await self._store.meta()).get(PORT_KEY)
        if kept is None:
            return
        self._port = int(kept)
        if self._wanted not in (0, self._port):
            meaning = "sources know the old port: it is kept"
            event(
                log,
                "decision.port_kept",
                logging.WARNING,
                port=self._port,
                decision_port=self._wanted,
                meaning=meaning,
            )
        addresses = await self._addresses()
        if not self._take(addresses, self._port, logging.ERROR):
            work.start(self._retry())

    async def own_place(self) -> str | None:
        """Where sources shall ask: opened now, if it was not. None if no port can be had."""
        async with self._opening:
            if self._accept is None:
                return None
            if not self._port and not await self._open():
                return None
        told = self._host.address or self._host.reached_at or self._host.name
        return f"tcp://{bracketed(told)}:{self._port}"

    def close(self) -> None:
        """Stop listening, and trying to."""
        self._accept = None
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    async def _open(self) -> bool:
        """Find a port and keep it for ever."""
        addresses = await self._addresses()
        ports = [self._wanted] if self._wanted else range(FIRST_PORT, FIRST_PORT + TRIES_MAX)
        for port in ports:
            level = logging.WARNING if self._wanted else logging.DEBUG
            if not self._take(addresses, port, level):
                continue
            try:
                # Durable before anybody is told: a source may ask after our next start.
                await self._store.set_meta(PORT_KEY, str(port))
            except StoreFailed as error:
                # No guest of another Sterna comes then: its source could not ask.
                event(log, "decision.port_not_kept", logging.ERROR, port=port, error=error)
                self._drop()
                return False
            self._port = port
            return True
        event(log, "decision.no_port", logging.ERROR, first=ports[0], last=ports[-1])
        return False

    async def _retry(self) -> None:
        while not self.listening and self._accept is not None:
            await asyncio.sleep(self._retry_s)
            # Looked up again: an address may come to this host late, too.
            self._take(await self._addresses(), self._port, logging.DEBUG)

    async def _addresses(self) -> list[str]:
        """Numeric addresses to listen on. A name that is not known stays as it is, and fails."""
        address = self._host.address
        if not address:
            everywhere = ["0.0.0.0"]  # noqa: S104 - the documented default: every address
            return ["::", *everywhere] if any_address() == "::" else everywhere
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LOOKUP_S):
                found = await loop.getaddrinfo(address.strip("[]"), 0, type=socket.SOCK_STREAM)
        except OSError as error:  # TimeoutError is one
            event(log, "decision.no_address", logging.WARNING, address=address, error=error)
            return []
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def _take(self, addresses: list[str], port: int, level: int) -> bool:
        """Listen on that port of every address; of none if one is taken."""
        bound: list[socket.socket] = []
        try:
            for address in addresses:
                bound += bind_tcp(address, port)
        except ListenError as error:
            for sock in bound:
                sock.close()
            event(log, "decision.port_taken", level, port=port, error=error)
            return False
        if self._accept is None or not bound:
            return False
        for sock in bound:
            address = sock.getsockname()[0]
            name = f"decisions {bracketed(address)}:{port}"
            self._listeners.append(Listener(sock, self._accept, read_only=False, name=name))
            event(log, "decision.listening", address=address, port=port)
        return True

    def _drop(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners = []
