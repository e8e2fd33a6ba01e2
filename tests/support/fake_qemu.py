"""QEMU processes and monitors without QEMU, for tests of what is above them."""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sterna.guest.resources import Taken
from sterna.guest.running import Running
from sterna.qemu.process import Exit, ProcessId
from sterna.qemu.qmp_errors import MonitorGone
from sterna.qemu.qmp_session import Event


class FakeProcess:
    """Ends when it is told to; `deaf` ignores SIGTERM, as a hanging QEMU does."""

    def __init__(self, pid: int) -> None:
        self.ident = ProcessId(pid, pid * 10, "boot")
        self.exit: Exit | None = None
        self.signals: list[signal.Signals] = []
        self.deaf = False
        self.monitor: FakeMonitor | None = None
        self._callbacks: list[Callable[[Exit], None]] = []

    @property
    def pid(self) -> int:
        return self.ident.pid

    def kill(self, sig: signal.Signals = signal.SIGKILL, /) -> None:
        self.signals.append(sig)
        if self.exit is not None:
            return
        if sig == signal.SIGKILL:
            self.end(-9)
        elif not self.deaf:
            if self.monitor is not None:
                self.monitor.say("SHUTDOWN", guest=False, reason="host-signal")
            self.end(0)

    def end(self, status: int) -> None:
        """The process is gone; the loop hears of it in its next turn, as by a pidfd."""
        self.exit = Exit(status)
        asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self.exit or Exit(None))
        if self.monitor is not None:
            self.monitor.close("qemu unexpectedly closed the monitor")

    def when_gone(self, callback: Callable[[Exit], None], /) -> Callable[[], None]:
        self._callbacks.append(callback)

        def forget() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return forget

    async def wait_gone(self) -> Exit:
        gone = asyncio.Event()
        forget = self.when_gone(lambda _exit: gone.set())
        if self.exit is None:
            await gone.wait()
        forget()
        return self.exit or Exit(None)

    def close(self) -> None:
        self._callbacks.clear()


class FakeMonitor:
    """Runs and stops CPUs, and keeps what was asked.

    Answers what `replies` say, then raises the events in `says`.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, Any] | None]] = []
        self.replies: dict[str, Any] = {
            "query-chardev": [{"label": "charserial0", "filename": "pty:/dev/pts/7"}],
            "query-cpus-fast": [{"cpu-index": 0, "thread-id": 4242}],
            "query-status": {"status": "running", "running": True},
            "query-migrate-parameters": {"downtime-limit": 300, "xbzrle-cache-size": 1 << 26},
        }
        self.hanging: set[str] = set()
        self.says: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._subscribers: list[Callable[[Event], None]] = []
        self._cpus_run = False
        self.silent_s = 0.0

    async def execute(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float,
        fds: Sequence[int] = (),
        oob: bool = False,
    ) -> Any:
        self.asked.append((name, arguments))
        if name in self.hanging:
            await asyncio.wait([self.closed])
        if self.closed.done():
            raise MonitorGone(self.closed.result())
        await asyncio.sleep(0)
        if name in ("cont", "stop") and self._cpus_run != (name == "cont"):
            self._cpus_run = name == "cont"
            self.say("RESUME" if self._cpus_run else "STOP")
        for event, data in self.says.get(name, ()):
            asyncio.get_running_loop().call_soon(functools.partial(self.say, event, **data))
        reply = self.replies.get(name, {})
        if isinstance(reply, Exception):
            raise reply
        return reply

    def say(self, name: str, **data: Any) -> None:
        """An event of QEMU's own."""
        for subscriber in list(self._subscribers):
            subscriber(Event(name, data, 1_000_000))

    def execute_event(self, name: str) -> None:
        """STOP or RESUME of QEMU's own accord."""
        self._cpus_run = name == "RESUME"
        self.say(name)

    def subscribe(self, callback: Callable[[Event], None], /) -> Callable[[], None]:
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def close(self, reason: str = "closed by us", /) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)

    @property
    def commands(self) -> list[str]:
        return [name for name, _ in self.asked]


class FakeLauncher:
    """Makes fake QEMUs. `before_spawn` runs at the moment of the spawn; `fail` is raised there."""

    def __init__(self) -> None:
        self.processes: list[FakeProcess] = []
        self.monitors: list[FakeMonitor] = []
        self.incoming: list[bool] = []
        self.before_spawn: Callable[[], None] = lambda: None
        self.connecting: asyncio.Event | None = None
        self.fail: Exception | None = None
        self.strays: list[str] = []
        self.released: list[str | None] = []
        self.kept: list[str] = []

    async def spawn(self, running: Running, taken: Taken, *, incoming: bool) -> FakeProcess:
        self.before_spawn()
        if self.fail is not None:
            raise self.fail
        process = FakeProcess(1000 + len(self.processes))
        self.processes.append(process)
        self.incoming.append(incoming)
        return process

    async def connect(self, running: Running) -> FakeMonitor:
        process = self.processes[-1]
        process.monitor = FakeMonitor()
        self.monitors.append(process.monitor)
        if self.connecting is not None:
            await self.connecting.wait()
        if process.exit is not None:
            raise MonitorGone("qemu unexpectedly closed the monitor")
        return process.monitor

    def release(self, running: Running) -> None:
        self.released.append(running.migration)

    def keep(self, running: Running, migration: str) -> None:
        self.kept.append(migration)

    def let_go(self, migration: str) -> None:
        if migration in self.kept:
            self.kept.remove(migration)

    async def end_stray(self, run_dir: Path) -> None:
        self.strays.append(run_dir.name)

    def attach(self, ident: ProcessId) -> FakeProcess:
        for process in self.processes:
            if process.ident == ident and process.exit is None:
                return process
        raise ProcessLookupError(ident.pid)

    @property
    def process(self) -> FakeProcess:
        return self.processes[-1]

    @property
    def monitor(self) -> FakeMonitor:
        return self.monitors[-1]


def make_guest_dirs(root: Path) -> dict[str, Path]:
    """The directories a registry works in."""
    made = {name: root / name for name in ("run", "log", "nvram", "save")}
    for path in made.values():
        path.mkdir()
    return made
