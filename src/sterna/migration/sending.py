"""The source's half of a host's migrations: Begin, Perform, Confirm, and what is asked beside them.

Guests that are being sent away are found by their uuid.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from dataclasses import replace
from typing import Final

from sterna.config import DomainDef, format_domain, parse_domain
from sterna.errors import InternalError, OperationInvalid, SternaError
from sterna.guest.actor import Guest
from sterna.guest.jobs import Job, Operation
from sterna.guest.jobstats import JobStats
from sterna.guest.ports import ClientLink
from sterna.guest.recover import Unfinished
from sterna.guest.registry import Registry
from sterna.guest.states import PausedReason, State
from sterna.migration import asking, checks, doubt, exchange, postcopy, qmp, tls, uri
from sterna.migration.answers import Begun, Host
from sterna.migration.controls import Controls
from sterna.migration.cookie import (
    Cookie,
    Nbd,
    Own,
    Step,
    Times,
    check_guest,
    format_cookie,
    parse_cookie,
    require,
)
from sterna.migration.core import events as on
from sterna.migration.core import source
from sterna.migration.custody import Custody
from sterna.migration.disks import as_copied, copied, offers, sent_to
from sterna.migration.offline_source import OfflineSending
from sterna.migration.outgoing import Outgoing
from sterna.migration.params import Request
from sterna.migration.peers import Peers
from sterna.migration.remote import Remote
from sterna.migration.tuning import refuse_unsupported
from sterna.migration.tunnel import Tunnel
from sterna.migration.way import Way
from sterna.rpc.enums import MigrateFlag

log = logging.getLogger("sterna.migration")

BEGIN_API: Final = "remoteDispatchDomainMigrateBegin3Params"
PERFORM_API: Final = "remoteDispatchDomainMigratePerform3Params"


class Sending:
    """The guests that this host sends away."""

    def __init__(self, registry: Registry, host: Host, peers: Peers, custody: Custody) -> None:
        self._registry, self._host, self._peers = registry, host, peers
        self._owners = custody.owners
        self._offline = OfflineSending(registry, host, peers, custody)
        custody.offered = self._offline.claimed
        self._outgoing: dict[uuid.UUID, Outgoing] = {}
        self.controls = Controls(registry, self.is_outgoing)

    def find(self, guest: uuid.UUID) -> Outgoing | None:
        """The migration by which that guest leaves."""
        return self._outgoing.get(guest)

    def all(self) -> list[Outgoing]:
        """All that are under way."""
        return list(self._outgoing.values())

    async def begin(self, guest: Guest, link: ClientLink, request: Request) -> Begun:
        """Phase 1, on the source: may it go, and what is it?

        With CHANGE_PROTECTION the guest's job is held from here to Confirm, and ends with `link`.

        Raises: OperationInvalid (55), MigrateUnsafe (81), ConfigUnsupported (67), ...
        """
        tls.check_forced(self._host, request.flags)
        if MigrateFlag.OFFLINE in request.flags:
            return await self._offline.begin(guest, link, request)
        running = checks.check_free(guest)
        await checks.check_movable(guest, running, request.flags)
        live = running.definition
        copies = copied(live, request)
        if MigrateFlag.UNSAFE not in request.flags:
            checks.check_safe(live, [disk.target for disk in copies])
        exchange.persistent_xml(guest, request)  # which is read only after all was sent
        xml = await self._outgoing_xml(live, request.xml)
        have = await qmp.supported_capabilities(running.qemu)
        refuse_unsupported(request.capabilities(destination=False), have)
        if tuned := request.qemu_parameters(destination=False):
            refuse_unsupported(tuned, await qmp.original_parameters(running.qemu))
        offered = await offers(running.qemu, [as_copied(disk) for disk in copies])
        id = str(uuid.uuid4())
        if MigrateFlag.CHANGE_PROTECTION in request.flags:
            # Last: nobody would give the job back if anything failed from here on. (L7)
            outgoing = await self._hold(guest, link, request, id, api=BEGIN_API)
            log.info("migration.begin mig=%s guest=%s", outgoing.id, guest.name)
        cookie = replace(
            exchange.basic_cookie(self._host, guest.name, guest.uuid, id, self._owners),
            features=("lockstate",),
            cpu_xml=exchange.cpu_xml(live),
            capabilities=exchange.capabilities(have, "pause-before-switchover"),
            nbd=Nbd(offered) if offered else None,
        )
        return Begun(format_cookie(cookie), xml)

    async def perform(
        self,
        guest: Guest,
        link: ClientLink,
        request: Request,
        cookie_in: bytes,
        *,
        tunnel: Tunnel | None = None,
        peer: Remote | None = None,
    ) -> bytes:
        """Phase 3, on the source: send everything. Returns when all is out.

        With a `tunnel` it goes through that; `peer` is the destination's daemon, if this host
        drives the migration.

        Raises: why it failed, with what the guest does now; it runs on here then.
        """
        outgoing = self._outgoing.get(guest.uuid)
        try:
            cookie, target = self._check_perform(
                guest, outgoing, request, cookie_in, tunnelled=tunnel is not None
            )
            copies = copied(guest.live_or_refuse().definition, request)
            disks_target = sent_to(request, target, cookie.nbd) if copies else None
        except SternaError:
            # No Confirm follows a Perform that failed, so nobody else gives the job back. (L7)
            if outgoing is not None:
                outgoing.drop(link)
            raise
        if outgoing is None:
            id = cookie.own.id if cookie.own is not None else str(uuid.uuid4())
            outgoing = await self._hold(guest, link, request, id, api=PERFORM_API)
        if request.bandwidth_mib:
            # Kept, as libvirt 9.0 keeps it: migrate-getspeed tells it, the next one has it too.
            self.controls.keep_speed(guest, request.bandwidth_mib)
        way = Way(
            target,
            foreign=cookie.own is None,
            speed_mib=self.controls.speed_mib(guest),
            question=asking.question(
                *(outgoing.id, guest.uuid, cookie),
                hosts=(target.host, peer.host if peer is not None else ""),
                uri=peer.uri if peer is not None else "",
            ),
            hostname=cookie.hostname,
            tunnel=tunnel,
            qemu_connects=MigrateFlag.PARALLEL in request.flags,
            tls_dir=self._host.tls_dir,
            disks=tuple(as_copied(disk) for disk in copies),
            disks_target=disks_target,
        )
        await outgoing.perform(link, request, way)
        sent = await self._sent_cookie(guest, outgoing)
        if copies:
            # A libvirtd ends its NBD server only if it is reminded of it. (libvirt 9.0, observed)
            sent = replace(sent, nbd=Nbd(cookie.nbd.disks if cookie.nbd is not None else ()))
        return format_cookie(sent)

    async def confirm(
        self,
        guest: Guest,
        link: ClientLink,
        cookie_in: bytes,
        *,
        cancelled: bool,
    ) -> None:
        """Phase 5, on the source: the guest lives elsewhere, or goes on here.

        Raises: OperationInvalid (55) if it is not being migrated, or nothing proves that the
        destination has it.
        """
        if (held := self._offline.find(guest.uuid)) is not None:
            await self._offline.confirm(held, cookie_in, cancelled=cancelled)
            return
        outgoing = self._outgoing.get(guest.uuid)
        if outgoing is None:
            raise OperationInvalid(f"domain '{guest.name}' is not being migrated")
        cookie = parse_cookie(cookie_in, Step.CONFIRM, host_uuid=self._host.uuid)
        if cookie is not None:
            check_guest(cookie, guest.name, guest.uuid)
            outgoing.learn_final(cookie.stats)
            outgoing.learn_epoch(cookie.own.epoch if cookie.own is not None else 0)
        call, answer = outgoing.new_call()
        proof = exchange.proof(outgoing, cookie)
        number = outgoing.number_of(link)
        outgoing.post(on.ConfirmCalled(call, number, cancelled, proof))
        await answer

    async def abort(self, guest: Guest) -> None:
        """Abort the guest's outgoing migration; returns when it is cancelled.

        Raises: OperationInvalid (55): there is none, or it is too late.
        """
        outgoing = self._outgoing.get(guest.uuid)
        if outgoing is None:
            raise OperationInvalid("no job is active on the domain")
        call, answer = outgoing.new_call()
        outgoing.post(on.AbortCalled(call))
        await answer

    async def start_postcopy(self, guest: Guest) -> None:
        """Let the guest run at the destination before all of its memory is there.

        Raises: OperationInvalid (55): it is not being copied, or not with POSTCOPY; QmpError.
        """
        outgoing = self._outgoing.get(guest.uuid)
        if outgoing is None:
            text = "post-copy can only be started while outgoing migration is in progress"
            raise OperationInvalid(text)
        await outgoing.start_postcopy()

    async def break_postcopy(self, guest: Guest) -> None:
        """Break the connection for pages. Raises: OperationInvalid (55): there is none."""
        outgoing = self._outgoing.get(guest.uuid)
        if outgoing is None or not outgoing.state.post:
            raise OperationInvalid("current job is not outgoing migration in post-copy mode")
        await postcopy.pause(outgoing.running.qemu)

    def is_outgoing(self, guest: Guest) -> bool:
        """Whether the guest is being sent away."""
        return guest.uuid in self._outgoing

    def user_pauses(self, guest: Guest, link: ClientLink) -> PausedReason:
        """Someone is about to suspend the guest: that wish goes with it (I19).

        Returns why it is paused then: a controller only means to end the copying sooner.
        """
        outgoing = self._outgoing.get(guest.uuid)
        if outgoing is not None and outgoing.user_paused(link):
            return PausedReason.MIGRATION
        return PausedReason.USER

    def refuse_in_doubt(self, guest: Guest) -> None:
        """Nobody may let a guest run of which nobody knows whether it runs elsewhere (L5, I6).

        Raises: OperationInvalid (55).
        """
        outgoing = self._outgoing.get(guest.uuid)
        if outgoing is not None and outgoing.state.phase is source.Phase.IN_DOUBT:
            raise OperationInvalid(doubt.in_words(outgoing))

    async def refresh_stats(self, guest: Guest) -> JobStats | None:
        """Ask QEMU how far the guest's migration is; None if there is none.

        Raises: QmpError, MonitorGone, MonitorTimeout.
        """
        outgoing = self._outgoing.get(guest.uuid)
        return await outgoing.refresh() if outgoing is not None else None

    async def _hold(
        self, guest: Guest, link: ClientLink, request: Request, id: str, *, api: str
    ) -> Outgoing:
        checks.check_free(guest)
        phase = source.Phase.BEGUN.value
        job = await guest.jobs.begin_operation(Operation.MIGRATION_OUT, api, phase=phase)
        try:
            running = guest.live_or_refuse()
            outgoing = Outgoing(
                *(id, guest, running, job, request),
                registry=self._registry,
                peers=self._peers,
                owners=self._owners,
                silence_s=self._host.silence_s,
            )
        except BaseException:
            guest.jobs.end(job)
            raise
        outgoing.ended = self._outgoing_ended
        self._outgoing[guest.uuid] = outgoing
        outgoing.start(link, running=guest.state is State.RUNNING)
        return outgoing

    def _outgoing_ended(self, outgoing: Outgoing) -> None:
        if self._outgoing.get(outgoing.guest.uuid) is outgoing:
            del self._outgoing[outgoing.guest.uuid]

    async def _outgoing_xml(self, live: DomainDef, wanted: str | None) -> str:
        if wanted is None:
            return format_domain(live, migratable=True, secure=True)
        target = await self._registry.complete(parse_domain(wanted))
        checks.check_same_machine(live, target)
        return format_domain(target, migratable=True, secure=True)

    async def _sent_cookie(self, guest: Guest, outgoing: Outgoing) -> Cookie:
        with contextlib.suppress(SternaError):
            await outgoing.refresh()
        persists = MigrateFlag.PERSIST_DEST in outgoing.request.flags
        return replace(
            exchange.basic_cookie(self._host, guest.name, guest.uuid, outgoing.id, self._owners),
            features=("persistent",) if persists else (),
            domain_xml=exchange.persistent_xml(guest, outgoing.request) if persists else None,
            stats=outgoing.stats,
            times=Times(outgoing.started_ms, outgoing.stopped_ms, exchange.now_ms()),
            own=Own(
                outgoing.id,
                sent=True,
                paused=not outgoing.state.shall_run,
                epoch=self._owners.epoch(guest.uuid),
            ),
        )

    def _check_perform(
        self,
        guest: Guest,
        outgoing: Outgoing | None,
        request: Request,
        cookie_in: bytes,
        *,
        tunnelled: bool,
    ) -> tuple[Cookie, uri.Endpoint]:
        cookie = require(parse_cookie(cookie_in, Step.PERFORM, host_uuid=self._host.uuid))
        tls.check_forced(self._host, request.flags)
        exchange.persistent_xml(guest, request)
        if tunnelled:
            target = uri.Endpoint("tunnel")
        elif request.migrate_uri is None:
            raise InternalError("missing migration URI")
        else:
            target = uri.parse(request.migrate_uri)
        if MigrateFlag.TLS in request.flags and not tunnelled:
            tls.hostname(request, target)
        if outgoing is None and MigrateFlag.CHANGE_PROTECTION in request.flags:
            raise OperationInvalid(f"domain '{guest.name}' is not being migrated")
        check_guest(cookie, guest.name, guest.uuid)
        if outgoing is not None and cookie.own is not None and cookie.own.id != outgoing.id:
            raise InternalError("migration cookie belongs to another migration")
        return cookie, target

    async def take_up(self, found: Unfinished, job: Job) -> None:
        guest = found.guest
        if "migration" not in job.data:
            guest.jobs.end(job)  # its daemon died before it had begun
            return
        try:
            outgoing = await Outgoing.recovered(
                guest, job, self._registry, self._peers, self._owners
            )
        except SternaError as exc:
            # Its QEMU does not answer. Nothing is killed for that; a person can look at it.
            log.error("migration.not_recovered guest=%s error=%r", guest.name, str(exc))
            guest.jobs.end(job)
            return
        if outgoing.state.phase is not source.Phase.ENDED:
            outgoing.ended = self._outgoing_ended
            self._outgoing[guest.uuid] = outgoing
