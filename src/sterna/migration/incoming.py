"""The destination's driver: carries out what `core.destination` orders, on a guest of this host."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from enum import Enum
from typing import Any, Final, Self

from sterna.config import DomainDef
from sterna.errors import Code, OperationFailed, OperationInvalid, SternaError
from sterna.guest.actor import Guest
from sterna.guest.incoming import announce_incoming, launch_incoming, take_over
from sterna.guest.jobs import Job
from sterna.guest.jobstats import JobOperation, JobStats
from sterna.guest.ports import ClientLink
from sterna.guest.running import FAILED, ORPHANED, Ending, Running
from sterna.guest.states import (
    Lifecycle,
    PausedReason,
    Resumed,
    RunningReason,
    ShutDown,
    State,
    Suspended,
)
from sterna.guest.surroundings import MONITOR_S
from sterna.migration import postcopy, qmp, story, tls
from sterna.migration.arrived import keep
from sterna.migration.cookie import Cookie, Times
from sterna.migration.core import destination
from sterna.migration.core import effects as do
from sterna.migration.core import events as on
from sterna.migration.core.records import Record
from sterna.migration.core.words import QmpOp, Status
from sterna.migration.driver import Driver, code_of, outcome
from sterna.migration.ownership import Owners
from sterna.migration.params import Request
from sterna.migration.tuning import refuse_unsupported
from sterna.migration.tunnel import FD_NAME
from sterna.migration.way import Listening
from sterna.qemu.process import last_words
from sterna.qemu.qmp_session import Event
from sterna.rpc.enums import MigrateFlag
from sterna.store.errors import StoreFailed
from sterna.store.ports import Verdict

log = logging.getLogger("sterna.migration.destination")

_STATUSES: Final = {status.value: status for status in Status}
_VERDICTS: Final[dict[Record, Verdict]] = {
    Record.COMMITTED: "committed",
    Record.ABORTED: "aborted",
}
_RECORDS: Final[dict[Verdict, Record]] = {word: record for record, word in _VERDICTS.items()}
# Until the decision the guest has certainly not run here. (L4)
_UNDECIDED: Final = {
    destination.Phase.LAUNCHING,
    destination.Phase.LISTENING,
    destination.Phase.PREPARED,
    destination.Phase.FINISHING,
}
_AT_REST: Final = {
    destination.Phase.ENDED,
    destination.Phase.FAILED,
    destination.Phase.RECEIVING,
}
_ENDINGS: Final = {
    do.StopReason.FAILED: FAILED,
    do.StopReason.UNBORN: FAILED,
    do.StopReason.AUTOKILL: ORPHANED,
}

DestinationDriver = Driver[destination.Destination, on.DestinationEvent, do.DestinationEffect]


class Incoming(DestinationDriver):
    """One guest that is expected here.

    Attributes:
        foreign: the source is not Sterna, so no cookie can prove that it gave the guest away.
        origin_name: the guest's name at the source, which cookies carry.
        source_name: what the source's host calls itself.
        persistent_xml: what Finish writes down, if it was asked to.
        stats: what the source's cookie said of the transfer.
    """

    def __init__(
        self,
        id: str,
        guest: Guest,
        job: Job,
        request: Request,
        *,
        definition: DomainDef,
        listening: Listening,
        owners: Owners,
    ) -> None:
        super().__init__(id, guest.surroundings.work)
        self.guest, self.job, self.request = guest, job, request
        self.definition, self.listening = definition, listening
        self._owners = owners
        self.source_epoch = 0
        self.foreign = False
        self.origin_name = guest.name
        self.source_name = ""
        self.persistent_xml: str | None = None
        self.stats: JobStats | None = None
        self.times: Times | None = None
        self._resumed_ms = 0
        self.ended: Callable[[Incoming], None] = lambda _incoming: None
        self.capabilities: tuple[str, ...] = ()
        self._running: Running | None = None
        self._launching = False
        self._kill: Ending | None = None
        self._originals: dict[str, Any] = {}
        self._unsubscribe: Callable[[], None] = lambda: None
        # What a later daemon needs if this one dies after the decision.
        job.data["migration"] = id
        job.data["persist"] = MigrateFlag.PERSIST_DEST in request.flags

    @classmethod
    def committed(cls, guest: Guest, job: Job, owners: Owners) -> Self:
        """One that an earlier daemon committed; `go_on` does the rest."""
        persist = MigrateFlag.PERSIST_DEST if job.data["persist"] else MigrateFlag(0)
        incoming = cls(
            job.data["migration"],
            guest,
            job,
            Request(persist),
            definition=guest.live_or_refuse().definition,
            listening=Listening("", lambda: None),
            owners=owners,
        )
        incoming._originals = job.data.get("parameters", {})
        return incoming

    # -- what the service asks -----------------------------------------------------------------

    def go_on(self) -> None:
        """Do what the decision says (L2)."""
        running = self.guest.live_or_refuse()
        self._attend(running)
        data = self.job.data
        # In post-copy it may have run here before, and been paused by somebody since.
        paused_here = not running.incoming and self.guest.state is State.PAUSED
        begun = destination.recovered(
            self.guest.name,
            persist=data["persist"],
            paused=data.get("paused", False) or paused_here,
            post=data.get("post", False),
        )
        self.begin(*begun)

    async def prepare(self, link: ClientLink) -> None:
        """Launch and listen. Raises: SternaError, why not; nothing is left then."""
        call, answer = self.new_call()
        persist = MigrateFlag.PERSIST_DEST in self.request.flags
        number = self.number_of(link)
        self.begin(*destination.begin(self.guest.name, call, number, persist=persist))
        await answer

    async def finish(
        self, link: ClientLink, *, cancelled: bool, permitted: bool, paused: bool
    ) -> None:
        """Let the guest run, or end it. Raises: SternaError; MigrateFinishOk if it was told to."""
        if paused != self.job.data.get("paused", False):
            # Writes keep their order, so this is on disk before the decision. (I13)
            self.job.data["paused"] = paused
            self.guest.post_status()
        call, answer = self.new_call()
        number = self.number_of(link)
        self.post(on.FinishCalled(call, number, cancelled, permitted, paused))
        await answer

    async def asked(self) -> Record:
        """The decision, which the source asks for; made now, if there was none (L4)."""
        call, answer = self.new_question()
        self.post(on.Asked(call))
        return await answer

    async def listen_again(self, listening: Listening) -> int:
        """Listen for the rest of a post-copy whose connection is lost.

        Returns the port; 0 if no page is missing. Raises: OperationInvalid (55): not yet; QmpError,
        and the monitor's.
        """
        phase = self.state.phase
        if phase in (destination.Phase.COMMITTING, destination.Phase.STARTING):
            raise OperationInvalid(f"domain '{self.guest.name}' is being started")
        if phase is not destination.Phase.RECEIVING:
            listening.release_port()
            return 0
        port = await postcopy.listen_again(self.guest.live_or_refuse().qemu, listening.uri)
        if listening.uri.endswith(f":{port}"):
            self.listening.release_port()
            self.listening = listening
        else:
            listening.release_port()
        return port

    def learn(self, cookie: Cookie) -> None:
        """What the source says with its Finish cookie."""
        self.persistent_xml = cookie.domain_xml
        self.stats = cookie.stats
        if cookie.times is not None:
            # Its clock may differ from ours; whoever cares can take the difference off.
            delta = time.time_ns() // 1_000_000 - cookie.times.sent
            self.times = replace(cookie.times, delta=delta)

    def final_stats(self) -> JobStats | None:
        """The source's numbers, with the times that only the destination knows."""
        if self.stats is None or self.times is None:
            return self.stats
        now = self._resumed_ms or time.time_ns() // 1_000_000
        return replace(
            self.stats,
            operation=JobOperation.MIGRATION_IN,
            time_elapsed=max(0, now - self.times.started),
            downtime=max(0, now - self.times.stopped),
        )

    # -- events --------------------------------------------------------------------------------

    def _heard(self, event: Event) -> None:
        if event.name == "RESUME":
            self._resumed_ms = self._resumed_ms or time.time_ns() // 1_000_000
            self.post(on.CpusStarted())
        elif event.name == "MIGRATION":
            status = _STATUSES.get(event.data.get("status", ""))
            if status is not None:
                self.job.progress()
                if status is Status.POSTCOPY_ACTIVE and not self.job.data.get("post"):
                    # Writes keep their order, so this is on disk before the decision. (I13)
                    self.job.data["post"] = True
                    self.guest.post_status()
                self.post(on.StatusChanged(status))

    def _stopped(self, ending: Ending) -> None:
        why = f"domain '{self.guest.name}' was stopped: {ending.audit}"
        if self._running is not None and ending is FAILED and self._kill is None:
            words = last_words(self._running.log_path, self._running.log_from)
            why = f"qemu unexpectedly closed the monitor: {words or 'without a word'}"
            if self.state.phase in _UNDECIDED:
                # The controller shows this text instead of the source's, so it says the whole. (L8)
                why += (
                    f"; the migration failed at the destination in phase {self.state.phase.value},"
                    f" domain '{self.guest.name}' never ran there"
                )
        self._over(on.QemuGone(why, int(Code.INTERNAL_ERROR)))

    def _over(self, event: on.QemuGone | on.LaunchFailed) -> None:
        """There is no QEMU any more: say so once what was made for it is gone, too."""
        if self.listening.disks is None:
            self.post(event)
        else:
            self.do(self._after(self.listening.disks.settle(), event))

    async def _after(self, work: Awaitable[None], event: on.QemuGone | on.LaunchFailed) -> None:
        try:
            await work
        finally:
            self.post(event)

    def _closed(self, link: int) -> None:
        self.post(on.ConnectionClosed(link))

    # -- effects -------------------------------------------------------------------------------

    def step(
        self, state: destination.Destination, event: on.DestinationEvent
    ) -> tuple[destination.Destination, tuple[do.DestinationEffect, ...]]:
        return destination.step(state, event)

    def entered(self, phase: Enum) -> None:
        self.job.enter(phase.value)
        if phase in _AT_REST:
            self.rest()
        if phase is destination.Phase.ENDED:
            self.close()
            self.ended(self)

    def run(self, effect: do.DestinationEffect) -> None:
        match effect:
            case do.Answer(call=call):
                self.answer(call)
            case do.Refuse(call=call, failure=failure):
                self.refuse(call, failure)
            case do.Tell(call=call, decision=decision):
                self.tell(call, decision)
            case do.Store(record=record):
                self.do(self._decide(record))
            case do.Qmp(op=op):
                self.do(self._qmp(op))
            case do.Watch(link=link):
                self.watch(link, lambda: self._closed(link))
            case do.Unwatch():
                # The registration for autokill went with the process, or goes with `take_over`;
                # the guest's next life may have one of its own by now.
                self.unwatch()
            case do.CheckCaller(link=link):
                caller = self.link(link)
                self.post_first(on.CallerChecked(not (caller.closed or caller.peer_gone())))
            case do.Launch():
                self.do(self._launch())
            case do.Kill(reason=reason):
                self._kill_qemu(reason)
            case do.Define():
                self.do(self._define())
            case do.Show(view=view):
                self._show(view)
            case do.SetTimer(timer=timer, seconds=seconds):
                self.set_timer(timer, seconds, lambda: self.post(on.TimerFired(timer)))
            case do.ClearTimer(timer=timer):
                self.clear_timer(timer)
            case do.EndJob(succeeded=succeeded):
                self._end_job(succeeded=succeeded)

    def _kill_qemu(self, reason: do.StopReason) -> None:
        self._kill = _ENDINGS[reason]
        if self.guest.running is not None:
            if reason is do.StopReason.AUTOKILL and self.guest.running.launched:
                # QEMU cannot say it; clients of libvirt 9.0 see it before "destroyed" (observed).
                self.guest.emit_lifecycle(Lifecycle.SHUTDOWN, ShutDown.HOST)
            self.guest.kill_now(self._kill)
        elif not self._launching:
            self.post(on.QemuGone("never started"))

    def _show(self, view: do.View) -> None:
        guest, running = self.guest, self._running
        log.info("migration.shown mig=%s guest=%s view=%s", self.id, guest.name, view.value)
        if running is None:
            return
        if view is do.View.INCOMING:
            announce_incoming(guest, running)
            return
        if running.incoming:
            take_over(guest, running)
        if view is do.View.POSTCOPY_FAILED:
            guest.set_running(RunningReason.POSTCOPY_FAILED, Resumed.POSTCOPY_FAILED)
            return
        if view is do.View.POSTCOPY:
            if guest.reason is not RunningReason.POSTCOPY:
                guest.set_running(RunningReason.POSTCOPY, Resumed.POSTCOPY)
            return
        if view is do.View.RUNNING and self.job.data.get("post"):
            guest.set_running(RunningReason.MIGRATED, Resumed.MIGRATED)
        # What is left of the job is ours: whoever asks for its result need not wait for that.
        guest.jobs.completed = self.final_stats()
        if view is do.View.PAUSED:
            guest.set_paused(PausedReason.USER, Suspended.PAUSED)
        elif view is do.View.HELD:
            guest.set_paused(PausedReason.API_ERROR, Suspended.API_ERROR)

    def _end_job(self, *, succeeded: bool) -> None:
        self._unsubscribe()
        self.listening.release_port()
        if self.listening.tunnel is not None and not succeeded:
            self.listening.tunnel.close()
        if succeeded and self.listening.disks is not None:
            self.do(self.listening.disks.settle())
        self.guest.jobs.end(self.job)
        told = story.story(
            self.id,
            self.guest.name,
            succeeded=succeeded,
            other=self.source_name,
            failure=self.state.failure,
            phases=self.phases,
            stats=self.guest.jobs.completed if succeeded else self.stats,
        )
        self.do(story.keep(self.guest.surroundings.store, self.guest.uuid, story.IN, told))
        self.guest.forget_if_nothing()

    # -- work ----------------------------------------------------------------------------------

    async def _launch(self) -> None:
        if self._kill is not None:
            self.post(on.QemuGone("killed before it was launched"))
            return
        number = next(iter(self._links))
        link = self._links[number]
        self._launching = True
        try:
            if self.listening.disks is not None:
                await self.listening.disks.make()
                if self._kill is not None:
                    raise OperationFailed("killed before it was launched")
            running = await launch_incoming(
                self.guest,
                self.definition,
                link,
                lambda: self._closed(number),
                migration=self.id,
            )
        except Exception as exc:
            # The actor's boundary: whatever it was, nothing is left, and Prepare must hear so.
            why = exc.detail if isinstance(exc, SternaError) else str(exc)
            if not isinstance(exc, SternaError | OSError):
                log.exception("migration.launch_broke mig=%s", self.id)
                why = f"unexpected failure: {type(exc).__name__}"
            if self._kill is not None:
                self._over(on.QemuGone(why))
            else:
                self._over(on.LaunchFailed(why, code_of(exc)))
            return
        finally:
            self._launching = False
        self._attend(running)
        self.post(on.Launched())

    def _attend(self, running: Running) -> None:
        self._running = running
        running.when_stopped(self._stopped)
        if running.monitor is not None:
            self._unsubscribe = running.monitor.subscribe(self._heard)

    async def _decide(self, record: Record) -> None:
        store, uuid = self.guest.surroundings.store, self.guest.uuid
        verdict = _VERDICTS[record]
        owner = self._owners.arriving(uuid, self.id, self.source_epoch)
        try:
            # From the same moment on the guest is ours, and its older copies are stale. (L1)
            ours = owner if verdict == "committed" else None
            decision = await store.decide(self.id, verdict, uuid, ours)
        except StoreFailed as exc:
            log.error("migration.store_failed mig=%s record=%s", self.id, record.value)
            self.post(on.StoreFailed(record, exc.detail))
        else:
            if decision.verdict == "committed":
                self._owners.arrived(owner)
            log.info("migration.decided mig=%s verdict=%s", self.id, decision.verdict)
            self.post(on.Stored(_RECORDS[decision.verdict]))

    async def _define(self) -> None:
        self.post(on.Defined(await keep(self.id, self.guest, self.definition, self.persistent_xml)))

    async def _qmp(self, op: QmpOp) -> None:
        self.post(await outcome(op, self._done(op)))

    async def _done(self, op: QmpOp) -> on.QmpDone:
        qemu = self.guest.live_or_refuse().qemu
        match op:
            case QmpOp.LISTEN:
                await self._listen()
            case QmpOp.READY:
                if self.listening.disks is not None:
                    # Before the decision, while a failure of it is still the source's luck.
                    await self.listening.disks.hang_up(qemu)
                devices = self.definition.devices
                await postcopy.wait_loaded(qemu)
                await qmp.check_ready(qemu, has_disks=bool(devices.disks))
            case QmpOp.ALIVE:
                await qemu.execute("query-status", timeout_s=MONITOR_S)
            case QmpOp.PROGRESS:
                reply = await qmp.query(qemu)
                return on.QmpDone(op, status=_STATUSES.get(reply.get("status", "")))
            case QmpOp.CONT:
                post = self.state.post
                why = RunningReason.POSTCOPY if post else RunningReason.MIGRATED
                await self.guest.resume_cpus(why)
            case QmpOp.RESTORE:
                have = self.capabilities or await qmp.supported_capabilities(qemu)
                await qmp.set_capabilities(qemu, have, ())
                await qmp.set_parameters(qemu, self._originals)
                if self.job.data.get("tls"):
                    await tls.remove(qemu)
        return on.QmpDone(op)

    async def _listen(self) -> None:
        qemu = self.guest.live_or_refuse().qemu
        self._originals = await qmp.original_parameters(qemu)
        self.job.data["parameters"] = self._originals
        self.capabilities = await qmp.supported_capabilities(qemu)
        asked = self.request.capabilities(destination=True)
        own = self.request.qemu_parameters(destination=True)
        refuse_unsupported(asked, self.capabilities)
        refuse_unsupported(own, self._originals)
        tunnel = self.listening.tunnel
        two_way = {"return-path"} if tunnel is None else set()
        await qmp.set_capabilities(qemu, self.capabilities, {*two_way, *asked})
        used = {}
        if MigrateFlag.TLS in self.request.flags:
            self.job.data["tls"] = True
            used = await tls.add(qemu, self.listening.tls_dir, server=True)
        await qmp.set_parameters(qemu, {**tls.OFF, **used, **own})
        if self.listening.disks is not None:
            definition = self.guest.live_or_refuse().definition
            await self.listening.disks.listen(qemu, definition, used)
        if tunnel is not None:
            with tunnel.open() as sock:  # QEMU gets a copy
                name = {"fdname": FD_NAME}
                await qemu.execute("getfd", name, fds=(sock.fileno(),), timeout_s=MONITOR_S)
        await qemu.execute("migrate-incoming", {"uri": self.listening.uri}, timeout_s=MONITOR_S)
