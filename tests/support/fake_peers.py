"""Other hosts without a network: `sterna.migration.peers.Peers` by calling them directly."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from uuid import UUID

from sterna.migration.peers import Claim, Claimed, Decided, NoAnswer, Question
from sterna.migration.remote import Remote
from sterna.migration.service import Migrations


class FakePeers:
    """The hosts that can be asked, by their uuid.

    Attributes:
        reachable: without it nobody answers.
        place: what a source is told; None for a host that cannot be asked.
        questions: what was asked, in order.
    """

    def __init__(self, place: str | None = "tcp://hostb:49216") -> None:
        self.hosts: dict[UUID, Migrations] = {}
        self.reachable = True
        self.place = place
        self.questions: list[Question] = []

    async def ask(self, question: Question) -> Decided:
        self.questions.append(question)
        host = self.hosts.get(question.host)
        if not self.reachable or host is None:
            raise NoAnswer(f"host {question.host} did not answer")
        return await host.destination.decide(question.migration, question.guest)

    async def claim(self, claim: Claim) -> Claimed:
        holder = self.hosts.get(claim.host)
        if not self.reachable or holder is None:
            raise NoAnswer(f"host {claim.host} did not answer")
        [claimer] = [uuid for uuid, host in self.hosts.items() if host is not holder]
        places = (self.place,) if self.place else ()
        return await holder.custody.release(replace(claim, host=claimer, places=places), "claimer")

    def connect(self, uri: str) -> AbstractAsyncContextManager[Remote]:
        raise NotImplementedError(f"nobody drives anything to {uri} here")

    async def resume(self, question: Question) -> tuple[str, int] | None:
        """See `Peers`: nobody is there."""
        raise NoAnswer("nobody")

    async def own_place(self) -> str | None:
        return self.place
