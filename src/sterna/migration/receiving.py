"""The destination's half of a host's migrations: Prepare, Finish, and what was decided.

Guests that are expected are found by their name, since that is all Finish has.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import uuid
from dataclasses import replace
from typing import Final

from sterna.config import DomainDef, parse_domain
from sterna.errors import InternalError, InvalidArg, OperationFailed, OperationInvalid
from sterna.guest.actor import Guest
from sterna.guest.jobs import Job, Operation
from sterna.guest.jobstats import JobStats
from sterna.guest.ports import ClientLink
from sterna.guest.registry import Registry
from sterna.migration import exchange, tls, transports, uri
from sterna.migration.answers import Finished, Host, Prepared
from sterna.migration.cookie import (
    Cookie,
    Own,
    Step,
    Times,
    check_guest,
    format_cookie,
    parse_cookie,
    require,
)
from sterna.migration.core.records import Record
from sterna.migration.custody import Custody
from sterna.migration.disks import copied
from sterna.migration.incoming import Incoming
from sterna.migration.offline_destination import OfflineReceiving
from sterna.migration.params import Request
from sterna.migration.peers import Decided, Peers
from sterna.migration.received_disks import ReceivedDisks
from sterna.migration.tunnel import FD_NAME, Download, TunnelEnd
from sterna.migration.way import Listening
from sterna.rpc.enums import MigrateFlag
from sterna.store.ports import Verdict

log = logging.getLogger("sterna.migration")

PREPARE_API: Final = "remoteDispatchDomainMigratePrepare3Params"


class Receiving:
    """The guests that this host expects."""

    def __init__(self, registry: Registry, host: Host, peers: Peers, custody: Custody) -> None:
        self._registry, self._host, self._peers, self._custody = registry, host, peers, custody
        self._ports = transports.PortPool(host.port_min, host.port_max)
        self._incoming: dict[str, Incoming] = {}
        self._offline = OfflineReceiving(registry, host, peers, custody)

    def all(self) -> list[Incoming]:
        """All that are under way."""
        return list(self._incoming.values())

    def go_on(self, guest: Guest, job: Job) -> None:
        """Let a guest run that an earlier daemon committed (L2)."""
        incoming = Incoming.committed(guest, job, self._custody.owners)
        incoming.ended = self._incoming_ended
        self._incoming[guest.name] = incoming
        incoming.go_on()

    async def prepare(
        self,
        link: ClientLink,
        request: Request,
        xml: str,
        cookie_in: bytes,
        *,
        download: Download | None = None,
    ) -> Prepared:
        """Phase 2, on the destination: launch a QEMU that waits for the guest.

        It dies with `link` until Finish has started it. In a tunnelled migration its data comes by
        `download`.

        Raises: why it cannot come here; nothing is left then.
        """
        tls.check_forced(self._host, request.flags)
        tunnel = self._tunnel_end(request, download)
        cookie = require(parse_cookie(cookie_in, Step.PREPARE, host_uuid=self._host.uuid))
        definition, origin_name = await self._definition(request, xml, cookie)
        id = cookie.own.id if cookie.own is not None else str(uuid.uuid4())
        await self._refuse_decided(id)
        self._custody.refuse_stale(definition, cookie.own, request)
        place = await self._place_for(cookie)
        if MigrateFlag.OFFLINE in request.flags:
            uri_out = self._uri_of_nothing(request)
            return await self._offline.prepare(
                link, definition, cookie, id=id, origin_name=origin_name, uri_out=uri_out
            )
        disks = await self._disks(id, definition, request, cookie)
        guest, job, plan = await self._admit(definition, request, tunnelled=tunnel is not None)
        listening = Listening(
            *(plan.listen, functools.partial(self._release, plan.port, disks)),
            tls_dir=self._host.tls_dir,
            tunnel=tunnel,
            disks=disks,
        )
        incoming = Incoming(
            *(id, guest, job, request),
            definition=definition,
            listening=listening,
            owners=self._custody.owners,
        )
        incoming.source_epoch = cookie.own.epoch if cookie.own is not None else 0
        incoming.source_name = cookie.hostname
        incoming.foreign = cookie.own is None
        incoming.origin_name = origin_name
        incoming.ended = self._incoming_ended
        self._incoming[guest.name] = incoming
        await incoming.prepare(link)
        cookie_out = replace(
            exchange.basic_cookie(self._host, origin_name, guest.uuid, id, self._custody.owners),
            capabilities=exchange.capabilities(incoming.capabilities, "return-path"),
            own=Own(id, epoch=self._custody.owners.epoch(guest.uuid), asks=place),
            nbd=disks.told if disks is not None else None,
        )
        return Prepared(format_cookie(cookie_out), plan.uri_out)

    def _tunnel_end(self, request: Request, download: Download | None) -> TunnelEnd | None:
        if (MigrateFlag.TUNNELLED in request.flags) is not (download is not None):
            raise InvalidArg("a tunnelled migration, and no other, is prepared with a stream")
        work = self._registry.surroundings.work
        return TunnelEnd(download, work) if download is not None else None

    async def _admit(
        self, definition: DomainDef, request: Request, *, tunnelled: bool
    ) -> tuple[Guest, Job, uri.Incoming]:
        """Take the guest's name and its job, and a port if one is needed."""
        guest = self._registry.admit(definition)
        try:
            job = await guest.jobs.begin_operation(Operation.MIGRATION_IN, PREPARE_API)
            with contextlib.ExitStack() as undo:
                undo.callback(guest.jobs.end, job)
                plan = self._plan(request, tunnelled=tunnelled)
                undo.pop_all()
        except BaseException:
            guest.forget_if_nothing()
            raise
        return guest, job, plan

    async def _place_for(self, cookie: Cookie) -> str | None:
        place = await self._peers.own_place()
        if place is None and cookie.own is not None:
            # Its source would have to believe whoever drives the migration. (L5)
            raise OperationFailed(
                f"host {self._host.name} cannot open or keep the port at which it is asked what it"
                " decided; its log says why"
            )
        return place

    async def finish(
        self, link: ClientLink, request: Request, cookie_in: bytes, *, cancelled: bool
    ) -> Finished:
        """Phase 4, on the destination: let the guest run, or end it.

        Raises: MigrateFinishOk (93) when it was ended as told; else why it could not be started,
        and then its QEMU is gone.
        """
        name = request.name or ""
        if (arrival := self._offline.find(name)) is not None:
            return await self._offline.finish(arrival, link, cancelled=cancelled)
        incoming = self._incoming.get(name)
        cookie = parse_cookie(cookie_in, Step.FINISH, host_uuid=self._host.uuid)
        if incoming is None:
            guest = self._registry.lookup_by_name(name)
            if cookie is not None and not cancelled and await self._is_committed(cookie):
                return self._finished(guest, cookie.name, cookie.own)
            raise OperationInvalid(f"domain '{name}' is not processing incoming migration")
        own = self._check_finish(incoming, cookie)
        await incoming.finish(
            link,
            cancelled=cancelled,
            permitted=incoming.foreign or (own is not None and own.sent),
            paused=MigrateFlag.PAUSED in request.flags or (own is not None and own.paused),
        )
        return self._finished(
            incoming.guest,
            incoming.origin_name,
            Own(incoming.id),
            stats=incoming.final_stats(),
            times=incoming.times,
        )

    async def decide(self, id: str, guest_uuid: uuid.UUID) -> Decided:
        """What this host decided about a migration to it; to ask decides (L4). Idempotent.

        Raises: OperationInvalid (55): that migration is another guest's; StoreFailed: the store
            cannot be read.
        """
        incoming = self._incoming_of(id)
        if incoming is not None:
            if incoming.guest.uuid != guest_uuid:
                raise OperationInvalid(f"migration {id} is not one of domain {guest_uuid}")
            record = await incoming.asked()
            verdict: Verdict = "committed" if record is Record.COMMITTED else "aborted"
        else:
            verdict = await self._custody.decide_for_ever(id, guest_uuid)
        log.info("migration.told mig=%s guest=%s verdict=%s", id, guest_uuid, verdict)
        return Decided(verdict, self._custody.owners.epoch(guest_uuid), self._host.name)

    async def resume(self, id: str, guest_uuid: uuid.UUID) -> int:
        """Listen for the rest of a guest in post-copy, whose source has lost the connection.

        Returns the port; 0 if no page is missing here. Idempotent.

        Raises: OperationInvalid (55): another guest's, or not yet; QmpError, and the monitor's.
        """
        incoming = self._incoming_of(id)
        if incoming is None:
            return 0
        if incoming.guest.uuid != guest_uuid:
            raise OperationInvalid(f"migration {id} is not one of domain {guest_uuid}")
        request = Request(MigrateFlag(0), listen_address=incoming.request.listen_address)
        plan = self._plan(request, tunnelled=False)
        release = functools.partial(self._release, plan.port, None)
        try:
            return await incoming.listen_again(Listening(plan.listen, release))
        except BaseException:
            release()  # harmless if it was given back already
            raise

    def _incoming_ended(self, incoming: Incoming) -> None:
        if self._incoming.get(incoming.guest.name) is incoming:
            del self._incoming[incoming.guest.name]

    async def _refuse_decided(self, id: str) -> None:
        """An id that was decided before cannot be used again: its decision stands (L4)."""
        known = self._incoming_of(id) or self._offline.find_id(id)
        if known is not None or await self._custody.is_decided(id):
            raise OperationInvalid(f"migration {id} has been here before")

    def _incoming_of(self, id: str) -> Incoming | None:
        return next((incoming for incoming in self._incoming.values() if incoming.id == id), None)

    async def _definition(
        self, request: Request, xml: str, cookie: Cookie
    ) -> tuple[DomainDef, str]:
        """The guest as it is to be built here, and its name at the source."""
        definition = parse_domain(xml)
        if definition.uuid is None:
            raise InternalError("missing domain uuid in migration XML")
        origin_name = definition.name
        check_guest(cookie, origin_name, definition.uuid)
        if request.name is not None:
            definition.name = request.name
        exchange.use_cpu(definition, cookie)
        return await self._registry.complete(definition), origin_name

    def _plan(self, request: Request, *, tunnelled: bool) -> uri.Incoming:
        if tunnelled:
            return uri.Incoming(f"fd:{FD_NAME}", None, None)
        anywhere = transports.any_address()
        address = request.listen_address or self._host.address
        return uri.plan_incoming(
            request.migrate_uri,
            listen_address=address,
            own_host=self._host.address or self._host.reached_at or self._host.name,
            any_address=anywhere,
            take_port=lambda: self._ports.take((address or anywhere).strip("[]")),
        )

    def _uri_of_nothing(self, request: Request) -> str | None:
        """Nothing will be sent, but clients insist on a URI."""
        plan = self._plan(request, tunnelled=False)
        self._release(plan.port, None)
        return plan.uri_out

    async def _disks(
        self, id: str, definition: DomainDef, request: Request, cookie: Cookie
    ) -> ReceivedDisks | None:
        """What is needed for disks that come along. Raises: as `ReceivedDisks.look`."""
        if definition.uuid is None or not copied(definition, request):
            return None
        disks = ReceivedDisks(
            store=self._registry.surroundings.store,
            migration=id,
            guest=definition.uuid,
            request=request,
            offered=cookie.nbd,
            ports=self._ports,
            address=self._host.address,
        )
        await disks.look(definition)
        return disks

    def _release(self, port: int | None, disks: ReceivedDisks | None) -> None:
        if port is not None:
            self._ports.release(port)
        if disks is not None:
            disks.release()

    def _check_finish(self, incoming: Incoming, cookie: Cookie | None) -> Own | None:
        if cookie is None:
            return None
        check_guest(cookie, incoming.origin_name, incoming.guest.uuid)
        if cookie.own is not None and cookie.own.id != incoming.id:
            raise InternalError("migration cookie belongs to another migration")
        incoming.learn(cookie)
        return cookie.own

    async def _is_committed(self, cookie: Cookie) -> bool:
        """Whether the migration this cookie belongs to was finished here before.

        A second Finish gets the first one's answer: a refusal would make its caller tell the
        source to resume.
        """
        if cookie.own is None:
            return False
        decided = await self._registry.surroundings.store.decision(cookie.own.id)
        return decided is not None and decided.verdict == "committed"

    def _finished(
        self,
        guest: Guest,
        origin_name: str,
        own: Own | None,
        stats: JobStats | None = None,
        times: Times | None = None,
    ) -> Finished:
        id = own.id if own is not None else ""
        cookie = replace(
            exchange.basic_cookie(self._host, origin_name, guest.uuid, id, self._custody.owners),
            own=Own(id, decision="committed", epoch=self._custody.owners.epoch(guest.uuid)),
            stats=stats,
            times=times,
        )
        return Finished(guest.name, guest.uuid, guest.id, format_cookie(cookie))
