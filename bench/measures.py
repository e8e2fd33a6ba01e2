"""What is measured, on bare QEMU and on a pair of hosts; each result is a list of single values."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contenders import Pair, Side
from support.bare_qemu import BareQemu, migrate, tick_arguments
from support.clients import py_client, run, start_virsh, virsh
from support.domains import tick_xml
from support.history import History
from support.processes import Watched, wait_for
from support.serial import SerialTap
from support.tick_guest import TickParameters

CLIENT = Path(__file__).with_name("client.py")
SMALL_GUEST = TickParameters(region_mib=1, dirty_mib_s=0, check_mib_s=0)
# 128 MiB in all, dirtying what a quiet guest does.
MOVING_GUEST = TickParameters(region_mib=108, dirty_mib_s=4, check_mib_s=4)
# QEMU stops a guest for as long as it thinks the last pages take, which varies from run to run. One
# that dirties nothing and may be stopped for a moment only is stopped for the handover alone: what
# a manager adds to that can be seen.
STILL_GUEST = TickParameters(region_mib=108, dirty_mib_s=0, check_mib_s=4, tick_ms=1)
CROWD = 40
CYCLES = 10
MOVES = 5
KILLS = 10
STILL_DOWNTIME_MS = 10
TICKS_BETWEEN = 50


@dataclass(frozen=True, slots=True)
class Results:
    """Values by the key of `report.ROWS`."""

    values: dict[str, list[float]]


def silence_ms(history: History) -> float:
    """Of the last move."""
    return history.silences_at_moves_ms()[-1]


# ---- the floor ----


def floor(elf: Path, directory: Path, say: Callable[[str], None]) -> Results:
    """Bare QEMU, driven as directly as can be."""
    found: dict[str, list[float]] = {"create": [], "destroy": [], "migrate": [], "silence": []}
    say("bare QEMU: create and destroy")
    for _ in range(CYCLES):
        start = time.monotonic()
        with BareQemu([*tick_arguments(elf, SMALL_GUEST, None), "-S"]) as qemu:
            found["create"].append((time.monotonic() - start) * 1000)
            found["destroy"].append(qemu.kill())
    found["orphan"] = found["destroy"]
    found["virsh"] = [run(["virsh", "--version"]).elapsed_ms for _ in range(CYCLES)]
    say("bare QEMU: migrate")
    for _ in range(MOVES):
        found["migrate"].append(bare_move(elf, directory, MOVING_GUEST)[0])
        found["silence"].append(bare_move(elf, directory, STILL_GUEST)[1])
    return Results(found)


def bare_move(elf: Path, directory: Path, guest: TickParameters) -> tuple[float, float]:
    """One migration, with all that a manager must do too: wall time and the guest's silence, ms."""
    with SerialTap(directory / "floor") as tap, contextlib.ExitStack() as undo:
        arguments = tick_arguments(elf, guest, tap.path)
        source = undo.enter_context(BareQemu(arguments))
        tap.wait_more_ticks(TICKS_BETWEEN)
        start = time.monotonic()
        destination = undo.enter_context(BareQemu([*arguments, "-incoming", "defer", "-S"]))
        if guest is STILL_GUEST:
            limit = {"downtime-limit": STILL_DOWNTIME_MS}
            source.qmp.execute("migrate-set-parameters", limit)
        migrate(source, destination)
        source.kill()
        wall_ms = (time.monotonic() - start) * 1000
        history = tap.wait_more_ticks(TICKS_BETWEEN)
        history.check_one_history()
        return wall_ms, silence_ms(history)


# ---- a manager ----


def measure(elf: Path, directory: Path, pair: Pair, say: Callable[[str], None]) -> Results:
    """Everything, on one contender."""
    first = pair[0]
    found: dict[str, list[float]] = {"memory_0": [first.memory_kib() / 1024]}
    single = directory / "single.xml"
    single.write_text(tick_xml("single", elf, SMALL_GUEST))

    def client(what: str, xml: Path, count: int) -> Any:
        return py_client(CLIENT, what, first.uri, str(xml), str(count), timeout_s=300)

    # The first guest of all pays for probing QEMU; that is done once for each QEMU there is.
    client("cycle", single, 1)
    say("create and destroy")
    found |= client("cycle", single, CYCLES)
    say("small calls")
    client("crowd", single, 1)
    found |= client("small", single, 5)
    client("disperse", single, 0)
    say(f"{CROWD} guests")
    many = directory / "many.xml"
    text = tick_xml("guest-NUMBER", elf, SMALL_GUEST)
    many.write_text("\n".join(line for line in text.splitlines() if "<uuid>" not in line))
    try:
        client("crowd", many, CROWD)
        found["stats"] = client("stats", many, 20)["stats"]
        found["memory_40"] = [first.memory_kib() / 1024]
    finally:
        client("disperse", many, 0)
    say("migrate")
    found["migrate"] = [wall for wall, _ in moves(elf, directory, pair, MOVING_GUEST)]
    found["silence"] = [silence for _, silence in moves(elf, directory, pair, STILL_GUEST)]
    say("kill the controller")
    found["orphan"] = kills(elf, directory, pair)
    return Results(found)


@contextlib.contextmanager
def moving_guest(
    elf: Path, directory: Path, sides: Pair, guest: TickParameters
) -> Iterator[SerialTap]:
    """The guest runs on the first side; afterwards it is on neither."""
    with SerialTap(directory / "moving") as tap:
        path = directory / "moving.xml"
        path.write_text(tick_xml("moving", elf, guest, serial=tap.path))
        virsh(sides[0].uri, "create", str(path), timeout_s=60).check()
        try:
            tap.wait_more_ticks(TICKS_BETWEEN)
            yield tap
        finally:
            for side in sides:
                virsh(side.uri, "destroy", "moving", timeout_s=60)


def moves(
    elf: Path, directory: Path, pair: Pair, guest: TickParameters
) -> list[tuple[float, float]]:
    """`virsh migrate` there and back: whole wall times, and how long the guest was silent, ms."""
    found = []
    source, destination = pair
    with moving_guest(elf, directory, pair, guest) as tap:
        for _ in range(MOVES):
            if guest is STILL_GUEST:
                limit = str(STILL_DOWNTIME_MS)
                virsh(source.uri, "migrate-setmaxdowntime", "moving", limit).check()
            ran = virsh(
                source.uri, "migrate", "--live", "moving", destination.uri, timeout_s=120
            ).check()
            history = tap.wait_more_ticks(TICKS_BETWEEN)
            history.check_one_history()
            found.append((ran.elapsed_ms, silence_ms(history)))
            source, destination = destination, source
    return found


def kills(elf: Path, directory: Path, pair: Pair) -> list[float]:
    """From the controller's SIGKILL to the end of the incoming QEMU."""
    found = []
    source, destination = pair
    with moving_guest(elf, directory, pair, MOVING_GUEST) as tap:
        for _ in range(KILLS):
            # So slow that it can't be over before the kill.
            words = ["migrate", "--live", "moving", destination.uri, "--bandwidth", "1"]
            with start_virsh(source.uri, *words) as controller:
                [incoming] = wait_for(destination.qemus, "incoming QEMU", every_s=0.002)
                wait_for(lambda: is_moving(source), "data on the way")
                watched = Watched(incoming.pid)
                killed_ns = controller.kill()
                found.append((watched.wait_gone() - killed_ns) / 1e6)
                watched.close()
            # Its own job ends a moment after its destination's death; then it can go again.
            wait_for(lambda: not is_moving(source), "end of the source's job", every_s=0.05)
            tap.wait_more_ticks(TICKS_BETWEEN)
        tap.history().check_one_history()
    return found


def is_moving(side: Side) -> bool:
    """Whether data of an outgoing migration has left this side."""
    told = virsh(side.uri, "domjobinfo", "moving").out
    fields = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    return float((fields.get("Data processed") or "0 B").split()[0]) > 0
