"""The docs page of a run: what was injected, what became of it, how long it took to settle."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from faults.cases import DIRECT, EFFECTS, FAULTS, P2P, PHASES, ROAD_PHASES, TUNNELLED

Results = Mapping[str, Mapping[str, Any]]

ROADS: Final = (DIRECT, P2P, TUNNELLED)
SIGNS: Final = {"source": "S", "destination": "D", "died with its QEMU": "†"}

HEAD = """\
# Faults injected into real migrations

`make faults` wrote this page: {injected:,} faults injected into live migrations of a guest of a
real QEMU, {broken} of them with a broken law. {date}, {machine}, QEMU {qemu}, `src`
of tree {tree}.

Each case is a migration that `virsh` drives, or the source itself, between two hosts of their own
network namespaces. The guest counts, knows every byte of its memory, and keeps its last mark on a
qcow2 disk that both hosts have. In the named phase the named party is killed, frozen, cut off or
filled up; what was taken away is given back after a while (a killed daemon starts again after
0.3 s, a frozen or silenced one comes back after 8 s or 3 s, a full disk is full for 2 s), and
nobody gives a command. A case is good if then, by itself:

- one guest runs, and both daemons say so and have no job left;
- the guest's count has no gap and nothing twice, all its memory is verified, its disk has no mark
  but its own;
- a persistent guest is defined where it is and nowhere else;
- the client ended, and was not told a success that was none;
- after the guest is removed no process, port, descriptor or file of it is left.

How a case is made, and how to run one again: [Faults](../explanation/faults.md).
"""

MATRIX = """\
S: the guest runs on at its source; D: at its destination; †: the killed QEMU was the only one that
had it, so it died as any guest does whose QEMU is killed. Then the seconds from the fault to the
guest running in one place, median / slowest, the time of the fault itself included. Empty: nobody
is there in that phase.
"""

DRIVEN = """\
The source's daemon drives (`sterna migrate`); the link client–destination is then that of the two
daemons, through which in a tunnelled migration the memory goes too.
"""

DEATHS = """\
Right after each effect that its core orders, and right before each event reaches it; it starts
again after 0.3 s. *left*: the controller dies before Finish too; *aborted*: a user aborts while it
copies.
"""

BESIDE = """\
What we know to be weak in libvirt 9.0, done to both in the same way, with the same guest, virsh and
QEMU. Nobody gives a command; it is looked 8 s later (all daemons that were killed stay dead).
"""


def injected(results: Results) -> list[Mapping[str, Any]]:
    return [result for result in results.values() if result["outcome"] != "not reached"]


def broken(results: Results) -> list[Mapping[str, Any]]:
    return [result for result in results.values() if result["problems"]]


def summary(results: Results) -> str:
    """For the terminal."""
    counts = Counter(result["outcome"] for result in results.values())
    lines = [f"{count:5} {outcome}" for outcome, count in counts.most_common()]
    bad = broken(results)
    lines.append(f"{len(injected(results))} faults injected, {len(bad)} broke a law")
    lines += [f"  {result['id']}: {'; '.join(result['problems'])[:300]}" for result in bad]
    return "\n".join(lines)


def seconds(values: Iterable[float]) -> str:
    """Median and worst."""
    found = list(values)
    return f"{statistics.median(found):.2f} / {max(found):.2f}"


def cell(found: list[Mapping[str, Any]]) -> str:
    """`S 0.03 / 0.05`: where the guest was, and the seconds until it had settled."""
    if not found:
        return ""
    good = [result for result in found if not result["problems"]]
    signs = "".join(dict.fromkeys(SIGNS[result["outcome"]] for result in good))
    told = f"{signs} {seconds(result['settled_s'] for result in good)}" if good else ""
    bad = len(found) - len(good)
    return f"{told} **{bad} broken**" if bad else told


def of_road(results: Results, road: str) -> list[Mapping[str, Any]]:
    return [r for r in injected(results) if r["case"].get("road", DIRECT) == road]


def matrix(results: Results, road: str, phases: Iterable[str]) -> list[str]:
    phases = tuple(phases)
    cases = [result for result in of_road(results, road) if not result["case"]["moment"]]
    lines = [f"| party | fault | {' | '.join(phases)} |", f"|---|---|{'---|' * len(phases)}"]
    for party, fault in FAULTS:
        row = [party, fault]
        for phase in phases:
            wanted = (phase, party, fault)
            row.append(
                cell(
                    [
                        r
                        for r in cases
                        if tuple(r["case"][k] for k in ("phase", "party", "fault")) == wanted
                    ]
                )
            )
        lines.append(f"| {' | '.join(row)} |")
    return lines


def deaths(results: Results) -> list[str]:
    return [
        "| road | daemon | way | moments | outcome, seconds | broken |",
        "|---|---|---|---|---|---|",
        *(line for road in ROADS for line in _deaths(road, of_road(results, road))),
    ]


def _deaths(road: str, results: list[Mapping[str, Any]]) -> list[str]:
    cases = [result for result in results if result["case"]["moment"]]
    ways = list(dict.fromkeys(result["case"]["way"] for result in cases))
    lines = []
    for party in EFFECTS:
        for way in ways:
            found = [r for r in cases if (r["case"]["party"], r["case"]["way"]) == (party, way)]
            bad = sum(bool(result["problems"]) for result in found)
            told = [
                cell([r for r in found if r["outcome"] == outcome])
                for outcome in ("source", "destination")
            ]
            lines.append(
                f"| {road} | {party} | {way} | {len(found)} | {', '.join(filter(None, told))} |"
                f" {bad} |"
            )
    return lines


def beside_libvirt(seen: Mapping[str, Mapping[str, str]]) -> list[str]:
    lines = ["| | case | Sterna | libvirtd 9.0 |", "|---|---|---|---|"]
    for name, row in seen.items():
        told = [row.get(side, "not installed") for side in ("Sterna", "libvirtd 9.0")]
        lines.append(f"| {name} | {row['what']} | {' | '.join(told)} |")
    return [
        *lines,
        "| W16 | one half of a post-copy fails | told at once, `tests/qemu/test_postcopy.py` | |",
    ]


def _road(results: Results, road: str) -> list[str]:
    return [f"### {road.capitalize()}", "", *matrix(results, road, ROAD_PHASES), ""]


def page(results: Results, seen: Mapping[str, Mapping[str, str]], tree: str) -> str:
    version = subprocess.run(
        ["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=False
    )
    head = HEAD.format(
        injected=len(injected(results)),
        broken=len(broken(results)),
        date=time.strftime("%Y-%m-%d"),
        machine=f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        qemu=version.stdout.splitlines()[0].partition(" version ")[2].partition(" ")[0],
        tree=tree,
    )
    lines = [
        head,
        "## Phase × party × fault",
        "",
        MATRIX,
        *matrix(results, DIRECT, PHASES),
        "",
        "## Driven by the source, and tunnelled",
        "",
        DRIVEN,
        *(line for road in ROADS[1:] for line in _road(results, road)),
        "## A daemon dies at every moment of its core",
        "",
        DEATHS,
        *deaths(results),
        "",
        "## Beside libvirt",
        "",
        BESIDE,
        *beside_libvirt(seen),
        "",
    ]
    return "\n".join(lines)
