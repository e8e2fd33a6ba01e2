"""All migrations of a host: those that leave, those that come, and what is known of others'.

The server's handlers call this, with a `Request` made from either form of a call.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable

from sterna.guest.jobs import Operation
from sterna.guest.recover import Unfinished
from sterna.guest.registry import Registry
from sterna.migration.answers import Host
from sterna.migration.custody import Custody
from sterna.migration.doubtful import Doubtful
from sterna.migration.made_images import settle_all
from sterna.migration.p2p import PeerToPeer
from sterna.migration.peers import Peers
from sterna.migration.receiving import Receiving
from sterna.migration.sending import Sending

__all__ = ["Host", "Migrations"]


class Migrations:
    """The migrations of one host.

    Attributes:
        custody: who has which guest.
        source: the half that sends.
        destination: the half that receives.
        peer_to_peer: drives what this host sends by itself.
    """

    def __init__(self, registry: Registry, host: Host, peers: Peers) -> None:
        self._registry = registry
        self.custody = Custody(
            registry, host, peers, lambda guest: self.source.find(guest) is not None
        )
        self.source = Sending(registry, host, peers, self.custody)
        self.destination = Receiving(registry, host, peers, self.custody)
        self.peer_to_peer = PeerToPeer(registry, self.source, peers)

    def doubtful(self, guest: uuid.UUID) -> Doubtful | None:
        """The migration that may be in doubt, with a QEMU here or without."""
        return self.source.find(guest) or self.custody.departed(guest)

    async def go_on(self, unfinished: Iterable[Unfinished]) -> None:
        """Take up what recovery found: guests committed here but not yet let run, and guests that
        were on their way out, with their QEMU or without (L2, I14)."""
        await settle_all(self._registry.surroundings.store)
        left = await self.custody.owners.load()
        for found in unfinished:
            job = found.guest.jobs.job
            if found.job["operation"] == Operation.MIGRATION_OUT.value:
                job = found.guest.jobs.take_up(Operation.MIGRATION_OUT, found.job)
                self._registry.surroundings.work.start(self.source.take_up(found, job))
            elif job is not None and job.operation is Operation.MIGRATION_IN:
                self.destination.go_on(found.guest, job)
        self.custody.go_on(left)

    async def settle(self, within_s: float) -> None:
        """Wait until every migration whose controller has gone is undone.

        For a daemon that stops: a source's QEMU that is left in the middle would stop its guest at
        the switchover, and nobody would let it run again (W5).
        """
        waiting = [outgoing.at_rest for outgoing in self.source.all()]
        waiting += [incoming.at_rest for incoming in self.destination.all()]
        if waiting:
            await asyncio.wait(waiting, timeout=within_s)
