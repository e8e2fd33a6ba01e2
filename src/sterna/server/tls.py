"""The door for TLS: handshakes, and whom a good certificate lets in.

A stranger costs a handshake and no more: so many at once, each for so long, and what goes wrong in
one ends that connection alone.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from sterna.host.pki import server_files
from sterna.rpc.asyncio_tls import accept_tls, welcome
from sterna.rpc.sockets import Transport, peer_of
from sterna.rpc.tls import (
    TlsFilesError,
    TlsTransport,
    distinguished_name,
    is_allowed,
    server_context,
    why_refused,
)
from sterna.server.logging import event

HANDSHAKES_MAX: Final = 64
"""Handshakes under way. One more ends the oldest: an honest one takes milliseconds."""
HANDSHAKE_S: Final = 10.0
REFUSALS_TOLD_S: Final = 5.0

log = logging.getLogger(__name__)


class Serve(Protocol):
    """Takes a client over: its socket, whether it may only read, and what TLS made of it."""

    def __call__(
        self, sock: socket.socket, read_only: bool, *, transport: Transport, certificate: str
    ) -> None: ...


class Certificates:
    """The certificates in force.

    Args:
        demand: clients must have one, too.

    Raises:
        TlsFilesError: they cannot be used.
    """

    def __init__(self, pki: Path, *, demand: bool = True) -> None:
        self._pki = pki
        self.demand = demand
        self.context = self._read()

    def reload(self) -> None:
        """Read them again, for handshakes from now on. Broken ones don't take the place of those
        that work: that is an error in the log."""
        try:
            self.context = self._read()
        except TlsFilesError as error:
            event(log, "tls.certificates_refused", logging.ERROR, error=error, kept="the old ones")
        else:
            event(log, "tls.certificates_loaded", pki=self._pki)

    def _read(self) -> ssl.SSLContext:
        files = server_files(self._pki)
        assert files.certificate is not None  # noqa: S101 - a server's always have a path
        assert files.key is not None  # noqa: S101 - the same
        return server_context(
            ca=files.ca,
            certificate=files.certificate,
            key=files.key,
            revoked=files.revoked,
            demand=self.demand,
        )


class TlsDoor:
    """Clients on their way in. Made inside the task group their handshakes run in.

    Args:
        serve: gets those who are in.
        allowed: patterns of names that may come in, asked anew for each client; none: every
            certificate of the CA's.
    """

    def __init__(
        self,
        certificates: Certificates,
        serve: Serve,
        allowed: Callable[[], tuple[str, ...]],
        tasks: asyncio.TaskGroup,
        *,
        handshake_s: float = HANDSHAKE_S,
    ) -> None:
        self._certificates = certificates
        self._serve = serve
        self._allowed = allowed
        self._tasks = tasks
        self._handshake_s = handshake_s
        self._pending: dict[asyncio.Task[None], socket.socket] = {}
        self._untold = 0
        self._tell_at = 0.0

    def accept(self, sock: socket.socket, read_only: bool) -> None:
        """Begin the handshake of a socket that a listener accepted."""
        if len(self._pending) >= HANDSHAKES_MAX:
            oldest = next(iter(self._pending))
            self._forget(oldest)
            oldest.cancel()
        task = self._tasks.create_task(self._admit(sock, read_only))
        self._pending[task] = sock
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        sock = self._pending.pop(task, None)
        if sock is not None:
            sock.close()  # where TLS has not taken it over

    def end_all(self) -> None:
        """Give up the handshakes under way."""
        for task in list(self._pending):
            task.cancel()

    async def _admit(self, sock: socket.socket, read_only: bool) -> None:
        tls: ssl.SSLSocket | None = None
        address = "a client"
        try:
            address = peer_of(sock).address
            async with asyncio.timeout(self._handshake_s):
                tls = await accept_tls(sock, self._certificates.context)
                name = distinguished_name(tls)
                # Who has none must say who it is in another way.
                shown = name or self._certificates.demand
                if shown and not is_allowed(name, self._allowed()):
                    raise OSError(errno.EACCES, f"the name {name!r} is not in tls_allowed_dn")
                await welcome(tls)
        except asyncio.CancelledError:
            if tls is not None:
                tls.close()
            raise
        except TimeoutError:
            self._tell(address, f"no handshake within {self._handshake_s:g} s")
        except OSError as error:
            why = why_refused(error) if isinstance(error, ssl.SSLError) else error.strerror
            self._tell(address, why or "it went away")
        except Exception:  # one client's handshake never takes the daemon along
            log.exception("tls.handshake_failed")
        else:
            self._serve(tls, read_only, transport=TlsTransport(tls), certificate=name)
            return
        if tls is not None:
            tls.close()

    def _tell(self, address: str, why: str) -> None:
        """A line for those turned away, but not one for each: there may be very many."""
        self._untold += 1
        now = asyncio.get_running_loop().time()
        if now >= self._tell_at:
            told, self._untold = self._untold, 0
            self._tell_at = now + REFUSALS_TOLD_S
            event(log, "tls.client_refused", logging.WARNING, peer=address, clients=told, why=why)
