"""The destination of an offline migration: a definition comes, and with it the guest (L1).

Until Finish there is only a name that is taken. It goes with the connection that asked for it
(I8). Finish claims the guest from a source that is Sterna, then decides; the decision, whose the
guest is and its definition are one transaction of the store, so that no death of a host leaves a
guest that nobody has (L2, I13).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from sterna.config import DomainDef
from sterna.errors import MigrateFinishOk, OperationFailed, OperationInvalid
from sterna.guest.actor import Guest
from sterna.guest.definitions import format_stored
from sterna.guest.jobs import Job, Operation
from sterna.guest.ports import ClientLink
from sterna.guest.registry import Registry
from sterna.guest.states import Defined, Lifecycle
from sterna.migration import exchange, story
from sterna.migration.answers import Finished, Host, Prepared
from sterna.migration.cookie import Cookie, Own, format_cookie
from sterna.migration.core.words import Failure, FailureKind
from sterna.migration.custody import Custody
from sterna.migration.peers import Claim, NoAnswer, Peers
from sterna.store.errors import StoreFailed
from sterna.store.ports import StoredDefinition

log = logging.getLogger("sterna.migration.destination")

PREPARE_API: Final = "remoteDispatchDomainMigratePrepare3Params"


@dataclass(eq=False, slots=True)
class Arrival:
    """A guest whose definition is expected here.

    Attributes:
        claim: how it is claimed from its source; None if that is not Sterna.
        epoch: the newest at the source.
        finishing: a Finish is under way.
        closed: the connection that asked for it has ended.
    """

    id: str
    guest: Guest
    job: Job
    definition: DomainDef
    origin_name: str
    source_name: str
    claim: Claim | None
    epoch: int
    let_go: Callable[[], None] = lambda: None
    finishing: bool = False
    closed: bool = False


class OfflineReceiving:
    """The guests whose definitions this host expects."""

    def __init__(self, registry: Registry, host: Host, peers: Peers, custody: Custody) -> None:
        self._registry, self._host, self._peers, self._custody = registry, host, peers, custody
        self._arrivals: dict[str, Arrival] = {}

    def find(self, name: str) -> Arrival | None:
        return self._arrivals.get(name)

    def find_id(self, id: str) -> Arrival | None:
        return next((found for found in self._arrivals.values() if found.id == id), None)

    async def prepare(
        self,
        link: ClientLink,
        definition: DomainDef,
        cookie: Cookie,
        *,
        id: str,
        origin_name: str,
        uri_out: str | None,
    ) -> Prepared:
        """Keep its name and uuid free, as long as `link` lives.

        Raises: OperationInvalid (55), OperationFailed (9): it cannot come here.
        """
        guest = self._registry.admit(definition)
        try:
            if guest.has_managed_save:
                raise OperationInvalid(
                    f"domain '{guest.name}' has saved memory here, which is older than what comes"
                )
            job = await guest.jobs.begin_operation(
                Operation.MIGRATION_IN, PREPARE_API, phase="prepare"
            )
        except BaseException:
            guest.forget_if_nothing()
            raise
        own = cookie.own
        claim = None
        if own is not None:
            places = (own.asks,) if own.asks is not None else ()
            claim = Claim(id, guest.uuid, own.epoch, cookie.host_uuid, places)
        epoch = own.epoch if own is not None else 0
        arrival = Arrival(*(id, guest, job, definition, origin_name, cookie.hostname, claim, epoch))
        self._hold(arrival, link)
        if arrival.closed:
            raise OperationFailed("the connection that asked for it has ended")
        log.info("migration.expected mig=%s guest=%s offline=yes", id, guest.name)
        place = await self._peers.own_place()
        return Prepared(format_cookie(self._cookie(arrival, asks=place)), uri_out)

    async def finish(self, arrival: Arrival, link: ClientLink, *, cancelled: bool) -> Finished:
        """Take it over, or forget it.

        Raises: MigrateFinishOk (93) if it was forgotten as told; else why it does not come.
        """
        guest = arrival.guest
        if arrival.finishing:
            text = f"domain '{guest.name}' is being finished by another call"
            raise OperationInvalid(text)
        if cancelled:
            await self._abandon(arrival, "canceled")
            raise MigrateFinishOk
        arrival.finishing = True
        # In a task of its own: whoever hangs up meanwhile must not end it halfway.
        await self._registry.surroundings.work.start(self._finish(arrival, link))
        return Finished(guest.name, guest.uuid, guest.id, self._committed(arrival))

    async def _finish(self, arrival: Arrival, link: ClientLink) -> None:
        guest = arrival.guest
        try:
            await self._claim(arrival)
            if arrival.closed or link.closed or link.peer_gone():
                # Nobody would hear that it came. (I2)
                raise OperationFailed(
                    f"the connection which controls migration of domain '{guest.name}' has ended"
                )
            await self._registry.surroundings.write_down(lambda: self._decide(arrival))
        except BaseException as exc:
            await self._abandon(arrival, str(exc))
            raise
        self._end(arrival)

    async def _claim(self, arrival: Arrival) -> None:
        """Have the source write down that it is ours to decide (L1)."""
        if arrival.claim is None:
            return
        name = arrival.guest.name
        try:
            said = await self._peers.claim(arrival.claim)
        except NoAnswer as exc:
            raise OperationFailed(
                f"domain '{name}' cannot be taken over from {arrival.source_name}, which has to"
                f" write that down first: {exc}"
            ) from exc
        if not said.granted:
            text = f"{arrival.source_name} does not hand domain '{name}' over: {said.why}"
            raise OperationInvalid(text)
        arrival.epoch = max(arrival.epoch, said.epoch)

    async def _decide(self, arrival: Arrival) -> None:
        guest, owners = arrival.guest, self._custody.owners
        owner = owners.arriving(guest.uuid, arrival.id, arrival.epoch)
        xml = format_stored(arrival.definition)
        row = StoredDefinition(guest.uuid, guest.name, xml, guest.autostart)
        store = self._registry.surroundings.store
        try:
            decision = await store.decide(
                arrival.id, "committed", guest.uuid, owner, definition=row
            )
        except StoreFailed:
            # It may have landed all the same: what the file says is what counts. (L4)
            standing = await store.decision(arrival.id)
            if standing is None:
                raise
            decision = standing
        if decision.verdict != "committed":
            raise OperationFailed(
                f"the source of domain '{guest.name}' has asked meanwhile, and keeps it"
            )
        owners.arrived(owner)
        log.info("migration.decided mig=%s verdict=committed", arrival.id)
        known = guest.persistent
        guest.definition = arrival.definition
        guest.emit_lifecycle(Lifecycle.DEFINED, Defined.UPDATED if known else Defined.ADDED)

    async def _abandon(self, arrival: Arrival, why: str) -> None:
        """It does not come: nothing is left of it, and who asks is told so (I5)."""
        if self._arrivals.get(arrival.guest.name) is arrival:
            self._end(arrival, why)
            with contextlib.suppress(StoreFailed):  # then to ask decides
                await self._custody.decide_for_ever(arrival.id, arrival.guest.uuid)

    def _end(self, arrival: Arrival, why: str = "") -> None:
        guest = arrival.guest
        del self._arrivals[guest.name]
        arrival.let_go()
        guest.jobs.end(arrival.job)
        told = story.story(
            arrival.id,
            guest.name,
            succeeded=not why,
            other=arrival.source_name,
            failure=Failure(FailureKind.FAILED, why) if why else None,
            phases=[("offline", 0)],
            stats=None,
        )
        surroundings = self._registry.surroundings
        surroundings.work.start(story.keep(surroundings.store, guest.uuid, story.IN, told))
        guest.forget_if_nothing()

    def _hold(self, arrival: Arrival, link: ClientLink) -> None:
        surroundings = self._registry.surroundings

        def closed() -> None:
            arrival.closed = True
            if not arrival.finishing:
                gone = "the connection that asked for it has ended"
                surroundings.work.start(self._abandon(arrival, gone))

        def let_go() -> None:
            link.remove_close_callback(closed)
            surroundings.autokill.let_go(link)

        self._arrivals[arrival.guest.name] = arrival
        arrival.let_go = let_go
        surroundings.autokill.hold(link)
        if link.closed:
            closed()
        else:
            link.add_close_callback(closed)

    def _cookie(
        self, arrival: Arrival, *, asks: str | None = None, decision: str | None = None
    ) -> Cookie:
        owners, uuid = self._custody.owners, arrival.guest.uuid
        basic = exchange.basic_cookie(self._host, arrival.origin_name, uuid, arrival.id, owners)
        own = Own(arrival.id, epoch=owners.epoch(uuid), asks=asks, decision=decision)
        return replace(basic, own=own)

    def _committed(self, arrival: Arrival) -> bytes:
        return format_cookie(self._cookie(arrival, decision="committed"))
