"""Breadth-first search through all that can happen; the first failure is a shortest trace."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)

Moves = Callable[[S], Iterable[tuple[str, S]]]
"""What can happen in a state: a label for people, and the state after it."""


class Broken(AssertionError):
    """A law does not hold. `trace` is a shortest way there."""

    def __init__(self, law: str, trace: list[str]) -> None:
        self.law, self.trace = law, trace
        steps = "\n".join(f"  {i}. {label}" for i, label in enumerate(trace, 1))
        super().__init__(f"{law}, after {len(trace)} steps:\n{steps}")


@dataclass(frozen=True)
class Explored(Generic[S]):
    """How much was looked at."""

    states: int
    depth: int
    seconds: float
    seen: frozenset[str]
    """Marks met on the way: what a run must have covered to mean anything."""

    def __str__(self) -> str:
        return f"{self.states:,} states, depth {self.depth}, {self.seconds:.1f} s"


def explore(
    start: S,
    moves: Moves[S],
    bad: Callable[[S, bool], str | None],
    marks: Callable[[S], Iterable[str]] = lambda _state: (),
    *,
    states_max: int = 2_000_000,
) -> Explored[S]:
    """Visit every state reachable from `start`.

    `bad` gets each state once, with whether nothing more can happen in it by itself (labels that
    begin with "!" are faults and choices, which need not happen), and returns the law it breaks.

    Raises: Broken.
    """
    began = time.perf_counter()
    came_from: dict[S, tuple[S, str] | None] = {start: None}
    depth_of = {start: 0}
    todo = deque([start])
    met: set[str] = set()
    depth = 0
    while todo:
        state = todo.popleft()
        depth = depth_of.pop(state)
        settled = True
        for label, after in moves(state):
            settled = settled and label.startswith("!")
            if after not in came_from:
                came_from[after] = (state, label)
                depth_of[after] = depth + 1
                todo.append(after)
        if law := bad(state, settled):
            raise Broken(law, _trace(came_from, state))
        met.update(marks(state))
        if len(came_from) > states_max:
            raise RuntimeError(f"more than {states_max:,} states: the bounds are too wide")
    took = time.perf_counter() - began
    return Explored(len(came_from), depth, took, frozenset(met))


def replay(start: S, moves: Moves[S], trace: Iterable[str]) -> S:
    """The state a trace leads to.

    Raises: LookupError if a step cannot be taken any more.
    """
    state = start
    for label in trace:
        after = dict(moves(state))
        if label not in after:
            raise LookupError(f"{label!r} cannot happen; what can: {sorted(after)}")
        state = after[label]
    return state


def _trace(came_from: dict[S, tuple[S, str] | None], state: S) -> list[str]:
    labels: list[str] = []
    while (step := came_from[state]) is not None:
        state, label = step
        labels.append(label)
    return labels[::-1]
