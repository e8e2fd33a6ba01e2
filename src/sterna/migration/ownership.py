"""Who has which guest: what this host gave away, what is in doubt, and under which epoch (L1).

Every committed migration raises the guest's epoch, in the same transaction as the decision. A host
that gave a guest away keeps that on disk, and starts no copy of its own, from a definition or a
saved image, before the holder has said that it does not have it any more. What the copies' ages are
compared for, and how a guest comes back: docs/explanation/asking.md.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from sterna.errors import OperationInvalid
from sterna.migration import asking
from sterna.migration.peers import Claim, Claimed, NoAnswer, Peers, Question
from sterna.store.ports import Ownership, Store

log = logging.getLogger("sterna.migration.ownership")

MIGRATION: Final = "migration"
"""In an ownership's detail: the migration by which the guest came or went."""


class Owners:
    """What this host knows of who has which guest. `load` it before it is asked."""

    def __init__(self, store: Store, peers: Peers, hostname: str) -> None:
        self._store = store
        self._peers = peers
        self._hostname = hostname
        self._known: dict[UUID, Ownership] = {}

    async def load(self) -> list[Ownership]:
        """Read what an earlier daemon wrote; returns the guests whose going it had not finished."""
        self._known = {owner.uuid: owner for owner in await self._store.ownerships()}
        return [
            owner
            for owner in self._known.values()
            if owner.holder == "leaving" or owner.detail.get("undefine")
        ]

    def epoch(self, guest: UUID) -> int:
        """The newest that is known here; 0 of a guest that was never migrated."""
        known = self._known.get(guest)
        return known.epoch if known is not None else 0

    def away(self, guest: UUID) -> Ownership | None:
        """Who has it, if it is not this host for sure."""
        known = self._known.get(guest)
        return known if known is not None and known.holder != "here" else None

    # -- a guest that comes --------------------------------------------------------------------

    def arriving(self, guest: UUID, migration: str, source_epoch: int) -> Ownership:
        """What is true once the migration is committed: to be written with that decision."""
        epoch = max(self.epoch(guest), source_epoch) + 1
        return Ownership(guest, epoch, "here", {MIGRATION: migration})

    def arrived(self, owner: Ownership) -> None:
        """It was written."""
        self._known[owner.uuid] = owner

    # -- a guest that goes ---------------------------------------------------------------------

    async def leaving(self, asked: Question, hostname: str, more: Mapping[str, Any]) -> None:
        """It is about to be sent: until the destination has spoken it is nobody's. Durable when
        this returns. Raises: StoreFailed."""
        detail = {
            MIGRATION: asked.migration,
            "question": asking.to_record(asked, hostname),
            **more,
        }
        await self._put(Ownership(asked.guest, self.epoch(asked.guest), "leaving", detail))

    async def stayed(self, guest: UUID, migration: str) -> None:
        """It did not go. Raises: StoreFailed."""
        known = self._known.get(guest)
        if known is not None and _is_leaving(known, migration):
            await self._put(replace(known, holder="here", detail={MIGRATION: migration}))

    async def given(self, guest: UUID, migration: str, epoch: int) -> None:
        """It is the destination's, `epoch` as it said or 0. Raises: StoreFailed."""
        known = self._known.get(guest)
        if known is not None and _is_leaving(known, migration):
            await self._put(replace(known, holder="elsewhere", epoch=max(epoch, known.epoch + 1)))

    async def given_to_stranger(self, guest: UUID, migration: str) -> None:
        """A host that cannot be asked has it. We may start it again by libvirt's rules, since we
        cannot do better; nobody gets it from us. Raises: StoreFailed."""
        known = self._known.get(guest)
        if known is not None:
            detail = {MIGRATION: migration}
            await self._put(Ownership(guest, known.epoch + 1, "elsewhere", detail))

    async def undefined(self, guest: UUID, migration: str) -> None:
        """Its definition here has gone, too. Raises: StoreFailed."""
        known = self._known.get(guest)
        if known is not None and known.detail.get(MIGRATION) == migration:
            detail = {key: value for key, value in known.detail.items() if key != "undefine"}
            await self._put(replace(known, detail=detail))

    # -- a guest that is wanted back -----------------------------------------------------------

    async def claim(self, guest: UUID, name: str) -> None:
        """It is about to be started here: see to it that it is ours.

        Raises: OperationInvalid (55): it is not, or nobody can say; StoreFailed.
        """
        known = self._known.get(guest)
        if known is None or known.holder == "here":
            return
        asked = asking.from_record(known.detail[MIGRATION], guest, known.detail)
        there = known.detail["question"]["hostname"] if asked is not None else "another host"
        if known.holder == "leaving":
            raise OperationInvalid(
                f"nobody has said yet whether domain '{name}' runs at {there}, where it was sent;"
                " it can be started here once that is known ('sterna reconcile' tells more)"
            )
        if asked is None:
            await self.take(guest)
            return
        try:
            said = await self._peers.claim(
                Claim(asked.migration, guest, known.epoch, asked.host, asked.places)
            )
        except NoAnswer as exc:
            raise OperationInvalid(
                f"domain '{name}' was handed over to {there}, and nobody knows whether it runs"
                f" there: {exc}; 'sterna reconcile' tells what can be done"
            ) from exc
        if not said.granted:
            raise OperationInvalid(f"domain '{name}' belongs to {there}: {said.why}")
        await self.take(guest, said.epoch)
        log.info("ownership.claimed guest=%s epoch=%d holder=%s", guest, said.epoch, there)

    async def take(self, guest: UUID, epoch: int = 0) -> None:
        """It is ours from now on, by the holder's word or a person's. Raises: StoreFailed."""
        known = self._known[guest]
        detail = {MIGRATION: known.detail[MIGRATION]}
        epoch = max(epoch, known.epoch + 1)
        await self._put(Ownership(guest, epoch, "here", detail))

    async def release(self, claim: Claim, hostname: str, *, used: str) -> Claimed:
        """Another host claims a guest; `claim.host` and `places` are its own.

        `used`: why it is not free here, in words; empty if it is. Raises: StoreFailed.
        """
        known = self._known.get(claim.guest)
        if known is None or known.detail.get(MIGRATION) != claim.migration:
            return self._refused(claim, f"host {self._hostname} did not get it from there")
        asked = Question(claim.migration, claim.guest, claim.host, claim.places)
        detail = {MIGRATION: claim.migration, "question": asking.to_record(asked, hostname)}
        if used:
            # Also if it is only about to be: we may be claiming it at this moment ourselves.
            return self._refused(claim, used)
        if known.holder == "elsewhere" and known.detail.get("question", {}).get("host") == str(
            claim.host
        ):
            return Claimed(True, known.epoch, self._hostname)  # its answer was lost
        if known.holder != "here":
            return self._refused(claim, f"host {self._hostname} has given it away itself")
        epoch = max(known.epoch, claim.epoch) + 1
        await self._put(Ownership(claim.guest, epoch, "elsewhere", detail))
        return Claimed(True, epoch, self._hostname)

    def _refused(self, claim: Claim, why: str) -> Claimed:
        return Claimed(False, self.epoch(claim.guest), self._hostname, why)

    async def _put(self, owner: Ownership) -> None:
        """Memory first, so that whoever starts it meanwhile is stopped; and back if it fails."""
        before = self._known.get(owner.uuid)
        if owner.holder != "here":
            self._known[owner.uuid] = owner
        try:
            await self._store.put_ownership(owner)
        except BaseException:
            if self._known.get(owner.uuid) is owner and before is not None:
                self._known[owner.uuid] = before
            elif self._known.get(owner.uuid) is owner:
                del self._known[owner.uuid]
            raise
        self._known[owner.uuid] = owner


def _is_leaving(known: Ownership, migration: str) -> bool:
    return known.holder == "leaving" and known.detail.get(MIGRATION) == migration
