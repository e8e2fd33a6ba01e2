"""The explorer finds each planted bug, so what it does not find is likely not there."""

from __future__ import annotations

from typing import Any

import pytest

from model import laws, world
from model.bugs import DESTINATION_BUGS, POSTCOPY_SOURCE_BUGS, SOURCE_BUGS, Plant
from model.explore import Broken, explore
from model.moves import moves
from model.world import Bounds
from sterna.migration.core import destination, source
from sterna.migration.core import effects as do

NETWORK = frozenset({"cut", "silence", "die"})
QEMU = frozenset({"crash", "hang", "data", "lock", "launch"})
ALL = NETWORK | QEMU | {"store", "timer"}

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("small_counters")]


def find_bug() -> str:
    """Which law the explorer sees broken, in the runs that look hardest, the small ones first."""
    quick = Bounds(faults=1, kinds=frozenset({"cut", "die", "crash", "hang"}))
    hardest = (
        quick,
        Bounds(faults=0, aborts=1, pauses=1),
        Bounds(faults=2, kinds=frozenset({"cut", "die"})),
        Bounds(faults=1, kinds=frozenset({"data"}), wild=1),
        Bounds(faults=1, kinds=ALL, aborts=1),
        Bounds(faults=1, kinds=ALL, pauses=1),
        Bounds(faults=2, kinds=frozenset({"cut", "hang"})),
    )
    copies = Bounds(faults=1, kinds=frozenset({"data"}))
    first = (world.start(quick, waits=True), world.start(copies, disks=True))
    for start in (*first, *map(world.start, hardest)):
        try:
            explore(start, moves, laws.bad)
        except Broken as broken:
            print(f"\n{broken}")
            return broken.law
    return "nothing"


@pytest.mark.parametrize("plant", SOURCE_BUGS, ids=lambda plant: plant.__name__)
def test_a_bug_in_the_source_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "step", plant(source.step))
    assert find_bug().startswith(SOURCE_BUGS[plant])


@pytest.mark.parametrize("plant", DESTINATION_BUGS, ids=lambda plant: plant.__name__)
def test_a_bug_in_the_destination_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "step", plant(destination.step))
    assert find_bug().startswith(DESTINATION_BUGS[plant])


def test_autokill_armed_too_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """I8: a connection that ends while QEMU is being launched."""
    begin = destination.begin

    def bug(*args: Any, **named: Any) -> Any:
        state, effects = begin(*args, **named)
        return state, tuple(e for e in effects if not isinstance(e, do.Watch))

    monkeypatch.setattr(destination, "begin", bug)
    assert find_bug().startswith("L3")


def find_postcopy_bug() -> str:
    """Which law the explorer sees broken where the guest may run before its memory is there."""
    kinds = frozenset({"die", "data"})
    try:
        explore(world.start(Bounds(faults=1, kinds=kinds), postcopy=True), moves, laws.bad)
    except Broken as broken:
        print(f"\n{broken}")
        return broken.law
    return "nothing"


@pytest.mark.parametrize("plant", POSTCOPY_SOURCE_BUGS, ids=lambda plant: plant.__name__)
def test_a_bug_in_postcopy_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "step", plant(source.step))
    assert find_postcopy_bug().startswith(POSTCOPY_SOURCE_BUGS[plant])
