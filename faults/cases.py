"""The matrix as data: what is done to whom, and when."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

CLIENT, SOURCE, DESTINATION = "client", "source daemon", "destination daemon"
BOTH, GUARDIAN, GUARDED = "both daemons", "guardian", "guardian and its daemon"
USER = "user"
SOURCE_QEMU, DESTINATION_QEMU = "source QEMU", "destination QEMU"
TO_SOURCE, TO_DESTINATION = "link client–source", "link client–destination"
DATA, QUESTION = "link QEMU–QEMU", "link source–destination"

KILL, STOP, RESTART, FULL = "SIGKILL", "SIGSTOP", "restart", "full disk"
ABORT = "domjobabort"
CLOSE, RESET, DROP = "close", "reset", "DROP"

PHASES: Final = (
    "begin",
    "prepare",
    "copying",
    "perform",
    "performed",
    "finish",
    "finished",
    "confirm",
    "confirmed",
)
"""Begin has been answered; Prepare has; memory is on its way, slowly; some moment of a quick
Perform; Perform is answered and Finish on its way; some moment of Finish; its answer is on its way;
Confirm is on its way; its answer is."""
MOMENTS: Final = ("copying", "perform", "finish")
"""Phases in which the moment varies from round to round."""

FAULTS: Final = (
    *((CLIENT, fault) for fault in (KILL, STOP)),
    (USER, ABORT),
    *((daemon, fault) for daemon in (SOURCE, DESTINATION) for fault in (KILL, STOP, RESTART, FULL)),
    (BOTH, KILL),
    (GUARDIAN, KILL),
    (GUARDED, KILL),
    *((qemu, fault) for qemu in (SOURCE_QEMU, DESTINATION_QEMU) for fault in (KILL, STOP)),
    *(
        (link, fault)
        for link in (TO_SOURCE, TO_DESTINATION, DATA, QUESTION)
        for fault in (CLOSE, RESET, DROP)
    ),
)
ABSENT: Final = frozenset(
    {("begin", DESTINATION_QEMU), ("confirmed", SOURCE_QEMU)}
    | {(phase, DATA) for phase in ("begin", "prepare", "finished", "confirm", "confirmed")}
    | {(phase, QUESTION) for phase in ("begin", "prepare", "copying", "confirmed")}
)
"""Who is not there yet, or no more, in that phase."""

PLAIN, PERSISTENT, LEFT, ABORTED = "plain", "persistent", "left", "aborted"
"""The ways of a migration: a transient guest; a persistent one that moves with its definition; the
controller dies before Finish; a user aborts while it copies."""
DIRECT, P2P, TUNNELLED = "direct", "peer-to-peer", "tunnelled"
"""Who drives, and where the data goes: virsh; the source's daemon; that, and through its connection
with the destination's, which is then the link client–destination."""
ROAD_PHASES: Final = ("prepare", "copying", "perform", "performed", "finish", "finished")
"""A source that drives calls itself at no gate."""
ROAD_ROUNDS: Final = 2
EFFECTS: Final = {SOURCE: 34, DESTINATION: 44}
"""How many moments a daemon's core may have in one migration; those beyond the last are not
reached, and don't count."""


@dataclass(frozen=True, slots=True)
class Case:
    """One fault. `moment` above 0: the daemon kills itself at that moment of its core."""

    phase: str
    party: str
    fault: str
    way: str = PLAIN
    round: int = 0
    moment: int = 0
    road: str = DIRECT

    @property
    def id(self) -> str:
        """Names it for ever, for a runner that goes on and for `make faults CASES=…`."""
        when = f"moment {self.moment}" if self.moment else self.phase
        road = () if self.road == DIRECT else (self.road,)
        return "/".join((*road, when, self.party, self.fault, self.way, str(self.round)))

    def chance(self, salt: str) -> float:
        """From 0 up to 1, always the same for this case."""
        return zlib.crc32(f"{self.id} {salt}".encode()) / 2**32

    @property
    def lost(self) -> bool:
        """Whether the packet that waits at the gate is lost with what ends, or still delivered."""
        return self.round % 2 == 1


def matrix(rounds: int) -> Iterator[Case]:
    """Phase × party × fault. From round to round the guest, the moments and the losses vary."""
    for number in range(rounds):
        way = (PLAIN, PERSISTENT)[number // 2 % 2]
        for phase in PHASES:
            for party, fault in FAULTS:
                if (phase, party) not in ABSENT:
                    yield Case(phase, party, fault, way, number)


def effects() -> Iterator[Case]:
    """Each daemon dies after every effect of its core, and before each event reaches it."""
    for way in (PLAIN, PERSISTENT, LEFT, ABORTED):
        for party, count in EFFECTS.items():
            for moment in range(1, count + 1):
                yield Case("moment", party, KILL, way, moment=moment)


def roads() -> Iterator[Case]:
    """The same on the other roads, as far as their phases and parties go."""
    for road in (P2P, TUNNELLED):
        for party, count in EFFECTS.items():
            for moment in range(1, count + 1):
                yield Case("moment", party, KILL, moment=moment, road=road)
        for case in matrix(ROAD_ROUNDS):
            if case.phase in ROAD_PHASES and not (road == TUNNELLED and case.party == DATA):
                yield replace(case, road=road)


def all_cases(rounds: int) -> list[Case]:
    return [*effects(), *matrix(rounds), *roads()]
