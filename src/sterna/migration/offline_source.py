"""The source of an offline migration: only a guest's definition moves, and with it the guest (L1).

There is no QEMU and no Perform, so the source does not hear from the controller where the guest
goes before all is over. So a destination that is Sterna claims the guest itself, in its Finish and
before it decides: that is written here first, and from then on its decision counts, as for a guest
that was sent (docs/explanation/asking.md).
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from sterna.config import DomainDef, format_domain, parse_domain
from sterna.errors import OperationFailed, OperationInvalid
from sterna.guest.actor import Guest
from sterna.guest.jobs import Job, Operation
from sterna.guest.ports import ClientLink
from sterna.guest.registry import Registry
from sterna.migration import checks, doubt, exchange
from sterna.migration.answers import Begun, Host
from sterna.migration.cookie import Cookie, Own, Step, check_guest, format_cookie, parse_cookie
from sterna.migration.custody import Custody
from sterna.migration.ownership import MIGRATION
from sterna.migration.params import Request
from sterna.migration.peers import Claim, Claimed, Peers, Question
from sterna.rpc.enums import MigrateFlag
from sterna.store.ports import Ownership

log = logging.getLogger("sterna.migration.source")

BEGIN_API: Final = "remoteDispatchDomainMigrateBegin3Params"
SETTLED_S: Final = 10.0
"""How long a Confirm waits until what is known is done."""


@dataclass(eq=False, slots=True)
class Held:
    """A guest whose job an offline migration holds.

    Attributes:
        closed: the controller's connection has ended.
        claiming: the destination's claim is being written; nothing may come between.
        claimed: it was: the destination decides.
    """

    id: str
    guest: Guest
    job: Job
    link: ClientLink
    undefine: bool
    let_go: Callable[[], None] = lambda: None
    closed: bool = False
    claiming: bool = False
    claimed: bool = False


class OfflineSending:
    """The guests whose definitions this host gives away."""

    def __init__(self, registry: Registry, host: Host, peers: Peers, custody: Custody) -> None:
        self._registry, self._host, self._peers, self._custody = registry, host, peers, custody
        self._held: dict[uuid.UUID, Held] = {}

    def find(self, guest: uuid.UUID) -> Held | None:
        return self._held.get(guest)

    async def begin(self, guest: Guest, link: ClientLink, request: Request) -> Begun:
        """Hold the guest's job, and say what it is.

        Raises: OperationInvalid (55): it runs, it has saved memory, or another host has it;
            ConfigUnsupported (67).
        """
        if MigrateFlag.CHANGE_PROTECTION not in request.flags:
            raise OperationInvalid("offline migration needs change protection")
        job = await guest.jobs.begin_operation(Operation.MIGRATION_OUT, BEGIN_API, phase="begin3")
        try:
            definition = _at_rest(guest)
            await self._custody.claim_own(guest.uuid, guest.name)
            xml = await self._xml(definition, request.xml or request.persistent_xml)
            place = await self._peers.own_place()
        except BaseException:
            guest.jobs.end(job)
            raise
        held = Held(
            str(uuid.uuid4()), guest, job, link, MigrateFlag.UNDEFINE_SOURCE in request.flags
        )
        self._hold(held)
        log.info("migration.begin mig=%s guest=%s offline=yes", held.id, guest.name)
        return Begun(format_cookie(self._cookie(held, place)), xml)

    async def claimed(self, claim: Claim, hostname: str) -> Claimed | None:
        """The destination is about to decide; None if it is not about one of ours.

        Raises: StoreFailed: it could not be written down, so the guest stays.
        """
        held = self._held.get(claim.guest)
        if held is None or held.id != claim.migration or held.closed or held.claiming:
            return None
        asked = Question(held.id, claim.guest, claim.host, claim.places)
        more = {"name": held.guest.name, "undefine": held.undefine}
        held.claiming = True
        try:
            await self._custody.owners.leaving(asked, hostname, more)
            held.claimed = True
        finally:
            held.claiming = False
            if held.closed:
                self._release(held)
        return Claimed(True, self._custody.owners.epoch(claim.guest), self._host.name)

    async def confirm(self, held: Held, cookie_in: bytes, *, cancelled: bool) -> None:
        """It is the destination's now, or goes on here.

        Raises: OperationInvalid (55): it is otherwise than the caller says, or nothing proves it;
            OperationFailed (9): nobody knows yet.
        """
        guest = held.guest
        cookie = parse_cookie(cookie_in, Step.CONFIRM, host_uuid=self._host.uuid)
        if cookie is not None:
            check_guest(cookie, guest.name, guest.uuid)
        own = cookie.own if cookie is not None else None
        if held.claiming:
            raise OperationInvalid(f"domain '{guest.name}' is being handed over")
        if held.claimed:
            await self._settle(held, own, cancelled=cancelled)
        elif cancelled:
            self._release(held)
        elif own is not None:
            raise OperationInvalid(f"nothing proves that the destination has '{guest.name}'")
        else:
            await self._given_to_stranger(held)

    async def _settle(self, held: Held, own: Own | None, *, cancelled: bool) -> None:
        guest, owners = held.guest, self._custody.owners
        if own is not None and own.id == held.id and own.decision == "committed":
            await owners.given(guest.uuid, held.id, own.epoch)
        self._release(held)
        departed = self._custody.departed(guest.uuid)
        if departed is None:
            return
        if not departed.handed_over:
            await departed.ask_now()
        if doubt.in_doubt(departed):
            raise OperationFailed(
                f"nobody knows yet whether domain '{guest.name}' was accepted at its destination;"
                " it is asked again until it answers"
            )
        await asyncio.wait([departed.over], timeout=SETTLED_S)
        if departed.handed_over is cancelled:
            where = "has taken" if cancelled else "has not taken"
            raise OperationInvalid(f"the destination {where} domain '{guest.name}'")

    async def _given_to_stranger(self, held: Held) -> None:
        """A libvirtd never claims: its rules are all there is."""
        guest, owners = held.guest, self._custody.owners
        await owners.given_to_stranger(guest.uuid, held.id)
        detail = {MIGRATION: held.id, "name": guest.name, "undefine": held.undefine}
        self._release(held)
        given = Ownership(guest.uuid, owners.epoch(guest.uuid), "elsewhere", detail)
        await asyncio.wait([self._custody.depart(given).over], timeout=SETTLED_S)

    def _hold(self, held: Held) -> None:
        link, autokill = held.link, held.guest.surroundings.autokill

        def closed() -> None:
            held.closed = True
            if not held.claiming:
                self._release(held)

        def let_go() -> None:
            link.remove_close_callback(closed)
            autokill.let_go(link)

        self._held[held.guest.uuid] = held
        held.let_go = let_go
        autokill.hold(link)
        if link.closed:
            closed()
        else:
            link.add_close_callback(closed)

    def _release(self, held: Held) -> None:
        """Give the job back; what was claimed is asked about until it is known whose it is (L5)."""
        if self._held.get(held.guest.uuid) is not held:
            return
        del self._held[held.guest.uuid]
        held.let_go()
        owner = self._custody.owners.away(held.guest.uuid)
        if held.claimed and owner is not None:
            self._custody.depart(owner)
        held.guest.jobs.end(held.job)

    def _cookie(self, held: Held, place: str | None) -> Cookie:
        owners, guest = self._custody.owners, held.guest
        basic = exchange.basic_cookie(self._host, guest.name, guest.uuid, held.id, owners)
        own = Own(held.id, epoch=owners.epoch(guest.uuid), asks=place)
        return replace(basic, features=("lockstate",), own=own)

    async def _xml(self, definition: DomainDef, wanted: str | None) -> str:
        if wanted is None:
            return format_domain(definition, inactive=True, migratable=True, secure=True)
        target = await self._registry.complete(parse_domain(wanted))
        checks.check_same_machine(definition, target)
        return format_domain(target, inactive=True, migratable=True, secure=True)


def _at_rest(guest: Guest) -> DomainDef:
    if guest.active:
        raise OperationInvalid(
            "domain is running: offline migration moves one that does not, or it would be in two"
            " places"
        )
    if guest.has_managed_save:
        raise OperationInvalid("cannot migrate domain offline: its saved memory would stay here")
    return guest.stored_or_refuse()
