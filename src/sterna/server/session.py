"""What the daemon knows of one client: what it opened, what it may, what it listens to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sterna.errors import OperationFailed

if TYPE_CHECKING:
    from sterna.rpc.asyncio_shell import ServerConnection
    from sterna.server.authentication import Authentication
    from sterna.server.context import Context

CALLBACKS_MAX = 1024
"""Event registrations of one client. virsh makes 27, virt-manager about 20."""


@dataclass(slots=True, eq=False)
class Session:
    """One connection's state. Touched only on the event loop.

    Attributes:
        number: counts connections of this daemon's life; what log lines carry.
        read_only: the connection came in at the read-only socket, or opened itself so.
        authentication: how the client says who it is; None where nobody asks.
        uri: what CONNECT_OPEN named; None before it.
        callbacks: event registrations by callback id.
        legacy: event numbers registered the old way, without callback ids.
        tasks: where this connection's waiting runs; it ends with the connection.
        waiting: tasks of calls in flight.
    """

    number: int
    context: Context
    connection: ServerConnection
    read_only: bool
    tasks: asyncio.TaskGroup
    authentication: Authentication | None = None
    uri: str | None = None
    callbacks: dict[int, Any] = field(default_factory=dict)
    legacy: set[int] = field(default_factory=set)
    unsubscribe: Callable[[], None] | None = None
    waiting: set[asyncio.Task[None]] = field(default_factory=set)
    _next_callback: int = 0

    @property
    def is_stranger(self) -> bool:
        """Whether the client has still to say who it is."""
        return self.authentication is not None and self.authentication.user is None

    def add_callback(self, registration: object) -> int:
        """Give a registration its callback id.

        Raises:
            OperationFailed: this client has more than anybody needs.
        """
        if len(self.callbacks) >= CALLBACKS_MAX:
            raise OperationFailed("too many event callbacks on one connection")
        made = self._next_callback
        self._next_callback += 1
        self.callbacks[made] = registration
        return made

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a call's handler in this connection's scope."""
        task = self.tasks.create_task(work)
        self.waiting.add(task)
        task.add_done_callback(self.waiting.discard)

    def end(self) -> None:
        """The client is gone: stop listening for it, and stop waiting for its answers."""
        if self.unsubscribe is not None:
            self.unsubscribe()
            self.unsubscribe = None
        self.callbacks.clear()
        self.legacy.clear()
        for task in self.waiting:
            task.cancel()
