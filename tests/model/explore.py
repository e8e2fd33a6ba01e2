"""Breadth-first search through all that can happen; the first failure is a shortest trace."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

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
class Explored:
    """How much was looked at."""

    states: int
    depth: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.states:,} states, depth {self.depth}, {self.seconds:.1f} s"


def explore(
    start: S,
    moves: Moves[S],
    bad: Callable[[S, bool], str | None],
    *,
    states_max: int = 2_000_000,
) -> Explored:
    """Visit every state reachable from `start`.

    `bad` gets each state once, with whether nothing more can happen in it by itself, and returns
    the law it breaks. Labels that begin with "!" are faults and choices, which need not happen;
    those with "~" are the end of a fault that lasts. From every state one where nothing more can
    happen must be reachable without a fault: when faults stop, it settles without help.

    Raises: Broken.
    """
    began = time.perf_counter()
    number: dict[S, int] = {start: 0}
    states, came_from, depth_of = [start], [(-1, "")], [0]
    leads_to: list[list[int]] = []
    quiet: list[int] = []
    here = 0
    while here < len(states):
        state, settled = states[here], True
        following: list[int] = []
        for label, after in moves(state):
            known = number.setdefault(after, len(states))
            if known == len(states):
                states.append(after)
                came_from.append((here, label))
                depth_of.append(depth_of[here] + 1)
            if not label.startswith("!"):
                settled = settled and label.startswith("~")
                following.append(known)
        leads_to.append(following)
        if settled:
            quiet.append(here)
        if law := bad(state, settled):
            raise Broken(law, _trace(came_from, here))
        if len(states) > states_max:
            raise RuntimeError(f"more than {states_max:,} states: the bounds are too wide")
        here += 1
    if (lost := _never_settles(leads_to, quiet)) is not None:
        raise Broken("L2: it goes on for ever and never settles", _trace(came_from, lost))
    return Explored(len(states), depth_of[-1], time.perf_counter() - began)


def _never_settles(leads_to: list[list[int]], quiet: list[int]) -> int | None:
    """The first state from which no quiet one can be reached."""
    comes_from: list[list[int]] = [[] for _ in leads_to]
    for here, following in enumerate(leads_to):
        for there in following:
            comes_from[there].append(here)
    settles = bytearray(len(leads_to))
    todo = list(quiet)
    while todo:
        here = todo.pop()
        if not settles[here]:
            settles[here] = 1
            todo += comes_from[here]
    lost = settles.find(0)
    return lost if lost >= 0 else None


def walk(
    start: S,
    moves: Moves[S],
    bad: Callable[[S, bool], str | None],
    seed: int,
    *,
    faults_share: float = 0.2,
    steps_max: int = 1000,
) -> int:
    """One random way from `start` until nothing more happens, always the same for a seed.

    Where no search can go for the number of states. Returns its length. Raises: Broken.
    """
    chance = random.Random(seed)
    state, trace = start, list[str]()
    while len(trace) < steps_max:
        possible = list(moves(state))
        by_itself = [move for move in possible if move[0][0] not in "!~"]
        if law := bad(state, not by_itself):
            raise Broken(law, trace)
        choices = [move for move in possible if not move[0].startswith("!")]
        if len(choices) < len(possible) and chance.random() < faults_share:
            choices = [move for move in possible if move[0].startswith("!")]
        if not choices:
            return len(trace)
        label, state = chance.choice(choices)
        trace.append(label)
    raise Broken("L2: it never settles", trace)


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


def _trace(came_from: list[tuple[int, str]], here: int) -> list[str]:
    labels: list[str] = []
    while here:
        here, label = came_from[here]
        labels.append(label)
    return labels[::-1]
