"""The laws hold in everything that can happen within the bounds.

The cores are the production ones. Each run has its bounds, and `make test` prints its size and
time. What they are, what is assumed and what is not covered: docs/explanation/model.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from model import laws, world
from model.explore import Broken, explore, replay, walk
from model.moves import moves
from model.world import Bounds
from support.fixtures import from_environment

NETWORK = frozenset({"cut", "silence", "die"})
QEMU = frozenset({"crash", "hang", "data", "lock", "launch"})
ALL = NETWORK | QEMU | {"store", "timer"}
EVERYTHING = ALL | {"restart"}
WALKS = from_environment("STERNA_WALKS", 4000)

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("small_counters")]

Tell = Callable[[str, object], None]


RUNS = {
    "all is well": Bounds(faults=0),
    "one fault of any kind": Bounds(faults=1, kinds=EVERYTHING),
    "one fault, an abort": Bounds(faults=1, kinds=ALL, aborts=1),
    "one fault, a user's pause": Bounds(faults=1, kinds=ALL, pauses=1),
    "one fault, a stranger": Bounds(faults=1, kinds=NETWORK | {"data"}, wild=1),
    "two calls of a stranger, an abort": Bounds(faults=0, wild=2, aborts=1),
    "two faults of the network": Bounds(faults=2, kinds=NETWORK | {"data"}),
    "two faults of machines": Bounds(faults=2, kinds=(QEMU | {"store"}) - {"launch"}),
    "two faults, daemons die within steps": Bounds(faults=2, kinds=NETWORK | {"restart"}),
    "a daemon dies, an abort or a pause": Bounds(
        faults=1, kinds=frozenset({"restart", "data", "crash"}), aborts=1, pauses=1
    ),
    "a daemon dies, and a stranger calls": Bounds(faults=1, kinds=frozenset({"restart"}), wild=1),
    "daemons die, and a machine": Bounds(faults=2, kinds=frozenset({"restart", "crash"})),
    "a broken connection and a hung machine": Bounds(faults=2, kinds=frozenset({"cut", "hang"})),
    "a dead controller and a dead machine": Bounds(faults=2, kinds=frozenset({"die", "crash"})),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_laws_hold(name: str, tell: Tell) -> None:
    """L1 to L5, L7, I13, I17, I19 in every interleaving of the run, and that it settles."""
    tell(name, explore(world.start(RUNS[name]), moves, laws.bad))


def test_the_laws_hold_for_a_guest_that_is_stopped_first(tell: Tell) -> None:
    found = explore(world.start(Bounds(faults=1, kinds=ALL), live=False), moves, laws.bad)
    tell("one fault, not live", found)


@pytest.mark.parametrize("more", [{"kinds": EVERYTHING}, {"kinds": ALL, "aborts": 1}])
def test_the_laws_hold_where_qemu_waits_before_the_switchover(
    more: dict[str, Any], tell: Tell
) -> None:
    """An older daemon's migrations do, and those that copy disks will."""
    start = world.start(Bounds(faults=1, **more), waits=True)
    tell(f"QEMU waits, one fault, {more.get('aborts', 0)} aborts", explore(start, moves, laws.bad))


DISKS = {
    "disks, one fault of any kind": Bounds(faults=1, kinds=EVERYTHING),
    "disks, an abort": Bounds(faults=1, kinds=frozenset({"data", "cut"}), aborts=1),
    "disks, a user's pause": Bounds(faults=1, kinds=frozenset({"data", "crash"}), pauses=1),
    "disks, two faults, daemons die": Bounds(faults=2, kinds=frozenset({"data", "restart"})),
}


@pytest.mark.parametrize("name", DISKS)
def test_the_laws_hold_where_disks_are_copied(name: str, tell: Tell) -> None:
    tell(name, explore(world.start(DISKS[name], disks=True), moves, laws.bad))


ROADS = {
    "peer-to-peer, one fault, an abort": Bounds(faults=1, kinds=EVERYTHING, aborts=1),
    "peer-to-peer, two faults, daemons die": Bounds(faults=2, kinds=NETWORK | {"restart"}),
    "tunnelled, one fault of any kind": Bounds(faults=1, kinds=EVERYTHING),
    "tunnelled, two faults, daemons die": Bounds(faults=2, kinds=frozenset({"cut", "restart"})),
    "tunnelled, two faults of the network": Bounds(faults=2, kinds=NETWORK),
}


@pytest.mark.parametrize("name", ROADS)
def test_the_laws_hold_where_the_source_drives(name: str, tell: Tell) -> None:
    start = world.start(ROADS[name], p2p=True, tunnel=name.startswith("tunnelled"))
    tell(name, explore(start, moves, laws.bad))


POSTCOPY = {
    "all is well": Bounds(faults=0, aborts=1, pauses=1),
    "one fault of any kind": Bounds(faults=1, kinds=EVERYTHING),
    "two faults of the network": Bounds(faults=2, kinds=frozenset({"cut", "data"})),
    "the network and a machine": Bounds(faults=2, kinds=frozenset({"data", "crash"})),
}


@pytest.mark.parametrize("name", POSTCOPY)
def test_the_laws_hold_in_postcopy(name: str, tell: Tell) -> None:
    """And I23: nobody kills the guest after `cont`, nobody throws its pages away."""
    start = world.start(POSTCOPY[name], postcopy=True)
    tell(f"post-copy, {name}", explore(start, moves, laws.bad))


@pytest.mark.parametrize("part", range(4))
def test_the_laws_hold_on_random_ways(part: int, tell: Tell) -> None:
    """Far beyond what can be searched: eight faults, three calls of strangers, two aborts."""
    bounds = Bounds(faults=8, wild=3, aborts=2, pauses=2, kinds=EVERYTHING)
    seeds = range(part, WALKS, 4)
    start = world.start(bounds, p2p=part in (1, 2), tunnel=part == 2, disks=part == 3)
    steps = sum(walk(start, moves, laws.bad, seed) for seed in seeds)
    tell(f"random ways, part {part}", f"{len(seeds):,} ways, {steps:,} steps")


def test_a_destination_that_cannot_be_asked_leaves_one_hole() -> None:
    """W1 with a libvirtd as the destination: Finish's answer is lost, and its client tells the
    source "cancelled". Nothing but asking closes that."""
    start = world.start(Bounds(faults=1, kinds=NETWORK), asks=False)
    with pytest.raises(Broken, match="L1") as broken:
        explore(start, moves, lambda w, _settled: laws.never_two(w))
    trace = broken.value.trace
    # A trace is a test of its own: it leads there again.
    assert laws.never_two(replay(start, moves, trace))
    assert "destination has stored committed" in trace
    assert "confirm1 arrives" in trace
