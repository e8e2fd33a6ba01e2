"""Who has which guest, as far as it concerns this host: what it answers, and what it refuses.

Guests that left and have no QEMU here any more are asked about until it is known whose they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final
from uuid import UUID

from sterna.config import DomainDef
from sterna.errors import OperationInvalid
from sterna.guest.registry import Registry
from sterna.guest.states import State
from sterna.migration.answers import Host
from sterna.migration.cookie import Own
from sterna.migration.departed import Departed
from sterna.migration.ownership import MIGRATION, Owners
from sterna.migration.params import Request
from sterna.migration.peers import Claim, Claimed, Peers
from sterna.rpc.enums import MigrateFlag
from sterna.store.errors import StoreFailed
from sterna.store.ports import Ownership, Verdict

log = logging.getLogger("sterna.migration")

HEARD_S: Final = 10.0
"""How long a start waits for the answer on a guest in doubt, if it is being asked about."""
REVOKED_MAX: Final = 1000
"""Refusals kept while the store cannot; each has 36 characters."""


Offered = Callable[[Claim, str], Awaitable[Claimed | None]]
"""Answers the claim of a destination, by its hostname; None if no guest is being given to it."""


async def _nothing_offered(_claim: Claim, _hostname: str) -> Claimed | None:
    return None


class Custody:
    """Gives and takes guests.

    Attributes:
        owners: who has which guest.
        offered: knows the guests that are being given away without a QEMU.
    """

    def __init__(
        self,
        registry: Registry,
        host: Host,
        peers: Peers,
        is_sending: Callable[[UUID], bool],
    ) -> None:
        """`is_sending`: whether a guest is being sent away, by a driver of its own."""
        self._registry = registry
        self._is_sending = is_sending
        self._host = host
        self._peers = peers
        self.owners = Owners(registry.surroundings.store, peers, host.name)
        self._departed: dict[UUID, Departed] = {}
        self._revoked: dict[str, None] = {}
        self.offered: Offered = _nothing_offered
        registry.surroundings.may_start = self.claim_own

    def go_on(self, unfinished: Iterable[Ownership]) -> None:
        """Take up what an earlier daemon had not finished (I14): guests without a QEMU here. Those
        that have one have a driver, or a job that is about to get it."""
        for owner in unfinished:
            guest = self._registry.find(owner.uuid)
            if guest is None or not guest.active:
                self.depart(owner)
            elif guest.job is None and guest.state is State.RUNNING:
                # It came back, and only that it did was not written any more.
                came_back = self.owners.stayed(owner.uuid, owner.detail[MIGRATION])
                self._registry.surroundings.work.start(came_back)

    def depart(self, owner: Ownership) -> Departed:
        """Find out, or finish, what became of a guest that has no QEMU here."""
        departed = Departed(self._registry, owner, self._peers, self.owners)
        departed.ended = self._departed_ended
        self._departed[owner.uuid] = departed
        departed.go_on()
        return departed

    def _departed_ended(self, departed: Departed) -> None:
        if self._departed.get(departed.uuid) is departed:
            del self._departed[departed.uuid]

    def departed(self, guest: UUID) -> Departed | None:
        """The migration of a guest without a QEMU here, if it has not ended."""
        return self._departed.get(guest)

    # -- what is answered ----------------------------------------------------------------------

    async def is_decided(self, id: str) -> bool:
        """Whether that migration was decided here before."""
        if id in self._revoked:
            return True
        return await self._registry.surroundings.store.decision(id) is not None

    async def decide_for_ever(self, id: str, guest: UUID) -> Verdict:
        """The decision on a migration that has no QEMU here; to ask decides (L4).

        Raises: StoreFailed: the store cannot be read.
        """
        store = self._registry.surroundings.store
        try:
            return (await store.decide(id, "aborted", guest)).verdict
        except StoreFailed as exc:
            # A full disk, say. There is no QEMU for this migration and none can come: what was
            # sent has arrived nowhere else, and its id is refused from now on. So the source need
            # not wait until somebody makes room. (L2)
            standing = await store.decision(id)
            if standing is not None:
                return standing.verdict
            log.error("migration.store_failed mig=%s record=aborted error=%r", id, exc.detail)
            while len(self._revoked) >= REVOKED_MAX:
                self._revoked.pop(next(iter(self._revoked)))
            self._revoked[id] = None
            return "aborted"

    async def claim_own(self, guest: UUID, name: str) -> None:
        """It is about to be started here: see to it that no other host has it (L1).

        Raises: OperationInvalid (55): one has, or nobody can say; StoreFailed.
        """
        departed, owner = self._departed.get(guest), self.owners.away(guest)
        unasked = owner is not None and owner.holder == "leaving" and not self._is_sending(guest)
        if departed is None and owner is not None and unasked:
            # How it ended could not be written down then, on a full disk, say.
            departed = self.depart(owner)
        if departed is not None:
            # Its host has just come back, as a rule: the answer is on its way.
            await asyncio.wait([departed.over], timeout=HEARD_S)
        await self.owners.claim(guest, name)

    async def release(self, claim: Claim, hostname: str) -> Claimed:
        """Another host wants a guest: one that it gave to us, or that is just being given to it.

        Raises: StoreFailed.
        """
        if (offered := await self.offered(claim, hostname)) is not None:
            return offered
        guest = self._registry.find(claim.guest)
        used = ""
        if guest is not None and (guest.active or guest.job is not None):
            used = f"it runs on host {self._host.name}"
        elif guest is not None and guest.has_managed_save:
            used = f"its saved state is on host {self._host.name}"
        return await self.owners.release(claim, hostname, used=used)

    def refuse_stale(self, definition: DomainDef, own: Own | None, request: Request) -> None:
        """A copy that is older than what this host knows of the guest is not the guest. (L1)"""
        if own is None or definition.uuid is None or MigrateFlag.UNSAFE in request.flags:
            return
        known, uuid = self.owners.epoch(definition.uuid), definition.uuid
        if uuid in self._departed or self._is_sending(uuid):
            raise OperationInvalid(f"domain '{definition.name}' is still being sent away from here")
        if own.epoch < known:
            raise OperationInvalid(
                f"the source's copy of domain '{definition.name}' is not its newest one: it is of"
                f" epoch {own.epoch}, and {known} has been seen at {self._host.name}"
            )
