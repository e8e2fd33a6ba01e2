"""Judges from the tick guest's serial output, of all hosts, whether it had one history."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

TICK = re.compile(r"tick (\d+) (\d+) (\d+)")
READY = re.compile(r"ready (\d+)")
MODULUS = 1 << 32
NOTES = ("boot", "power", "heard ", "scan ")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes as they arrived: when (monotonic clock, ns) and from which connection (0, 1, 2, …)."""

    at_ns: int
    speaker: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Line:
    at_ns: int
    speaker: int
    text: str


@dataclass(frozen=True, slots=True)
class Tick:
    """One `tick N DIRTIED CHECKED`, stamped at the arrival of its end."""

    at_ns: int
    speaker: int
    number: int
    pages_dirtied: int
    pages_checked: int


@dataclass(slots=True)
class History:
    """What the guest said, in the order in which the host received it.

    Bytes of all connections are joined before they are cut into lines: a guest that moves in the
    middle of a line ends it on the other host. Two copies that run at once would garble such a line
    or repeat a number, and both are faults.
    """

    lines: list[Line] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)
    pages: int = 0
    boots: int = 0
    faults: list[str] = field(default_factory=list)
    pending: bytes = b""

    @classmethod
    def parse(cls, chunks: Iterable[Chunk]) -> History:
        history = cls()
        for chunk in chunks:
            history.hear(chunk)
        return history

    def hear(self, chunk: Chunk) -> None:
        """What the guest said next."""
        *whole, self.pending = (self.pending + chunk.data).split(b"\n")
        for raw in whole:
            self._take(Line(chunk.at_ns, chunk.speaker, raw.decode("ascii", "replace")))

    def copy(self) -> History:
        """As it is now, whatever is heard later."""
        return replace(self, lines=[*self.lines], ticks=[*self.ticks], faults=[*self.faults])

    @classmethod
    def of_text(cls, data: bytes) -> History:
        """Of a console file: order without times."""
        return cls.parse([Chunk(0, 0, data)])

    def _take(self, line: Line) -> None:
        self.lines.append(line)
        if found := TICK.fullmatch(line.text):
            number, dirtied, checked = map(int, found.groups())
            expected = self.ticks[-1].number + 1 if self.ticks else 1
            if line.text and number != expected and not (number == 1 and self._just_booted()):
                kind = "doubled" if number < expected else "lost"
                self.faults.append(
                    f"{kind}: tick {number} from speaker {line.speaker} where {expected} was due"
                )
            self.ticks.append(Tick(line.at_ns, line.speaker, number, dirtied, checked))
        elif found := READY.fullmatch(line.text):
            self.pages = int(found[1])
        elif line.text == "boot":
            self.boots += 1
        elif not line.text.startswith(NOTES):
            self.faults.append(f"speaker {line.speaker}: {line.text!r}")

    def _just_booted(self) -> bool:
        return len(self.lines) > 1 and READY.fullmatch(self.lines[-2].text) is not None

    @property
    def speakers(self) -> list[int]:
        """Connections in the order in which they first ticked; a guest that moved once has two."""
        return list(dict.fromkeys(tick.speaker for tick in self.ticks))

    def since(self, at_ns: int) -> list[Tick]:
        return self.ticks[self._first_since(at_ns) :]

    def _first_since(self, at_ns: int) -> int:
        return bisect.bisect_left(self.ticks, at_ns, key=lambda tick: tick.at_ns)

    def longest_silence_ms(self, ticks: Sequence[Tick] | None = None) -> float:
        """The longest time from one tick to the next; 0 with fewer than two ticks."""
        chosen = self.ticks if ticks is None else ticks
        return max((b.at_ns - a.at_ns for a, b in pairwise(chosen)), default=0) / 1e6

    def silences_at_moves_ms(self) -> list[float]:
        """For each change of the speaker, the time from its last tick to the next one's first."""
        return [
            (b.at_ns - a.at_ns) / 1e6 for a, b in pairwise(self.ticks) if a.speaker != b.speaker
        ]

    def verified_since(self, at_ns: int) -> bool:
        """Whether every page of the region was verified after that moment."""
        first = self._first_since(at_ns)
        if len(self.ticks) - first < 2 or not self.pages:
            return False
        checked = self.ticks[-1].pages_checked - self.ticks[first].pages_checked
        return checked % MODULUS >= self.pages

    def check_one_history(self, *, boots: int = 1) -> None:
        """AssertionError if a tick was lost or doubled, a page bad, or the guest booted anew."""
        problems = list(self.faults)
        if self.boots != boots:
            problems.append(f"booted {self.boots} times, not {boots}")
        if not self.ticks:
            problems.append("never ticked")
        if problems:
            shown = "\n  ".join(problems[:10])
            raise AssertionError(f"{len(problems)} faults in the guest's history:\n  {shown}")
