"""`python -m bench.roads`: the roads side by side, the same large guest moved on each of them."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench.contenders import Pair, contenders
from bench.measures import moving_guest, silence_ms
from bench.report import machine, spread
from support import tick_guest
from support.clients import STERNA, run
from support.tick_guest import TickParameters

LARGE_MIB: Final = 1024
LARGE_GUEST: Final = TickParameters(region_mib=LARGE_MIB, dirty_mib_s=0, check_mib_s=4)
ROADS: Final[dict[str, tuple[str, ...]]] = {
    "direct": ("--direct",),
    "peer-to-peer": (),
    "tunnelled": ("--tunnelled",),
}
ROUNDS: Final = 4
PAGE: Final = Path("docs/reference/roads.md")
HEAD: Final = """\
# The roads, side by side

Written by `make bench`. {machine}.

A guest of 1 GiB, every page of it written, moves there and back on each road, between two daemons
of one machine, asked for by `sterna migrate` (so libvirtd's, too). Wall time has the client's start
in it; CPU is that of both daemons, QEMU's not. Medians, in brackets the slowest.
"""


@dataclass(frozen=True, slots=True)
class Trip:
    """One move of the large guest. `cpu_s` is that of both daemons, for each GiB of memory."""

    wall_ms: float
    silence_ms: float
    cpu_s: float

    @property
    def mib_s(self) -> float:
        return LARGE_MIB * 1000 / self.wall_ms


def trips(
    elf: Path, directory: Path, pair: Pair, say: Callable[[str], None]
) -> dict[str, list[Trip]]:
    """There and back on every road, in turn."""
    found: dict[str, list[Trip]] = {road: [] for road in ROADS}
    source, destination = pair
    with moving_guest(elf, directory, pair, LARGE_GUEST) as tap:
        for _ in range(ROUNDS):
            for road, options in ROADS.items():
                say(f"a guest of 1 GiB, {road}")
                before = source.cpu_s() + destination.cpu_s()
                argv = [*STERNA, "migrate", "-c", source.uri, "moving", destination.uri, *options]
                ran = run(argv, timeout_s=180).check()
                cpu_s = source.cpu_s() + destination.cpu_s() - before
                history = tap.wait_more_ticks(20)
                history.check_one_history()
                per_gib = cpu_s * 1024 / LARGE_MIB
                found[road].append(Trip(ran.elapsed_ms, silence_ms(history), per_gib))
                source, destination = destination, source
    return found


def table(found: Mapping[str, Mapping[str, list[Trip]]]) -> str:
    """Markdown, a row for each road and contender."""
    lines = [
        "| road | daemon | wall time, ms | MiB/s | guest's silence, ms | daemons' CPU, s/GiB |",
        "|---|---|---|---|---|---|",
    ]
    for road in ROADS:
        for name, roads in found.items():
            done = roads[road]
            rate = statistics.median(trip.mib_s for trip in done)
            cells = (
                *(road, name, spread([trip.wall_ms for trip in done]), f"{rate:.0f}"),
                spread([trip.silence_ms for trip in done]),
                f"{statistics.median(trip.cpu_s for trip in done):.2f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def say(name: str, text: str) -> None:
    print(f"  {name}: {text}", file=sys.stderr)


def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    directory.chmod(0o755)
    try:
        elf = tick_guest.build(directory)
        found = {}
        for name, opener in contenders().items():
            with opener(directory) as pair:
                found[name] = trips(elf, directory, pair, partial(say, name))
        told = table(found)
        print(told)
        PAGE.write_text(f"{HEAD.format(machine=machine())}\n{told}\n")
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
