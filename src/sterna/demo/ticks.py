"""Listens to the demo guest's console, from whichever host, and judges its ticks."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self, cast

TICK = re.compile(rb"tick (\d+)\r?")
# Ten minutes of a guest that ticks every 20 ms; a demo is shorter.
TICKS_KEPT_MAX = 30_000


@dataclass(frozen=True, slots=True)
class Tick:
    """One tick: when it was heard (monotonic clock, ns), and on which connection (0, 1, …)."""

    at_ns: int
    number: int
    speaker: int


class TickListener:
    """A unix socket that every QEMU of the guest connects to, as `domain_xml(serial=…)` says.

    Bytes of all connections are joined in order of arrival before they are cut into lines, since a
    guest may move in the middle of one.

    Attributes:
        ticks: what was heard, oldest first.
        faults: one sentence for each tick that was lost or heard twice; empty is the promise.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ticks: list[Tick] = []
        self.faults: list[str] = []
        self._pending = b""
        self._connections = 0
        self._open: set[asyncio.Transport] = set()
        self._news = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Console(self), str(self.path))
        # QEMU may run as another user.
        self.path.chmod(0o777)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for transport in self._open:
            transport.abort()
        self.path.unlink(missing_ok=True)

    def opened(self, transport: asyncio.Transport) -> int:
        """A QEMU connected; its number."""
        self._open.add(transport)
        self._connections += 1
        return self._connections - 1

    def closed(self, transport: asyncio.Transport) -> None:
        """It is gone."""
        self._open.discard(transport)

    def heard(self, speaker: int, data: bytes) -> None:
        """It said something, now."""
        self._take(time.monotonic_ns(), speaker, data)
        self._news.set()

    def _take(self, at_ns: int, speaker: int, data: bytes) -> None:
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            if not (found := TICK.fullmatch(line)):
                continue
            number = int(found[1])
            if self.ticks and number != (due := self.ticks[-1].number + 1):
                kind = "again" if number < due else "too early"
                self.faults.append(f"tick {number} was heard {kind}: {due} was due")
            self.ticks.append(Tick(at_ns, number, speaker))
        del self.ticks[:-TICKS_KEPT_MAX]

    async def wait_more(self, count: int, *, timeout_s: float) -> None:
        """Until the guest ticked so many times more than now.

        Raises:
            TimeoutError: it did not.
        """
        goal = (self.ticks[-1].number if self.ticks else 0) + count
        async with asyncio.timeout(timeout_s):
            while not self.ticks or self.ticks[-1].number < goal:
                self._news.clear()
                await self._news.wait()

    def longest_silence_ms(self, since_ns: int = 0) -> float:
        """The longest time between two ticks that follow each other after that moment."""
        chosen = [tick for tick in self.ticks if tick.at_ns >= since_ns]
        return max((b.at_ns - a.at_ns for a, b in pairwise(chosen)), default=0) / 1e6

    @property
    def moves(self) -> int:
        """How often the ticks went on from another QEMU."""
        return sum(a.speaker != b.speaker for a, b in pairwise(self.ticks))


class _Console(asyncio.Protocol):
    """One QEMU's end of the console."""

    def __init__(self, listener: TickListener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._speaker = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._speaker = self._listener.opened(self._transport)

    def data_received(self, data: bytes) -> None:
        self._listener.heard(self._speaker, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._listener.closed(self._transport)
