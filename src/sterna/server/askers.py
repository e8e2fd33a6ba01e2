"""Those who come to the door of decisions: strangers, so they are served one thing only.

Whoever knows a migration's id may ask what was decided about it; the id is a random uuid that only
the two hosts and the controller know. Nothing else is answered here, nobody is waited for, and no
number of strangers keeps the others out for long.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Final

from sterna.errors import OperationDenied
from sterna.rpc.asyncio_shell import Call, Limits, ServerConnection
from sterna.server.context import Context
from sterna.server.decisions import QUESTION_BYTES_MAX
from sterna.server.dispatch import dispatch
from sterna.server.logging import event
from sterna.server.session import Session

ASKERS_MAX: Final = 64
IDLE_S: Final = 10.0
"""How long a connection may be here without an answer having been given."""
SERVED: Final = frozenset({"MIGRATION_DECIDE", "GUEST_CLAIM", "MIGRATION_REJOIN"})
LIMITS: Final = Limits(
    packet_bytes_max=QUESTION_BYTES_MAX,
    calls_running_max=2,
    calls_running_extra=2,
    calls_waiting_max=8,
    call_bytes_max=8 * QUESTION_BYTES_MAX,
)

log = logging.getLogger(__name__)


class Askers:
    """Connections at the door of decisions. Made inside the task group they live in."""

    def __init__(
        self, context: Context, tasks: asyncio.TaskGroup, *, idle_s: float = IDLE_S
    ) -> None:
        self._context = context
        self._tasks = tasks
        self._idle_s = idle_s
        self._here: set[ServerConnection] = set()

    def accept(self, sock: socket.socket, _read_only: bool) -> None:
        """Serve a socket that the door's listener accepted."""
        if len(self._here) >= ASKERS_MAX:
            # The oldest may be one that never meant to ask; a source comes again in any case.
            sock.close()
            event(log, "decision.asker_refused", logging.WARNING, askers=len(self._here))
            return
        self._tasks.create_task(self._live(sock))

    def end_all(self, reason: str) -> None:
        for connection in list(self._here):
            connection.abort(reason)

    async def _live(self, sock: socket.socket) -> None:
        async with asyncio.TaskGroup() as tasks:
            session: Session

            def handle(connection: ServerConnection, call: Call) -> None:
                if call.procedure.name in SERVED:
                    dispatch(session, call)
                    return
                refusal = f"{call.procedure.api_name} is not served here, only decisions are"
                connection.reply_error(call, OperationDenied(refusal))

            try:
                connection = ServerConnection(sock, handle, limits=LIMITS)
            except OSError:
                return  # gone before it was looked at
            session = Session(0, self._context, connection, False, tasks)
            self._here.add(connection)
            loop = asyncio.get_running_loop()
            limit = loop.call_later(self._idle_s, connection.abort, "it has been here long enough")
            try:
                await connection.wait_closed()
            finally:
                limit.cancel()
                self._here.discard(connection)
                session.end()
