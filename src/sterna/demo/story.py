"""`sterna demo`: the main job, shown and measured on one machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from sterna.cli.output import print_json, print_table
from sterna.cli.progress import LiveDisplay, PlainDisplay, result_sentence
from sterna.client.api import Host, connect
from sterna.client.types import MigrationResult
from sterna.demo.hosts import DemoFailed, DemoHost, two_hosts
from sterna.demo.linux_guest import LinuxGuest, LinuxGuestError, build, domain_xml
from sterna.demo.ticks import TickListener
from sterna.errors import SternaError
from sterna.guest.states import State

GUEST = "ticker"
BOOT_TIMEOUT_S = 120.0
STEP_TIMEOUT_S = 60.0
# The controller is killed while the copy is slowed down to this, so that it is under way for sure.
SLOW_MIB_S = 4
TICK_MS = 20
Say = Callable[[str], None]
# L3, and the promise that is measured here.
REAP_MS_MAX = 50.0


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


async def run_story(*, as_json: bool) -> bool:
    """Plays the demo and prints what was measured; whether every promise was kept."""
    try:
        outcome = await _play(quiet=as_json)
    except (DemoFailed, LinuxGuestError, SternaError, TimeoutError) as error:
        why = str(error) or f"nothing happened for {STEP_TIMEOUT_S:.0f} s"
        sys.stderr.write(f"sterna: the demo cannot go on: {why}\n")
        return False
    if as_json:
        print_json(asdict(outcome))
    else:
        _print_outcome(outcome)
    return not outcome.broken


async def _play(*, quiet: bool) -> Outcome:
    say: Say = _nothing if quiet else _say
    say("Building a small Linux guest (a kernel, busybox, and a script that ticks) …")
    guest = await asyncio.to_thread(build, None, lambda what: say(f"  {what} …"))
    async with (
        two_hosts() as (a, b, directory),
        connect(a.uri) as host_a,
        connect(b.uri) as host_b,
    ):
        return await Story(Stage(a, b, host_a, host_b, directory), say, quiet=quiet).run(guest)


def _nothing(_text: str) -> None:
    """Says nothing: JSON is all that is printed."""


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Story:
    """The demo, step by step."""

    def __init__(self, stage: Stage, say: Say, *, quiet: bool) -> None:
        self._a, self._b = stage.a, stage.b
        self._host_a, self._host_b = stage.host_a, stage.host_b
        self._ticks = TickListener(stage.directory / "console.sock")
        self._say = say
        self._quiet = quiet
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
        result = await self._migrate(source, destination, what)
        await self._ticks.wait_more(10, timeout_s=STEP_TIMEOUT_S)
        silence = max(self._ticks.longest_silence_ms(since_ns) - TICK_MS, 0)
        self._outcome.moves.append(Move(what, result.total_ms, silence))
        self._say(f"  {result_sentence(result)}")
        if await source.guests(inactive=False):
            self._outcome.broken.append(f"after {what} the source still has the guest")

    async def _migrate(self, source: Host, destination: Host, what: str) -> MigrationResult:
        guest = source.guest(GUEST)
        if self._quiet:
            return await guest.migrate(destination)
        at_terminal = sys.stdout.isatty()
        with LiveDisplay(GUEST, what) if at_terminal else PlainDisplay() as display:
            return await guest.migrate(destination, on_progress=display.update)

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
            controller.send_signal(signal.SIGKILL)
            await _gone(pidfd)
            reap_ms = (time.monotonic() - killed) * 1000
        finally:
            if controller.returncode is None:
                controller.kill()
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
    done = loop.create_future()
    loop.add_reader(pidfd, lambda: done.done() or done.set_result(None))
    try:
        async with asyncio.timeout(STEP_TIMEOUT_S):
            await done
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _print_outcome(outcome: Outcome) -> None:
    rows = []
    for move in outcome.moves:
        rows.append([f"{move.what}: total time", f"{move.total_ms:.0f} ms"])
        rows.append([f"{move.what}: the guest's silence", f"{move.silence_ms:.0f} ms"])
    if outcome.reap_ms is not None:
        rows.append(["orphan gone after the controller's SIGKILL", f"{outcome.reap_ms:.1f} ms"])
    sys.stdout.write("\n")
    print_table(["MEASURED", ""], rows, terminal=sys.stdout.isatty())
    sys.stdout.write("\n")
    for promise in outcome.broken:
        sys.stdout.write(f"BROKEN: {promise}\n")
    if not outcome.broken:
        sys.stdout.write("Every promise was kept: no tick lost, none doubled, no orphan.\n")
