"""All migrations of a host: the five calls, and what may be asked beside them.

The server's handlers call this, with a `Request` made from either form of a call. Guests that are
being sent away are found by their uuid, expected ones by their name, since that is all Finish has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from sterna.config import DomainDef, format_domain, parse_domain
from sterna.errors import InternalError, OperationFailed, OperationInvalid, SternaError
from sterna.guest.actor import Guest
from sterna.guest.jobs import Job, Operation
from sterna.guest.jobstats import JobStats
from sterna.guest.ports import ClientLink
from sterna.guest.recover import Unfinished
from sterna.guest.registry import Registry
from sterna.guest.states import PausedReason, State
from sterna.migration import asking, checks, doubt, exchange, qmp, transports, uri
from sterna.migration.answers import Begun, Finished, Host, Prepared
from sterna.migration.controls import Controls
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
from sterna.migration.core import events as on
from sterna.migration.core import source
from sterna.migration.core.records import Record
from sterna.migration.custody import Custody
from sterna.migration.doubtful import Doubtful
from sterna.migration.incoming import Incoming, Listening
from sterna.migration.outgoing import Outgoing, Way
from sterna.migration.params import Request
from sterna.migration.peers import Decided, Peers
from sterna.rpc.enums import MigrateFlag
from sterna.store.ports import Verdict

__all__ = ["Begun", "Finished", "Host", "Migrations", "Prepared"]

log = logging.getLogger("sterna.migration")

BEGIN_API: Final = "remoteDispatchDomainMigrateBegin3Params"
PREPARE_API: Final = "remoteDispatchDomainMigratePrepare3Params"
PERFORM_API: Final = "remoteDispatchDomainMigratePerform3Params"


class Migrations:
    """The migrations of one host."""

    def __init__(self, registry: Registry, host: Host, peers: Peers) -> None:
        self._registry = registry
        self._host = host
        self._peers = peers
        self.custody = Custody(registry, host, peers, lambda guest: guest in self._outgoing)
        self._ports = transports.PortPool(host.port_min, host.port_max)
        self._outgoing: dict[uuid.UUID, Outgoing] = {}
        self._incoming: dict[str, Incoming] = {}
        self.controls = Controls(registry, self.is_outgoing)

    # -- the source ----------------------------------------------------------------------------

    async def begin(self, guest: Guest, link: ClientLink, request: Request) -> Begun:
        """Phase 1, on the source: may it go, and what is it?

        With CHANGE_PROTECTION the guest's job is held from here to Confirm, and ends with `link`.

        Raises: OperationInvalid (55), MigrateUnsafe (81), ConfigUnsupported (67), ...
        """
        running = checks.check_free(guest)
        await checks.check_movable(guest, running, request.flags)
        live = running.definition
        if MigrateFlag.UNSAFE not in request.flags:
            checks.check_safe(live)
        xml = await self._outgoing_xml(live, request.xml)
        have = await qmp.supported_capabilities(running.qemu)
        id = str(uuid.uuid4())
        if MigrateFlag.CHANGE_PROTECTION in request.flags:
            # Last: nobody would give the job back if anything failed from here on. (L7)
            outgoing = await self._hold(guest, link, request, id, api=BEGIN_API)
            log.info("migration.begin mig=%s guest=%s", outgoing.id, guest.name)
        cookie = replace(
            self._basic_cookie(guest.name, guest.uuid, id),
            features=("lockstate",),
            cpu_xml=exchange.cpu_xml(live),
            capabilities=exchange.capabilities(have, "pause-before-switchover"),
        )
        return Begun(format_cookie(cookie), xml)

    async def perform(
        self, guest: Guest, link: ClientLink, request: Request, cookie_in: bytes
    ) -> bytes:
        """Phase 3, on the source: send everything. Returns when all is out.

        Raises: why it failed, with what the guest does now; it runs on here then.
        """
        outgoing = self._outgoing.get(guest.uuid)
        try:
            cookie, target = self._check_perform(guest, outgoing, request, cookie_in)
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
            question=asking.question(outgoing.id, guest.uuid, cookie, target),
            hostname=cookie.hostname,
        )
        await outgoing.perform(link, request, way)
        return format_cookie(await self._sent_cookie(guest, outgoing))

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

    def doubtful(self, guest: uuid.UUID) -> Doubtful | None:
        """The migration that may be in doubt, with a QEMU here or without."""
        return self._outgoing.get(guest) or self.custody.departed(guest)

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

    async def settle(self, within_s: float) -> None:
        """Wait until every migration whose controller has gone is undone.

        For a daemon that stops: a source's QEMU that is left in the middle would stop its guest at
        the switchover, and nobody would let it run again (W5).
        """
        waiting = [outgoing.at_rest for outgoing in self._outgoing.values()]
        waiting += [incoming.at_rest for incoming in self._incoming.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=within_s)

    # -- the destination -----------------------------------------------------------------------

    async def prepare(
        self, link: ClientLink, request: Request, xml: str, cookie_in: bytes
    ) -> Prepared:
        """Phase 2, on the destination: launch a QEMU that waits for the guest.

        It dies with `link` until Finish has started it.

        Raises: why it cannot come here; nothing is left then.
        """
        cookie = require(parse_cookie(cookie_in, Step.PREPARE, host_uuid=self._host.uuid))
        definition = parse_domain(xml)
        if definition.uuid is None:
            raise InternalError("missing domain uuid in migration XML")
        origin_name = definition.name
        check_guest(cookie, origin_name, definition.uuid)
        if request.name is not None:
            definition.name = request.name
        exchange.use_cpu(definition, cookie)
        definition = await self._registry.complete(definition)
        id = cookie.own.id if cookie.own is not None else str(uuid.uuid4())
        await self._refuse_decided(id)
        self.custody.refuse_stale(definition, cookie.own, request)
        place = await self._peers.own_place()
        if place is None and cookie.own is not None:
            # Its source would have to believe whoever drives the migration. (L5)
            raise OperationFailed(
                f"host {self._host.name} cannot open or keep the port at which it is asked what it"
                " decided; its log says why"
            )
        guest = self._registry.admit(definition)
        try:
            job = await guest.jobs.begin_operation(Operation.MIGRATION_IN, PREPARE_API)
            with contextlib.ExitStack() as undo:
                undo.callback(guest.jobs.end, job)
                plan = self._plan(request)
                undo.pop_all()
        except BaseException:
            guest.forget_if_nothing()
            raise
        listening = Listening(plan.listen, lambda: self._release(plan.port))
        incoming = Incoming(
            *(id, guest, job, request),
            definition=definition,
            listening=listening,
            owners=self.custody.owners,
        )
        incoming.source_epoch = cookie.own.epoch if cookie.own is not None else 0
        incoming.source_name = cookie.hostname
        incoming.foreign = cookie.own is None
        incoming.origin_name = origin_name
        incoming.ended = self._incoming_ended
        self._incoming[guest.name] = incoming
        await incoming.prepare(link)
        cookie_out = replace(
            self._basic_cookie(origin_name, guest.uuid, id),
            capabilities=exchange.capabilities(incoming.capabilities, "return-path"),
            own=Own(id, epoch=self.custody.owners.epoch(guest.uuid), asks=place),
        )
        return Prepared(format_cookie(cookie_out), plan.uri_out)

    async def go_on(self, unfinished: Iterable[Unfinished]) -> None:
        """Take up what recovery found: guests committed here but not yet let run, and guests that
        were on their way out, with their QEMU or without (L2, I14)."""
        left = await self.custody.owners.load()
        for found in unfinished:
            job = found.guest.jobs.job
            if found.job["operation"] == Operation.MIGRATION_OUT.value:
                job = found.guest.jobs.take_up(Operation.MIGRATION_OUT, found.job)
                self._registry.surroundings.work.start(self._take_up(found, job))
                continue
            if job is not None and job.operation is Operation.MIGRATION_IN:
                incoming = Incoming.committed(found.guest, job, self.custody.owners)
                incoming.ended = self._incoming_ended
                self._incoming[found.guest.name] = incoming
                incoming.go_on()
        self.custody.go_on(left)

    async def _take_up(self, found: Unfinished, job: Job) -> None:
        guest = found.guest
        if "migration" not in job.data:
            guest.jobs.end(job)  # its daemon died before it had begun
            return
        try:
            outgoing = await Outgoing.recovered(
                guest, job, self._registry, self._peers, self.custody.owners
            )
        except SternaError as exc:
            # Its QEMU does not answer. Nothing is killed for that; a person can look at it.
            log.error("migration.not_recovered guest=%s error=%r", guest.name, str(exc))
            guest.jobs.end(job)
            return
        if outgoing.state.phase is not source.Phase.ENDED:
            outgoing.ended = self._outgoing_ended
            self._outgoing[guest.uuid] = outgoing

    async def finish(
        self, link: ClientLink, request: Request, cookie_in: bytes, *, cancelled: bool
    ) -> Finished:
        """Phase 4, on the destination: let the guest run, or end it.

        Raises: MigrateFinishOk (93) when it was ended as told; else why it could not be started,
        and then its QEMU is gone.
        """
        name = request.name or ""
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

    # -- the question --------------------------------------------------------------------------

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
            verdict = await self.custody.decide_for_ever(id, guest_uuid)
        log.info("migration.told mig=%s guest=%s verdict=%s", id, guest_uuid, verdict)
        return Decided(verdict, self.custody.owners.epoch(guest_uuid), self._host.name)

    # -- parts ---------------------------------------------------------------------------------

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
                owners=self.custody.owners,
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

    def _incoming_ended(self, incoming: Incoming) -> None:
        if self._incoming.get(incoming.guest.name) is incoming:
            del self._incoming[incoming.guest.name]

    async def _outgoing_xml(self, live: DomainDef, wanted: str | None) -> str:
        if wanted is None:
            return format_domain(live, migratable=True, secure=True)
        target = await self._registry.complete(parse_domain(wanted))
        checks.check_same_machine(live, target)
        return format_domain(target, migratable=True, secure=True)

    def _basic_cookie(self, name: str, guest_uuid: uuid.UUID, id: str) -> Cookie:
        own = Own(id, epoch=self.custody.owners.epoch(guest_uuid))
        return Cookie(name, guest_uuid, self._host.name, self._host.uuid, own=own)

    async def _refuse_decided(self, id: str) -> None:
        """An id that was decided before cannot be used again: its decision stands (L4)."""
        if await self.custody.is_decided(id) or self._incoming_of(id) is not None:
            raise OperationInvalid(f"migration {id} has been here before")

    def _incoming_of(self, id: str) -> Incoming | None:
        return next((incoming for incoming in self._incoming.values() if incoming.id == id), None)

    def _plan(self, request: Request) -> uri.Incoming:
        anywhere = transports.any_address()
        address = request.listen_address or self._host.address
        return uri.plan_incoming(
            request.migrate_uri,
            listen_address=address,
            own_host=self._host.address or self._host.reached_at or self._host.name,
            any_address=anywhere,
            take_port=lambda: self._ports.take((address or anywhere).strip("[]")),
        )

    def _release(self, port: int | None) -> None:
        if port is not None:
            self._ports.release(port)

    async def _sent_cookie(self, guest: Guest, outgoing: Outgoing) -> Cookie:
        with contextlib.suppress(SternaError):
            await outgoing.refresh()
        persists = MigrateFlag.PERSIST_DEST in outgoing.request.flags
        return replace(
            self._basic_cookie(guest.name, guest.uuid, outgoing.id),
            features=("persistent",) if persists else (),
            domain_xml=exchange.persistent_xml(guest, outgoing.request) if persists else None,
            stats=outgoing.stats,
            times=Times(outgoing.started_ms, outgoing.stopped_ms, exchange.now_ms()),
            own=Own(
                outgoing.id,
                sent=True,
                paused=not outgoing.state.shall_run,
                epoch=self.custody.owners.epoch(guest.uuid),
            ),
        )

    def _check_perform(
        self, guest: Guest, outgoing: Outgoing | None, request: Request, cookie_in: bytes
    ) -> tuple[Cookie, uri.Endpoint]:
        cookie = require(parse_cookie(cookie_in, Step.PERFORM, host_uuid=self._host.uuid))
        if request.migrate_uri is None:
            raise InternalError("missing migration URI")
        target = uri.parse(request.migrate_uri)
        if outgoing is None and MigrateFlag.CHANGE_PROTECTION in request.flags:
            raise OperationInvalid(f"domain '{guest.name}' is not being migrated")
        check_guest(cookie, guest.name, guest.uuid)
        if outgoing is not None and cookie.own is not None and cookie.own.id != outgoing.id:
            raise InternalError("migration cookie belongs to another migration")
        return cookie, target

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
            self._basic_cookie(origin_name, guest.uuid, id),
            own=Own(id, decision="committed", epoch=self.custody.owners.epoch(guest.uuid)),
            stats=stats,
            times=times,
        )
        return Finished(guest.name, guest.uuid, guest.id, format_cookie(cookie))
