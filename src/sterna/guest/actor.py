"""One guest: what it is now, for everybody to read, and what may be done with it, one at a time.

Attributes are the last known snapshot and are read without waiting (L6). Coroutines that change
the guest take a job first (`jobs`), run in the daemon's scope (a client that hangs up cancels its
waiting, not the work), and live in the modules this one delegates to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from sterna.config import DomainDef
from sterna.errors import ErrorDomain, OperationInvalid
from sterna.guest import cpus, lifecycle, power, save, stop
from sterna.guest.definitions import format_live, format_stored, uuid_of
from sterna.guest.events import GuestEvent, GuestRef, LifecycleEvent
from sterna.guest.flags import SaveFlags, StartFlags, UndefineFlags
from sterna.guest.jobs import WAIT_S, Call, CallJob, Job, Jobs, Operation
from sterna.guest.ports import ClientLink
from sterna.guest.running import DESTROYED, Ending, Running
from sterna.guest.states import (
    Detail,
    Lifecycle,
    PausedReason,
    Reason,
    Resumed,
    RunningReason,
    ShutoffReason,
    State,
    Suspended,
)
from sterna.guest.surroundings import Surroundings
from sterna.store.ports import StoredDefinition

log = logging.getLogger("sterna.guest")
T = TypeVar("T")


class Guest:
    """One guest of a registry, which makes it and forgets it.

    Attributes:
        name, uuid: the same as in its definitions.
        definition: what it boots with next time; None if it is transient.
        running: its QEMU's life, from launch to clean-up; None while it is shut off.
        state, reason: as of the last event.
        autostart: start it with the daemon.
        has_managed_save: a managed save image exists, so the next start restores it.
        jobs: who changes it.
    """

    def __init__(
        self, surroundings: Surroundings, definition: DomainDef, forget: Callable[[Guest], None]
    ) -> None:
        self.surroundings = surroundings
        self.name: str = definition.name
        self.uuid: UUID = uuid_of(definition)
        self._made_of = definition
        self.definition: DomainDef | None = None
        self.running: Running | None = None
        self.state = State.SHUTOFF
        self.reason: Reason = ShutoffReason.UNKNOWN
        self.autostart = False
        self.has_managed_save = False
        self.jobs = Jobs(self._job_changed)
        self._forget = forget

    # -- the snapshot --------------------------------------------------------------------------

    @property
    def id(self) -> int:
        """The number of this life, -1 while it is not running."""
        return self.running.id if self.running is not None else -1

    @property
    def active(self) -> bool:
        """Whether it has a QEMU, be it only just starting."""
        return self.running is not None

    @property
    def persistent(self) -> bool:
        return self.definition is not None

    @property
    def live(self) -> DomainDef | None:
        """The live definition; None while it is not running."""
        return self.running.definition if self.running is not None else None

    @property
    def current(self) -> DomainDef:
        """What describes it now: the live definition if it runs, else the stored one, else (about
        to start for the first time, or just gone) the one it was made of."""
        return self.live or self.definition or self._made_of

    @property
    def job(self) -> Job | None:
        """The long operation under way."""
        return self.jobs.job

    @property
    def ref(self) -> GuestRef:
        return GuestRef(self.name, self.uuid, self.id)

    def live_or_refuse(self) -> Running:
        """Its QEMU's life.

        Raises: OperationInvalid (55) "domain is not running".
        """
        if self.running is None or self.running.ending is not None:
            raise OperationInvalid("domain is not running", domain=ErrorDomain.DOMAIN)
        return self.running

    def stored_or_refuse(self) -> DomainDef:
        """Its persistent definition.

        Raises: OperationInvalid (55) if it is transient.
        """
        if self.definition is None:
            raise OperationInvalid("transient domains do not have any persistent config")
        return self.definition

    # -- state and events ----------------------------------------------------------------------

    def emit(self, event: GuestEvent) -> None:
        self.surroundings.bus.emit(event)

    def emit_lifecycle(self, event: Lifecycle, detail: Detail) -> None:
        self.emit(LifecycleEvent(self.ref, event, detail))

    def set_state(self, state: State, reason: Reason) -> None:
        """The one place where the state changes; the status record follows."""
        log.info("guest.state guest=%s state=%s reason=%s", self.name, state.name, reason.name)
        self.state, self.reason = state, reason
        self.post_status()

    def set_running(self, reason: RunningReason, detail: Resumed) -> None:
        self.set_state(State.RUNNING, reason)
        self.emit_lifecycle(Lifecycle.RESUMED, detail)

    def set_paused(self, reason: PausedReason, detail: Suspended) -> None:
        self.set_state(State.PAUSED, reason)
        self.emit_lifecycle(Lifecycle.SUSPENDED, detail)

    # -- the status record ---------------------------------------------------------------------

    def record(self) -> dict[str, Any] | None:
        """What a later daemon needs to find this life again; None if there is no process."""
        running = self.running
        if running is None or running.process is None or running.let_gone:
            return None  # one that was let go is the next daemon's, as it was then
        ident = running.process.ident
        job = self.jobs.job
        return {
            "v": 1,
            "name": self.name,
            "id": running.id,
            "pid": ident.pid,
            "start_time": ident.start_time,
            "boot": ident.boot,
            "started_at": running.started_at,
            "run_dir": str(running.run_dir),
            "log_path": str(running.log_path),
            "incoming": running.incoming,
            "launched": running.launched,
            "reboot_on_shutdown": running.reboot_on_shutdown,
            "state": int(self.state),
            "reason": int(self.reason),
            "job": None
            if job is None
            else {
                "operation": job.operation.value,
                "api": job.api,
                "phase": job.phase,
                "started_at": job.started_at,
                "data": job.data,
            },
            "xml": running.xml(lambda: format_live(running.definition, running.id)),
        }

    def post_status(self) -> None:
        """Have the status record written soon; reality can tell it again if we die first."""
        record = self.record()
        if record is not None:
            self.surroundings.store.post_live(self.uuid, record)

    async def save_status(self) -> None:
        """Write the status record and wait until it is on disk (I13). Raises: StoreFailed."""
        record = self.record()
        if record is not None:
            await self.surroundings.store.put_live(self.uuid, record)

    async def save_definition(self) -> None:
        """Write the persistent definition as it is now. Raises: StoreFailed."""
        if self.definition is not None:
            xml = format_stored(self.definition)
            row = StoredDefinition(self.uuid, self.name, xml, self.autostart)
            await self.surroundings.store.put_definition(row)

    def _job_changed(self) -> None:
        self.post_status()

    def forget(self) -> None:
        """Take it off the registry: it was transient and is gone, or was undefined."""
        self._forget(self)

    def forget_if_nothing(self) -> None:
        """The same if there is neither a definition nor a QEMU of it.

        With a job it is about to become active: forgotten then, it would run and be in no list.
        """
        if not self.persistent and not self.active and self.job is None:
            self.forget()

    # -- doing -------------------------------------------------------------------------------

    async def do(
        self,
        kind: Call,
        api: str,
        work: Callable[[], Coroutine[Any, Any, T]],
        *,
        wait_s: float = WAIT_S,
    ) -> T:
        """Wait for the turn, then do it in the daemon's scope, whatever becomes of the caller.

        Raises: OperationTimeout (68), and what the work raises.
        """
        call = await self.jobs.begin(kind, api, wait_s=wait_s)
        return await self.surroundings.work.do(self._within(call, work))

    async def operate(
        self, operation: Operation, api: str, work: Callable[[Job], Coroutine[Any, Any, T]]
    ) -> T:
        """The same for a long operation; it ends with the work."""
        job = await self.jobs.begin_operation(operation, api)

        async def carried_out() -> T:
            try:
                with self.jobs.during(job):
                    return await work(job)
            finally:
                self.forget_if_nothing()  # undefined meanwhile

        return await self.surroundings.work.do(carried_out())

    async def _within(self, call: CallJob, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        with self.jobs.during(call):
            return await work()

    # -- what a client asks for ------------------------------------------------------------------
    # Each waits for its turn (code 68 after 30 s), and says "domain is not running" (55) where it
    # needs a running guest. The modules named hold the contracts.

    async def start(
        self, flags: StartFlags = StartFlags.NONE, owner: ClientLink | None = None
    ) -> None:
        """See `lifecycle.start`."""
        await lifecycle.start(self, flags, owner)

    async def destroy(self, *, graceful: bool = False) -> None:
        """See `power.destroy`."""
        await power.destroy(self, graceful=graceful)

    async def shutdown(self, mode: power.ShutdownMode = power.ShutdownMode.DEFAULT) -> None:
        """See `power.shutdown`."""
        await power.shutdown(self, mode)

    async def reboot(self, mode: power.ShutdownMode = power.ShutdownMode.DEFAULT) -> None:
        """See `power.reboot`."""
        await power.reboot(self, mode)

    async def reset(self) -> None:
        """See `power.reset`."""
        await power.reset(self)

    async def suspend(self) -> None:
        """See `power.suspend`."""
        await power.suspend(self)

    async def resume(self) -> None:
        """See `power.resume`."""
        await power.resume(self)

    async def undefine(self, flags: UndefineFlags = UndefineFlags.NONE) -> None:
        """See `lifecycle.undefine`."""
        await lifecycle.undefine(self, flags)

    async def set_autostart(self, autostart: bool) -> None:
        """See `lifecycle.set_autostart`."""
        await lifecycle.set_autostart(self, autostart)

    async def save(
        self, path: Path, flags: SaveFlags = SaveFlags.NONE, *, xml: str | None = None
    ) -> None:
        """See `save.save`."""
        await save.save(self, path, flags, xml=xml)

    async def managed_save(self, flags: SaveFlags = SaveFlags.NONE) -> None:
        """See `save.managed_save`."""
        await save.managed_save(self, flags)

    # -- CPUs and the end ------------------------------------------------------------------------

    async def resume_cpus(self, reason: RunningReason, *, timeout_s: float = 10.0) -> None:
        """Let the CPUs run, without a job: for whoever has one. See `cpus.resume_cpus`."""
        await cpus.resume_cpus(self, reason, timeout_s=timeout_s)

    async def pause_cpus(self, reason: PausedReason, *, timeout_s: float = 10.0) -> None:
        """Stop the CPUs, without a job: for whoever has one. See `cpus.pause_cpus`."""
        await cpus.pause_cpus(self, reason, timeout_s=timeout_s)

    def kill_now(self, ending: Ending = DESTROYED) -> None:
        """Kill its QEMU by force, synchronously. See `stop.kill_now`."""
        stop.kill_now(self, ending)

    async def stop_process(
        self, ending: Ending, *, grace_s: float | None = None, force: bool = True
    ) -> None:
        """End its QEMU and wait for the clean-up; nothing if there is none. See `stop.stop`.

        Takes no job: for whoever has one, and for those who need none.
        """
        if self.running is not None:
            grace = self.surroundings.settings.stop_grace_s if grace_s is None else grace_s
            await stop.stop(self, self.running, ending, grace_s=grace, force=force)
