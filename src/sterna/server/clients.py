"""Connections: each with its session and the scope its waiting ends with."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from dataclasses import dataclass

from sterna.host.passwords import Passwords
from sterna.rpc.asyncio_shell import Call, Limits, ServerConnection
from sterna.rpc.sockets import Transport
from sterna.server import authentication
from sterna.server.authentication import Authentication, Strangers
from sterna.server.context import Context
from sterna.server.dispatch import dispatch
from sterna.server.logging import event
from sterna.server.session import Session

READERS_LEAVE = 8
"""One place in so many is never given to a connection at the read-only socket."""

REFUSALS_TOLD_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Came:
    """A client as its listener handed it on; see `Clients.accept`."""

    sock: socket.socket
    read_only: bool
    transport: Transport | None
    certificate: str


class Clients:
    """Everybody who is connected. Made inside the task group its connections live in."""

    def __init__(self, context: Context, tasks: asyncio.TaskGroup) -> None:
        self._context = context
        self._tasks = tasks
        self._count = 0
        self._refused = 0
        self._tell_refused_at = 0.0
        self._strangers = Strangers(Passwords(context.places.passwords))

    def accept(
        self,
        sock: socket.socket,
        read_only: bool,
        *,
        transport: Transport | None = None,
        certificate: str = "",
    ) -> None:
        """Serve a socket that a listener accepted.

        Args:
            transport: what carries the bytes if it is not the plain socket.
            certificate: the name in the certificate that the client has shown.
        """
        if len(self._context.sessions) >= self._places(read_only):
            sock.close()
            self._count_refused()
            return
        self._count += 1
        came = Came(sock, read_only, transport, certificate)
        self._tasks.create_task(self._live(self._count, came))

    def _count_refused(self) -> None:
        """Tell of refused clients, but not with a line for each: there may be very many."""
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now >= self._tell_refused_at:
            event(log, "client.refused", logging.WARNING, clients=self._refused)
            self._refused = 0
            self._tell_refused_at = now + REFUSALS_TOLD_S

    def _places(self, read_only: bool) -> int:
        """How many may be here for one more to be let in.

        Not more than descriptors allow, since guests need some, too; and those who may only read,
        which can be anybody, leave some to those who rule the host.
        """
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        places = min(self._context.settings.clients_max, descriptors // 2)
        return places - places // READERS_LEAVE if read_only else places

    def end_all(self, reason: str) -> None:
        """Hang up on everybody; what lives by a connection ends with it."""
        for session in list(self._context.sessions.values()):
            session.connection.abort(reason)

    async def _live(self, number: int, came: Came) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                session = self._begin(number, came, tasks)
                if session is not None:
                    reason = await session.connection.wait_closed()
                    self._end(session, reason)
        except Exception:  # the connection's boundary: one client never takes the daemon along
            log.exception("client.failed", extra={"f": {"client": number}})
            with contextlib.suppress(OSError):
                came.sock.close()

    def _begin(self, number: int, came: Came, tasks: asyncio.TaskGroup) -> Session | None:
        session: Session
        limits = Limits(calls_running_max=self._context.settings.client_calls_max)
        asked = self._is_asked(came)

        def handle(_: ServerConnection, call: Call) -> None:
            dispatch(session, call)

        try:
            connection = ServerConnection(
                came.sock,
                handle,
                limits=authentication.LIMITS if asked else limits,
                transport=came.transport,
            )
        except OSError:
            came.sock.close()  # gone before it was looked at
            return None
        session = Session(number, self._context, connection, came.read_only, tasks)
        if asked:
            optional = self._context.settings.tls_client_certificate == "optional"
            session.authentication = Authentication(
                connection, self._strangers, came.certificate if optional else "", limits
            )
        self._context.sessions[number] = session
        peer = connection.peer
        event(
            log,
            "client.connected",
            logging.DEBUG,
            client=number,
            peer=peer.address,
            uid=peer.uid,
            read_only=came.read_only,
            certificate=came.certificate,
        )
        return session

    def _is_asked(self, came: Came) -> bool:
        """Whether a client has to say who it is before anything else."""
        settings = self._context.settings
        if came.transport is not None:
            return settings.auth_tls == "sasl"
        return came.sock.family != socket.AF_UNIX and settings.auth_tcp == "sasl"

    def _end(self, session: Session, reason: str) -> None:
        self._context.sessions.pop(session.number, None)
        session.end()
        event(log, "client.gone", logging.DEBUG, client=session.number, reason=reason)
