"""How a source asks its destination "what did you decide?" (L5): the port, and its words.

The server fills it: a call of Sterna's own program over a connection of its own, so that the
question needs no controller. The design is in docs/explanation/asking.md.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from sterna.migration.remote import Remote
from sterna.store.ports import Verdict


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, of whom.

    Attributes:
        migration: its id.
        guest: the guest's uuid.
        host: uuid of the host that decides. Another one must not answer: it knows nothing, and
            its "aborted" would be a lie.
        places: where that host answers, `tcp://HOST:PORT`; tried in order.
        uri: set for a host that is not Sterna, and was reached there by the source itself: it is
            asked what the guest does now, in libvirt's protocol.
    """

    migration: str
    guest: UUID
    host: UUID
    places: tuple[str, ...]
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Decided:
    """The destination's word. `epoch` is the guest's there, `hostname` the host's own name."""

    verdict: Verdict
    epoch: int
    hostname: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A guest that this host once gave away, and wants to run again.

    Attributes:
        migration: by which it left; whoever has it knows that.
        epoch: the newest that is known here.
        host, places: who has it, as in `Question`.
    """

    migration: str
    guest: UUID
    epoch: int
    host: UUID
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Claimed:
    """The holder's word: the guest is the claimer's under `epoch`, or is not, and `why`."""

    granted: bool
    epoch: int
    hostname: str
    why: str = ""


class NoAnswer(Exception):
    """Nobody who could know has answered; the text says why, for people. Nothing is known (L5)."""


class Peers(Protocol):
    """The other hosts, as migrations see them."""

    async def ask(self, question: Question) -> Decided:
        """The decision on a migration; to ask makes one, if there was none (L4). Idempotent.

        One attempt at each place, bounded in time.

        Raises: NoAnswer.
        """

    async def claim(self, claim: Claim) -> Claimed:
        """Have a guest back that does not run where it was given to. Idempotent.

        Raises: NoAnswer.
        """

    def connect(self, uri: str) -> AbstractAsyncContextManager[Remote]:
        """A session with the daemon at a libvirt connection URI, as seen from this host.

        Raises: SternaError, why there is none.
        """
        ...

    async def resume(self, question: Question) -> tuple[str, int] | None:
        """Let the destination listen for the rest of a post-copy whose connection was lost.

        Returns the host that answered and the port; None if it misses no page any more.

        Raises: NoAnswer.
        """

    async def own_place(self) -> str | None:
        """Where this host answers such questions, `tcp://HOST:PORT`; from then on it does, also
        after a restart. None if it cannot listen."""
