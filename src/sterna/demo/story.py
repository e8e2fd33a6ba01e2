"""`sterna demo`: the main job, shown and measured on one machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from sterna.client.api import Host, connect
from sterna.client.moving import OnProgress
from sterna.client.types import MigrationResult
from sterna.demo.hosts import DemoHost, two_hosts
from sterna.demo.linux_guest import LinuxGuest, build, domain_xml
from sterna.demo.ticks import TickListener
from sterna.guest.states import State

GUEST = "ticker"
BOOT_TIMEOUT_S = 120.0
STEP_TIMEOUT_S = 60.0
# The controller is killed while the copy is slowed down to this, so that it is under way for sure.
SLOW_MIB_S = 4
TICK_MS = 20
# L3: 50 ms as the median of many, 200 ms for the slowest, and this is one, from the signal on.
REAP_MS_MAX = 200.0


@dataclass(frozen=True, slots=True)
class Move:
    """What one migration cost."""

    what: str
    total_ms: float
    silence_ms: float


@dataclass(frozen=True, slots=True)
class Stage:
    """Two daemons, our connections to them, and a directory."""

    a: DemoHost
    b: DemoHost
    host_a: Host
    host_b: Host
    directory: Path


@dataclass(slots=True)
class Outcome:
    """What the demo found."""

    moves: list[Move]
    reap_ms: float | None
    broken: list[str]


class Audience(Protocol):
    """Who is told how it goes (the command line)."""

    def say(self, text: str) -> None:
        """A line for people."""

    def moving(self, what: str) -> AbstractContextManager[OnProgress | None]:
        """A migration is under way: how far it is goes to what this gives."""
        ...

    def moved(self, result: MigrationResult) -> None:
        """A migration has ended well."""


async def play(audience: Audience) -> Outcome:
    """Plays the demo.

    Raises:
        DemoFailed, LinuxGuestError, SternaError: it cannot go on.
        TimeoutError: nothing happened for `STEP_TIMEOUT_S`.
    """
    audience.say("Building a small Linux guest (a kernel, busybox, and a script that ticks) …")
    guest = await asyncio.to_thread(build, None, lambda what: audience.say(f"  {what} …"))
    async with (
        two_hosts() as (a, b, directory),
        connect(a.uri) as host_a,
        connect(b.uri) as host_b,
    ):
        return await Story(Stage(a, b, host_a, host_b, directory), audience).run(guest)


class Story:
    """The demo, step by step."""

    def __init__(self, stage: Stage, audience: Audience) -> None:
        self._a, self._b = stage.a, stage.b
        self._host_a, self._host_b = stage.host_a, stage.host_b
        self._ticks = TickListener(stage.directory / "console.sock")
        self._audience = audience
        self._say = audience.say
        self._outcome = Outcome([], None, [])

    async def run(self, guest: LinuxGuest) -> Outcome:
        """Boots the guest, moves it over and back, and kills a controller in mid-flight."""
        async with self._ticks:
            await self._boot(guest)
            await self._move(self._host_a, self._host_b, "host-a → host-b")
            await self._move(self._host_b, self._host_a, "host-b → host-a")
            await self._kill_controller()
            await self._host_a.guest(GUEST).destroy()
        self._outcome.broken += self._ticks.faults
        return self._outcome

    async def _boot(self, guest: LinuxGuest) -> None:
        self._say("Starting it on host-a …")
        xml = domain_xml(
            guest, name=GUEST, uuid=str(uuid4()), serial=self._ticks.path, tick_ms=TICK_MS
        )
        await self._host_a.create(xml)
        await self._ticks.wait_more(5, timeout_s=BOOT_TIMEOUT_S)
        self._say(f"It ticks: {len(self._ticks.ticks)} ticks so far.")

    async def _move(self, source: Host, destination: Host, what: str) -> None:
        self._say(f"Moving it {what} while it runs …")
        since_ns = time.monotonic_ns()
        with self._audience.moving(what) as on_progress:
            result = await source.guest(GUEST).migrate(destination, on_progress=on_progress)
        await self._ticks.wait_more(10, timeout_s=STEP_TIMEOUT_S)
        silence = max(self._ticks.longest_silence_ms(since_ns) - TICK_MS, 0)
        self._outcome.moves.append(Move(what, result.total_ms, silence))
        self._audience.moved(result)
        if await source.guests(inactive=False):
            self._outcome.broken.append(f"after {what} the source still has the guest")

    async def _kill_controller(self) -> None:
        self._say("Starting a third migration, and killing whoever drives it in the middle …")
        controller = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sterna.cli", "migrate", GUEST, self._b.uri, "-c", self._a.uri,
            "--bandwidth", str(SLOW_MIB_S),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            pid = await self._incoming_pid()
            pidfd = os.pidfd_open(pid)
            killed = time.monotonic()
            os.kill(controller.pid, signal.SIGKILL)
            await _gone(pidfd)
            reap_ms = (time.monotonic() - killed) * 1000
        finally:
            # By the plain system call: asyncio's own `kill` would first collect a child that has
            # just ended, and its watcher then complains that it is gone.
            with suppress(ProcessLookupError):
                os.kill(controller.pid, signal.SIGKILL)
            await controller.wait()
        self._outcome.reap_ms = reap_ms
        self._say(f"  the QEMU that waited at host-b was gone {reap_ms:.1f} ms later.")
        await self._ticks.wait_more(10, timeout_s=STEP_TIMEOUT_S)
        state = await self._host_a.guest(GUEST).state()
        if state is not State.RUNNING:
            self._outcome.broken.append(f"after the kill the guest is {state.name} at host-a")
        if self._b.qemu_pids():
            self._outcome.broken.append("after the kill host-b still has a QEMU")
        if reap_ms > REAP_MS_MAX:
            self._outcome.broken.append(
                f"the orphan lived {reap_ms:.0f} ms, promised are {REAP_MS_MAX:.0f} ms"
            )
        self._say("  the guest ticks on at host-a.")

    async def _incoming_pid(self) -> int:
        """The destination's QEMU, once memory is being sent to it."""
        guest = self._host_a.guest(GUEST)
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while True:
                job = await guest.job()
                pids = self._b.qemu_pids()
                if pids and job and int(job.get("data_processed", 0)) > 0:
                    return pids[0]
                await asyncio.sleep(0.02)


async def _gone(pidfd: int) -> None:
    """Waits until the process behind a pidfd has ended."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(pidfd, gone.set)
    try:
        async with asyncio.timeout(STEP_TIMEOUT_S):
            await gone.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
