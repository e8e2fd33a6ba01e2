"""The roads side by side: the same large guest, moved in every way that a contender has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.contenders import Pair
from bench.measures import moving_guest, silence_ms
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
