"""The table of the design's numbers, with ratios and what was promised."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from bench.measures import Results

FLOOR = "bare QEMU"
OURS = "Sterna"
THEIRS = "libvirtd"


@dataclass(frozen=True, slots=True)
class Row:
    """One line: `key` of the results, what it is, its unit, and the promise.

    The promise is at most `most`, above the floor's value (`over_floor`) or libvirtd's
    (`over_theirs`) where so said.
    """

    key: str
    what: str
    unit: str
    most: float
    over_floor: bool = False
    over_theirs: bool = False

    def limit(self, medians: Mapping[str, float]) -> float | None:
        """The promised value in this run; None if what it is compared with wasn't measured."""
        base = medians.get(FLOOR) if self.over_floor else 0.0
        if self.over_theirs:
            base = medians.get(THEIRS)
        return None if base is None else base + self.most

    @property
    def promise(self) -> str:
        if self.over_theirs:
            return "≤ libvirtd's"
        above = "floor + " if self.over_floor else ""
        return f"≤ {above}{self.most:g} {self.unit}"


ROWS = (
    Row("create", "create a small guest, paused", "ms", 30, over_floor=True),
    Row("destroy", "destroy it", "ms", 20),
    Row("migrate", "live-migrate a 128 MiB guest, wall time of `virsh migrate`", "ms", 150, True),
    Row("silence", "guest's silence in that migration", "ms", 2, over_floor=True),
    Row("orphan", "orphan gone after the controller's SIGKILL", "ms", 50),
    Row("stats", "stats of 40 guests in one call", "ms", 40),
    Row("small", "one small call, libvirt-python on a unix socket", "µs", 0, over_theirs=True),
    Row("memory_0", "daemon's memory, no guest", "MiB", 60),
    Row("memory_40", "daemon's memory, 40 guests", "MiB", 70),
)


def shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def spread(values: list[float]) -> str:
    """Median, and the slowest where there are several."""
    middle = shown(statistics.median(values))
    return f"{middle} (max {shown(max(values))})" if len(values) > 1 else middle


def table(results: Mapping[str, Results]) -> str:
    """Markdown. Medians, in brackets the slowest; the ratio is of medians."""
    names = [name for name in (THEIRS, FLOOR, OURS) if name in results]
    head = ["what", "unit", *names, "Sterna : libvirtd", "promised", "kept"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in ROWS:
        found = {
            name: result.values[row.key]
            for name, result in results.items()
            if row.key in result.values
        }
        medians = {name: statistics.median(values) for name, values in found.items()}
        cells = [row.what, row.unit]
        cells += [spread(found[name]) if name in found else "" for name in names]
        ours, theirs, limit = medians.get(OURS), medians.get(THEIRS), row.limit(medians)
        cells.append(f"1 : {theirs / ours:.1f}" if ours and theirs else "")
        cells.append(row.promise)
        kept = "" if ours is None or limit is None else "yes" if ours <= limit else "**no**"
        cells.append(kept)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def machine() -> str:
    """Where and with what this was measured."""
    model = ""
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    qemu = subprocess.run(
        ["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True
    ).stdout.split("\n")[0]
    virsh = subprocess.run(["virsh", "--version"], capture_output=True, text=True, check=True)
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs ({model}), TCG, {qemu},"
        f" libvirt-clients {virsh.stdout.strip()}, Python {platform.python_version()},"
        f" Linux {platform.release().split('-')[0]}"
    )


def page(results: Mapping[str, Results]) -> str:
    """docs/reference/benchmarks.md."""
    return f"""# Benchmarks

Written by `make bench`. {machine()}.

{table(results)}

Medians; in brackets the slowest of the run. Every contender was measured in this one run, one
after the other, on the same guest: the tests' own tick guest. Bare QEMU is the floor: QEMU started,
driven over QMP and killed without any manager. `virsh migrate` includes the start of virsh itself
({virsh_start(results)} ms for `virsh --version`). The guest whose silence is measured dirties no
memory, ticks every millisecond and may be stopped for 10 ms only: what is left is the handover, in
which Sterna alone writes its decision to disk, with fsync, before the guest goes on (L4). Create,
destroy, stats and small calls are timed inside one libvirt-python process. Memory is the resident
size of the daemon with all its helper processes, QEMU excluded.
"""


def virsh_start(results: Mapping[str, Results]) -> str:
    values = [v for result in results.values() for v in result.values.get("virsh", [])]
    return shown(statistics.median(values)) if values else "some"
