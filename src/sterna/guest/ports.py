"""What guests need of the world, as Protocols: connections, processes, monitors.

The server's connections and the qemu package's classes fit them; tests bring their own.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sterna.qemu.process import Exit, ProcessId
from sterna.qemu.qmp_session import Event


class ClientLink(Protocol):
    """The connection of whoever asked for something (the server's `ServerConnection`)."""

    @property
    def closed(self) -> bool:
        """Whether it has ended; the close callbacks have run then."""
        ...

    def add_close_callback(self, callback: Callable[[], None], /) -> None:
        """Call it once, synchronously, when the connection ends, however it ends."""

    def remove_close_callback(self, callback: Callable[[], None], /) -> None:
        """Forget it; harmless if it is not there."""

    def limit_silence(self, seconds: float | None, /) -> None:
        """End it after that long without a word from a peer that can be asked for one; None: as
        long as keepalive usually allows."""

    def peer_gone(self) -> bool:
        """Look at the socket now: has the peer closed or reset it? (I2)"""
        ...


class Process(Protocol):
    """A QEMU process (`sterna.qemu.process.QemuProcess`)."""

    @property
    def pid(self) -> int: ...

    @property
    def ident(self) -> ProcessId: ...

    @property
    def exit(self) -> Exit | None: ...

    def kill(self, sig: signal.Signals = signal.SIGKILL, /) -> None: ...

    def when_gone(self, callback: Callable[[Exit], None], /) -> Callable[[], None]: ...

    async def wait_gone(self) -> Exit: ...

    def close(self) -> None: ...


class Monitor(Protocol):
    """A live QMP connection (`sterna.qemu.qmp_client.QmpClient`)."""

    @property
    def closed(self) -> asyncio.Future[str]: ...

    @property
    def silent_s(self) -> float:
        """How long it has owed an answer that nobody waits for any more; 0 if it owes none."""
        ...

    async def execute(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float,
        fds: Sequence[int] = (),
        oob: bool = False,
    ) -> Any: ...

    def subscribe(self, callback: Callable[[Event], None], /) -> Callable[[], None]: ...

    def close(self, reason: str = ..., /) -> None: ...
