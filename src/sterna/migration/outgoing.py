"""The source's driver: carries out what `core.source` orders, on a guest of this host."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from enum import Enum
from typing import Any, Final, Self

from sterna.errors import Code, InternalError
from sterna.guest.actor import Guest
from sterna.guest.events import JobCompletedEvent
from sterna.guest.jobs import Job
from sterna.guest.jobstats import JobOperation, JobStats, JobType
from sterna.guest.ports import ClientLink
from sterna.guest.registry import Registry
from sterna.guest.running import DESTROYED, MIGRATED, SHUTDOWN, Ending, Running
from sterna.guest.states import PausedReason, RunningReason, ShutoffReason, State, Suspended
from sterna.guest.surroundings import MONITOR_S
from sterna.migration import asking, memlock, postcopy, qmp, tls, transports, uri
from sterna.migration.answers import SILENCE_S
from sterna.migration.core import effects as do
from sterna.migration.core import events as on
from sterna.migration.core import source, source_state
from sterna.migration.core.records import Record
from sterna.migration.core.words import Proof, QmpOp, Status
from sterna.migration.disks import CopiedDisk
from sterna.migration.doubtful import Doubtful
from sterna.migration.driver import outcome
from sterna.migration.mirrors import Mirrors
from sterna.migration.ownership import Owners
from sterna.migration.params import Request
from sterna.migration.peers import Peers
from sterna.migration.tuning import MIB
from sterna.migration.way import Way
from sterna.qemu.process import last_words
from sterna.qemu.qmp_session import Event
from sterna.rpc.enums import MigrateFlag

log = logging.getLogger("sterna.migration.source")

FD_NAME: Final = "migrate"
SENT: Final = ("postmigrate", "finish-migrate")
"""QEMU's run states once it has sent everything (QMP reference, `RunState`)."""
_STATUSES: Final = {status.value: status for status in Status}


class Outgoing(Doubtful):
    """One guest that is being sent away.

    Attributes:
        request: what Begin asked for, then what Perform asks for.
        way: how the data goes, known at Perform.
        stats: what QEMU said last of the transfer.
    """

    def __init__(
        self,
        id: str,
        guest: Guest,
        running: Running,
        job: Job,
        request: Request,
        *,
        registry: Registry,
        peers: Peers,
        owners: Owners,
        silence_s: float = SILENCE_S,
    ) -> None:
        super().__init__(id, guest.uuid, registry, peers, owners)
        self._silence_s = silence_s
        self.guest, self.running, self.job, self.request = guest, running, job, request
        self.way: Way | None = None
        self.stats: JobStats | None = None
        self.started_ms = 0
        self.stopped_ms = 0
        self.ended: Callable[[Outgoing], None] = lambda _outgoing: None
        self._held: list[ClientLink] = []
        self._socket: socket.socket | None = None
        self._have: tuple[str, ...] = ()
        self._originals: dict[str, Any] = {}
        self._tls: dict[str, str] = {}
        self._mirrors = Mirrors(running.qemu, ())
        self._unsubscribe = running.qemu.subscribe(self._heard)
        running.when_stopped(self._stopped)
        job.data["migration"] = id
        job.cancel = self._cancelled

    @classmethod
    async def recovered(
        cls, guest: Guest, job: Job, registry: Registry, peers: Peers, owners: Owners
    ) -> Self:
        """One whose daemon died; `job` has what that daemon had written down (I14).

        Raises: SternaError if QEMU does not answer.
        """
        running, data = guest.live_or_refuse(), job.data
        undefines = MigrateFlag.UNDEFINE_SOURCE if data.get("undefine") else MigrateFlag(0)
        outgoing = cls(
            *(str(data["migration"]), guest, running, job, Request(undefines)),
            registry=registry,
            peers=peers,
            owners=owners,
        )
        outgoing._taken_up = True
        outgoing.question = asking.from_record(outgoing.id, guest.uuid, data)
        outgoing.hostname = (data.get("question") or {}).get("hostname", "")
        outgoing._originals = dict(data.get("parameters", {}))
        disks = (CopiedDisk(**disk) for disk in data.get("disks", ()))
        outgoing._mirrors = Mirrors(running.qemu, disks)
        reply = await qmp.query(running.qemu)
        run_state = await running.qemu.execute("query-status", timeout_s=MONITOR_S)
        status = _STATUSES.get(reply.get("status", ""))
        if status is Status.COMPLETED and run_state["status"] not in SENT:
            status = None  # it once came here by a migration, and that is what QEMU tells of
        outgoing.begin(
            *source.recovered(
                guest.name,
                Record(data["record"]) if "record" in data else None,
                status,
                shall_run=bool(data.get("shall_run", True)),
                stopped=not run_state["running"],
                asks=outgoing.question is not None,
            )
        )
        outgoing.entered(outgoing.state.phase)
        return outgoing

    # -- what the service asks -----------------------------------------------------------------

    def start(self, link: ClientLink, *, running: bool) -> None:
        """Begin: watch the connection, hold the job."""
        live = MigrateFlag.LIVE in self.request.flags
        number = self.number_of(link)
        self._remember(shall_run=running)
        first = source.begin(
            self.guest.name,
            number,
            live=live,
            running=running,
            patience=round(self._silence_s),
            may_postcopy=MigrateFlag.POSTCOPY in self.request.flags,
        )
        self.begin(*first)

    async def perform(self, link: ClientLink, request: Request, way: Way) -> None:
        """Send everything. Raises: SternaError, why it failed."""
        call, answer = self.new_call()
        number = self.number_of(link)
        if self.state.phase is source.Phase.BEGUN and self.state.link == number:
            # Any other call is about to be refused, and must not change what runs.
            self.request, self.way = request, way
            self.question, self.hostname = way.question, way.hostname
            self._remember(undefine=MigrateFlag.UNDEFINE_SOURCE in request.flags)
            if way.disks:
                self._mirrors = Mirrors(self.running.qemu, way.disks)
                self._remember(disks=[asdict(disk) for disk in way.disks])
            if way.question is not None:
                # On disk with `performing`, so before there can be a doubt. (I13)
                self._remember(question=asking.to_record(way.question, way.hostname))
        asks, disks = self.question is not None, self._mirrors.any
        self.post(on.PerformCalled(call, number, asks=asks, disks=disks))
        await answer

    async def start_postcopy(self) -> None:
        """Let the guest run at the destination from now on. Raises: OperationInvalid (55), ..."""
        call, answer = self.new_call()
        self.post(on.PostcopyCalled(call))
        await answer

    def drop(self, link: ClientLink) -> None:
        """Its controller gives it up before anything moved; nothing if `link` is another's."""
        number = self.number_of(link)
        if self.state.phase is source.Phase.BEGUN and self.state.link == number:
            call, answer = self.new_call()
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())
            self.post(on.ConfirmCalled(call, number, cancelled=True, proof=Proof.NONE))

    @property
    def foreign(self) -> bool:
        """Whether the destination is not Sterna: then no cookie can prove its decision."""
        return self.way is not None and self.way.foreign

    def user_paused(self, link: ClientLink) -> bool:
        """Somebody suspends the guest; call it before that is done (I19).

        Returns whether it is the controller.
        """
        by_controller = self.state.link == self.number_of(link)
        self.post(on.UserPaused(by_controller))
        self._remember(shall_run=self.state.shall_run)
        return by_controller

    async def refresh(self) -> JobStats:
        """Ask QEMU how far it is."""
        return self._learned(await self._look())

    def _remember(self, **what: Any) -> None:
        """For a later daemon, should this one die (I14); written with the next record."""
        self.job.data.update(what)
        self.guest.post_status()

    def learn_final(self, stats: JobStats | None) -> None:
        """What the destination measured: how long it took, and how long the guest stood."""
        if stats is not None and self.stats is not None:
            self.stats = replace(
                self.stats, downtime=stats.downtime, time_elapsed=stats.time_elapsed
            )

    def learn_epoch(self, epoch: int) -> None:
        """The guest's at the destination, which has committed."""
        self._epoch_there = epoch

    @property
    def sent(self) -> bool:
        """See `Doubtful`."""
        return self.running.sent

    # -- events --------------------------------------------------------------------------------

    def _heard(self, event: Event) -> None:
        if event.name == "STOP":
            self.stopped_ms = self.stopped_ms or event.at_us // 1000
            self.post(on.CpusStopped())
        elif event.name == "RESUME":
            self.stopped_ms = 0
            self.post(on.CpusStarted())
        elif event.name == "BLOCK_IO_ERROR" and event.data.get("action") == "stop":
            if MigrateFlag.ABORT_ON_ERROR in self.request.flags:
                self.post(on.GuestBroke("job 'migration out' failed due to I/O error"))
        elif event.name == "MIGRATION":
            status = _STATUSES.get(event.data.get("status", ""))
            if status is not None:
                self.job.progress()
                self.post(on.StatusChanged(status))
        elif (told := self._mirrors.heard(event)) is not None:
            self.post(told)

    def _stopped(self, ending: Ending) -> None:
        if ending is MIGRATED:
            why = "migrated"
        elif ending is DESTROYED or ending is SHUTDOWN:
            why = "domain is not running"
        else:
            words = last_words(self.running.log_path, self.running.log_from)
            why = f"qemu unexpectedly closed the monitor: {words}"
        self.post(on.QemuGone(why, int(Code.OPERATION_FAILED)))

    def _cancelled(self) -> None:
        """`Job.cancel`: an abort by someone who does not wait for its outcome."""
        call, answer = self.new_call()
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.post(on.AbortCalled(call))

    # -- effects -------------------------------------------------------------------------------

    def begin(self, state: source.Source, effects: tuple[do.SourceEffect, ...]) -> None:
        self.running.sent = state.phase in source_state.MAY_BE_THERE
        super().begin(state, effects)

    def entered(self, phase: Enum) -> None:
        self.job.enter(phase.value)
        launcher = self.guest.surroundings.launcher
        if phase is source.Phase.STARTING:
            launcher.keep(self.running, self.id)
        elif phase not in source_state.GOING:
            launcher.let_go(self.id)
        self.running.sent = phase in source_state.MAY_BE_THERE
        if phase is source.Phase.ENDED:
            self._unsubscribe()
            self._drop_socket()
            self._let_go()
        super().entered(phase)

    def run(self, effect: do.SourceEffect) -> None:
        match effect:
            case do.Qmp(op=op):
                self.do(self._qmp(op))
            case do.Watch(link=link):
                self.watch(link, lambda: self.post(on.ConnectionClosed(link)))
                self._held.append(self.link(link))
                self.guest.surroundings.autokill.hold(self.link(link))
            case do.Unwatch():
                self._let_go()
            case do.Show(view=view):
                self._show(view)
            case do.Kill():
                self._kill_qemu()
            case do.Undefine():
                if MigrateFlag.UNDEFINE_SOURCE in self.request.flags:
                    self.do(self._undefine())
            case do.EndJob(succeeded=succeeded):
                self._end_job(succeeded=succeeded)
            case _:
                super().run(effect)

    def _let_go(self) -> None:
        self.unwatch()
        for link in self._held:
            self.guest.surroundings.autokill.let_go(link)
        self._held.clear()

    def _show(self, view: do.View) -> None:
        log.warning("migration.shown mig=%s guest=%s view=%s", self.id, self.guest.name, view.value)
        if view is do.View.POSTCOPY:
            self.guest.set_paused(PausedReason.POSTCOPY, Suspended.POSTCOPY)
        elif view is do.View.POSTCOPY_FAILED:
            self.guest.set_paused(PausedReason.POSTCOPY_FAILED, Suspended.POSTCOPY_FAILED)
        self.guest.post_status()

    def _end_job(self, *, succeeded: bool) -> None:
        jobs = self.guest.jobs
        if succeeded and self.stats is not None:
            stats = self.stats.finished(JobType.COMPLETED)
            jobs.complete(self.job, stats)
            self.guest.emit(JobCompletedEvent(self.guest.ref, stats))
        else:
            jobs.end(self.job)
        self._conclude(self.guest.name, succeeded=succeeded, stats=self.stats)
        self.ended(self)

    def _kill_qemu(self) -> None:
        if self.guest.running is self.running:
            # Its images are inactive since `completed`: there is nothing to flush.
            self.guest.kill_now(MIGRATED)
            return
        if self.guest.running is None:
            self.guest.set_state(State.SHUTOFF, ShutoffReason.MIGRATED)
        self.post(on.QemuGone("migrated"))

    # -- work ----------------------------------------------------------------------------------

    async def _write(self, record: Record) -> None:
        self.job.data["record"] = record.value
        if record is Record.PERFORMING and self.question is not None:
            undefines = MigrateFlag.UNDEFINE_SOURCE in self.request.flags
            more = {"name": self.guest.name, "undefine": undefines}
            await self._owners.leaving(self.question, self.hostname, more)
        await super()._write(record)
        await self.guest.save_status()

    async def _qmp(self, op: QmpOp) -> None:
        self.post(await outcome(op, self._done(op)))

    async def _done(self, op: QmpOp) -> on.QmpDone:
        qemu = self.running.qemu
        match op:
            case QmpOp.CONFIGURE:
                await self._configure()
            case QmpOp.MIRROR:
                await self._mirror()
            case QmpOp.SETTLE:
                await self._mirrors.settle()
            case QmpOp.STOP:
                moves = self.state.phase is source.Phase.PAUSING
                reason = PausedReason.MIGRATION if moves else PausedReason.USER
                await self.guest.pause_cpus(reason)
            case QmpOp.MIGRATE:
                await self._migrate()
            case QmpOp.CONTINUE:
                state = {"state": "pre-switchover"}
                await qemu.execute("migrate-continue", state, timeout_s=MONITOR_S)
            case QmpOp.START_POSTCOPY:
                await postcopy.start(qemu)
            case QmpOp.RECOVER:
                return on.QmpDone(op, int(await self._recover()))
            case QmpOp.WITHDRAW:
                await postcopy.withdraw(qemu)
            case QmpOp.CANCEL if self.state.postcopy:
                # It may be in post-copy by now, and paused: there a plain cancel hangs.
                await postcopy.withdraw(qemu)
            case QmpOp.CANCEL:
                await qmp.cancel(qemu, waits=self._mirrors.any)
                if self.way is None or self.way.qemu_connects:
                    await qmp.close_channels(qemu)
            case QmpOp.PROGRESS | QmpOp.EXPLAIN:
                reply = await self._look()
                self._learned(reply)
                moved = sum(reply.get(what, {}).get("transferred", 0) for what in ("ram", "disk"))
                status = _STATUSES.get(reply.get("status", ""))
                return on.QmpDone(op, moved, reply.get("error-desc", ""), status)
            case QmpOp.CONT:
                await self.guest.resume_cpus(RunningReason.MIGRATION_CANCELED)
            case QmpOp.RESTORE:
                if self._mirrors.any:
                    await self._mirrors.drop()
                have = self._have or await qmp.supported_capabilities(qemu)
                await qmp.set_capabilities(qemu, have, ())
                await qmp.set_parameters(qemu, self._originals)
                if self.job.data.get("tls"):
                    await tls.remove(qemu)
                if limits := self.job.data.get("memlock"):
                    memlock.restore(self.running.pid, tuple(limits))
        return on.QmpDone(op)

    async def _configure(self) -> None:
        qemu, request = self.running.qemu, self.request
        way = self.way
        if way is None:
            raise InternalError("no migration URI")
        self._originals = await qmp.original_parameters(qemu)
        self._remember(parameters=self._originals)
        self._have = await qmp.supported_capabilities(qemu)
        wanted = {*request.capabilities(destination=False)}
        if self._mirrors.any:
            # Only then: a guest stands until we have said a word. (L2, W5)
            wanted.add("pause-before-switchover")
        if way.tunnel is None:
            wanted.add("return-path")
        await qmp.set_capabilities(qemu, self._have, wanted)
        self._tls = await self._credentials()
        await qmp.set_parameters(
            qemu,
            {
                **tls.OFF,
                **self._tls,
                "max-bandwidth": qmp.bandwidth_bps(way.speed_mib),
                **request.qemu_parameters(destination=False),
            },
        )
        if MigrateFlag.ZEROCOPY in request.flags:
            limits = memlock.allow(self.running.pid, self.running.definition)
            self._remember(memlock=limits)
        if way.tunnel is not None:
            self._socket = way.tunnel.open()
        elif not (way.qemu_connects or self._mirrors.any):
            await self._connect(way.target)

    async def _connect(self, target: uri.Endpoint) -> None:
        self._socket = await transports.connect(target, silence_s=self._silence_s)

    async def _mirror(self) -> None:
        way = self.way
        if way is None or way.disks_target is None:
            raise InternalError("no place for disks")
        # QEMU would wait for a silent host with its guest standing.
        (await transports.connect(way.disks_target, silence_s=self._silence_s)).close()
        speed_bps = way.speed_mib * MIB
        await self._mirrors.start(way.disks_target, self.request.flags, speed_bps, self._tls)

    async def _look(self) -> dict[str, Any]:
        """How far it is, disks with it."""
        if not self._mirrors.any:
            return await qmp.query(self.running.qemu)
        # Before memory moves QEMU still tells of the migration by which it came.
        begun = self.started_ms != 0
        reply = await qmp.query(self.running.qemu) if begun else {}
        return {**reply, "disk": await self._mirrors.progress()}

    async def _credentials(self) -> dict[str, str]:
        if self.way is None or MigrateFlag.TLS not in self.request.flags:
            return {}
        name = tls.hostname(self.request, self.way.target)
        self._remember(tls=True)
        used = await tls.add(self.running.qemu, self.way.tls_dir, server=False)
        return {**used, "tls-hostname": name}

    async def _migrate(self) -> None:
        qemu, way = self.running.qemu, self.way
        if way is None:
            raise InternalError("no migration URI")
        if self._socket is None and not way.qemu_connects:
            await self._connect(way.target)
        where = f"fd:{FD_NAME}" if self._socket is not None else way.target.for_qemu()
        self.started_ms = time.time_ns() // 1_000_000
        if self._socket is not None:
            fds = (self._socket.fileno(),)
            await qemu.execute("getfd", {"fdname": FD_NAME}, fds=fds, timeout_s=MONITOR_S)
        await qemu.execute("migrate", {"detach": True, "uri": where}, timeout_s=MONITOR_S)
        self._drop_socket()  # QEMU has its own copy

    async def _recover(self) -> bool:
        """Give a post-copy a new connection; False if the destination misses no page any more.

        Raises: OSError if nobody is there; QmpError, and the monitor's.
        """
        there = await self.new_place()
        if there is None:
            return False
        where = uri.Endpoint("tcp", there[0], there[1])
        with await transports.connect(where, silence_s=self._silence_s) as sock:
            await postcopy.resume(self.running.qemu, sock)
        return True

    def _drop_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _learned(self, reply: dict[str, Any]) -> JobStats:
        elapsed_ms = int((time.monotonic() - self.job.started) * 1000)
        stats = JobStats.of_migration(JobOperation.MIGRATION_OUT, reply, time_elapsed=elapsed_ms)
        self.stats = stats
        self.job.progress(stats)
        return stats
