"""Driving a migration from the outside: the five phases, called on both daemons in turn.

    Begin(source) → Prepare(destination) → Perform(source) → Finish(destination) → Confirm(source)

The order of calls, which parameters and flags go into each, and which call follows which failure
are those of libvirt's own client (observed with virsh 9.0), so either daemon may be a libvirtd.
One thing differs, on purpose: when the answer to Finish is lost, that client tells the source
`cancelled`, and the source starts a second copy of a guest that may already run. Here nothing is
said to the source then (L5): `MigrationInDoubt` says so, and the source keeps its copy paused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sterna.client.errors import ConnectionFailed, MigrationFailed, MigrationInDoubt
from sterna.client.types import MigrationResult, Progress
from sterna.errors import ArgumentUnsupported, OperationAborted, SternaError
from sterna.guest.states import PausedReason, State
from sterna.rpc.enums import Feature, MigrateFlag
from sterna.rpc.msg_common import Dom, TypedParam
from sterna.rpc.msg_domain import DomainGetJobStatsArgs, DomainGetStateArgs
from sterna.rpc.msg_migration import (
    DomainMigrateBegin3ParamsArgs,
    DomainMigrateConfirm3ParamsArgs,
    DomainMigrateFinish3ParamsArgs,
    DomainMigratePerform3ParamsArgs,
    DomainMigratePrepare3ParamsArgs,
    DomainMigrateStartPostCopyArgs,
)
from sterna.rpc.typed_params import ParamType

if TYPE_CHECKING:
    from sterna.client.api import Host
    from sterna.client.guest import Guest

OnProgress = Callable[[Progress], None]
PROGRESS_INTERVAL_S = 0.2
SECOND_PASS = 2

# What only the source is told (observed): the destination has no use for them.
SOURCE_ONLY = MigrateFlag.CHANGE_PROTECTION | MigrateFlag.ABORT_ON_ERROR | MigrateFlag.AUTO_CONVERGE


@dataclass(frozen=True, slots=True)
class MigrateOptions:
    """How to move a guest.

    Attributes:
        live: keep it running while its memory is sent; else it is paused first.
        persistent: keep its definition at the destination.
        undefine_source: forget its definition at the source.
        paused: leave it paused at the destination.
        name: its name there, if another.
        xml: the domain XML to use there.
        bandwidth_mib_s: bound of the transfer, which the source keeps for the guest's next moves;
            0 for what it has kept, at first none.
        migrate_uri: where the memory goes (`tcp://host[:port]`); else the destination says.
        unsafe: skip the checks for disks that the other side may not see.
        auto_converge: slow the guest's CPUs down if it rewrites memory faster than it is sent.
        postcopy: once its memory was sent through, let it run at the destination; what it has
            rewritten since follows.
    """

    live: bool = True
    persistent: bool = False
    undefine_source: bool = False
    paused: bool = False
    name: str = ""
    xml: str = ""
    bandwidth_mib_s: int = 0
    migrate_uri: str = ""
    unsafe: bool = False
    auto_converge: bool = False
    postcopy: bool = False

    def flags(self) -> MigrateFlag:
        """The protocol's flags for these options."""
        chosen = MigrateFlag(0)
        for wanted, flag in (
            (self.live, MigrateFlag.LIVE),
            (self.persistent, MigrateFlag.PERSIST_DEST),
            (self.undefine_source, MigrateFlag.UNDEFINE_SOURCE),
            (self.paused, MigrateFlag.PAUSED),
            (self.unsafe, MigrateFlag.UNSAFE),
            (self.auto_converge, MigrateFlag.AUTO_CONVERGE),
            (self.postcopy, MigrateFlag.POSTCOPY),
        ):
            if wanted:
                chosen |= flag
        return chosen

    def params(self) -> list[TypedParam]:
        """The protocol's parameters for these options."""
        params = [
            TypedParam(name, int(ParamType.STRING), value)
            for name, value in (
                ("migrate_uri", self.migrate_uri),
                ("destination_name", self.name),
                ("destination_xml", self.xml),
            )
            if value
        ]
        if self.bandwidth_mib_s:
            params.append(TypedParam("bandwidth", int(ParamType.ULLONG), self.bandwidth_mib_s))
        return params


async def migrate(
    guest: Guest, destination: Host, options: MigrateOptions, on_progress: OnProgress | None = None
) -> MigrationResult:
    """Moves a guest, and says how it went.

    Cancelling the task that runs this aborts the migration first, waits for both sides to have
    cleaned up, and then ends with `MigrationFailed` or, if it was too late, with the result.

    Args:
        on_progress: called with the newest figures some five times a second.

    Raises:
        MigrationFailed: it did not happen; the guest is where it was.
        MigrationInDoubt: the destination's answer was lost at the one moment where it matters.
    """
    migration = Migration(guest, destination, options, on_progress)
    work = asyncio.get_running_loop().create_task(migration.run())
    while True:
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if work.done() or me is None:
                raise
            # Where the guest is must be known before we leave: so abort, and hear the answer.
            me.uncancel()
            migration.abort()


class Migration:
    """One migration under way."""

    def __init__(
        self,
        guest: Guest,
        destination: Host,
        options: MigrateOptions,
        on_progress: OnProgress | None,
    ) -> None:
        self._guest = guest
        self._source = guest.host
        self._destination = destination
        self._options = options
        self._on_progress = on_progress
        self._flags = options.flags()
        self._aborted = False
        self._postcopy_wanted = options.postcopy
        self._abort_wanted = asyncio.Event()
        self._last: dict[str, Any] = {}
        self._warnings: list[str] = []

    def abort(self) -> None:
        """Asks for the migration's end; `run` then fails, or succeeds if it was too late."""
        self._aborted = True
        self._abort_wanted.set()

    async def run(self) -> MigrationResult:
        """The five phases."""
        started = time.monotonic()
        dom = await self._guest.dom()
        await self._check_features()
        begin = await self._begin(dom)
        params = self._with(self._options.params(), "destination_xml", begin.xml)
        if self._aborted:
            await self._confirm_cancelled(dom, params)
            raise await self._failed("begin", "source", OperationAborted("before it began"))
        prepared = await self._prepare(dom, begin.cookie_out, params)
        if prepared.uri_out:
            params = self._with(params, "migrate_uri", prepared.uri_out)
        if self._aborted:
            await self._finish_cancelled(dom, params)
            await self._confirm_cancelled(dom, params)
            raise await self._failed("prepare", "source", OperationAborted("before it was sent"))
        cookie = await self._perform_to_the_end(dom, prepared.cookie_out, params)
        finished = await self._finish(dom, cookie, params)
        await self._confirm(dom, finished.cookie_out, params)
        return await self._result(finished.dom, round((time.monotonic() - started) * 1000))

    async def _check_features(self) -> None:
        for host in (self._source, self._destination):
            if not await host.supports(Feature.MIGRATION_PARAMS):
                raise ArgumentUnsupported(f"{host.uri} does not speak migration version 3")
        if await self._source.supports(Feature.MIGRATE_CHANGE_PROTECTION):
            self._flags |= MigrateFlag.CHANGE_PROTECTION

    async def _begin(self, dom: Dom) -> Any:
        args = DomainMigrateBegin3ParamsArgs(dom, self._options.params(), int(self._flags))
        try:
            reply = await self._source.call("DOMAIN_MIGRATE_BEGIN3_PARAMS", args)
        except SternaError as error:
            raise await self._failed("begin", "source", error) from error
        state = await self._source.call("DOMAIN_GET_STATE", DomainGetStateArgs(dom, 0))
        if state.state == State.PAUSED and state.reason != PausedReason.MIGRATION:
            self._flags |= MigrateFlag.PAUSED
        return reply

    async def _prepare(self, dom: Dom, cookie: bytes, params: list[TypedParam]) -> Any:
        args = DomainMigratePrepare3ParamsArgs(params, cookie, self._destination_flags)
        try:
            return await self._destination.call("DOMAIN_MIGRATE_PREPARE3_PARAMS", args)
        except SternaError as error:
            await self._confirm_cancelled(dom, params)
            raise await self._failed("prepare", "destination", error) from error

    async def _perform_to_the_end(self, dom: Dom, cookie: bytes, params: list[TypedParam]) -> bytes:
        """Perform, with its figures shown meanwhile, and Finish(cancelled) if it fails."""
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(self._watch(dom))
            outcome = await self._perform(dom, cookie, params)
            watcher.cancel()
        if isinstance(outcome, bytes):
            return outcome
        await self._finish_cancelled(dom, params)
        raise await self._failed("perform", "source", outcome) from outcome

    async def _abort(self) -> None:
        self._abort_wanted.clear()
        try:
            await self._guest.abort_job()
        except SternaError as error:
            # Too late: the guest is being handed over, and the migration goes on to its end.
            self._warnings.append(f"not aborted: {error}")

    async def _perform(
        self, dom: Dom, cookie: bytes, params: list[TypedParam]
    ) -> bytes | SternaError:
        args = DomainMigratePerform3ParamsArgs(dom, None, params, cookie, int(self._flags))
        try:
            reply = await self._source.call("DOMAIN_MIGRATE_PERFORM3_PARAMS", args)
        except SternaError as error:
            return error
        return bytes(reply.cookie_out)

    async def _watch(self, dom: Dom) -> None:
        """Asks the source for figures, and passes an abort on, until it is cancelled."""
        while True:
            try:
                async with asyncio.timeout(PROGRESS_INTERVAL_S):
                    await self._abort_wanted.wait()
            except TimeoutError:
                await self._show_progress(dom)
            else:
                await self._abort()

    async def _show_progress(self, dom: Dom) -> None:
        try:
            reply = await self._source.call("DOMAIN_GET_JOB_STATS", DomainGetJobStatsArgs(dom, 0))
        except SternaError:
            return  # Perform itself reports what is wrong.
        if reply.type:
            self._last = {param.field: param.value for param in reply.params}
            progress = progress_from(self._last)
            if self._on_progress is not None:
                self._on_progress(progress)
            if self._postcopy_wanted and progress.iteration >= SECOND_PASS:
                await self._start_postcopy(dom)

    async def _start_postcopy(self, dom: Dom) -> None:
        self._postcopy_wanted = False
        args = DomainMigrateStartPostCopyArgs(dom, 0)
        try:
            await self._source.call("DOMAIN_MIGRATE_START_POST_COPY", args)
        except SternaError as error:
            self._warnings.append(f"post-copy was not started: {error}")

    async def _finish(self, dom: Dom, cookie: bytes, params: list[TypedParam]) -> Any:
        args = DomainMigrateFinish3ParamsArgs(
            self._finish_params(dom, params), cookie, self._destination_flags, 0
        )
        try:
            return await self._destination.call("DOMAIN_MIGRATE_FINISH3_PARAMS", args)
        except ConnectionFailed as error:
            raise MigrationInDoubt(dom.name, self._destination.uri, str(error)) from error
        except SternaError as error:
            # The destination itself says that the guest does not run there: that is proof (L5).
            await self._confirm_cancelled(dom, params)
            raise await self._failed("finish", "destination", error) from error

    async def _finish_cancelled(self, dom: Dom, params: list[TypedParam]) -> None:
        args = DomainMigrateFinish3ParamsArgs(
            self._finish_params(dom, params), b"", self._destination_flags, 1
        )
        try:
            await self._destination.call("DOMAIN_MIGRATE_FINISH3_PARAMS", args)
        except SternaError:
            return  # It answers with an error by protocol; a lost connection kills the guest too.

    async def _confirm(self, dom: Dom, cookie: bytes, params: list[TypedParam]) -> None:
        args = DomainMigrateConfirm3ParamsArgs(dom, params, cookie, int(self._flags), 0)
        try:
            await self._source.call("DOMAIN_MIGRATE_CONFIRM3_PARAMS", args)
        except SternaError as error:
            self._warnings.append(
                f"{self._source.uri} was not told that the guest has moved ({error}); it may keep "
                "a paused copy: never resume that one"
            )

    async def _confirm_cancelled(self, dom: Dom, params: list[TypedParam]) -> None:
        args = DomainMigrateConfirm3ParamsArgs(dom, params, b"", int(self._flags), 1)
        try:
            await self._source.call("DOMAIN_MIGRATE_CONFIRM3_PARAMS", args)
        except SternaError as error:
            self._warnings.append(f"the source was not told of the failure: {error}")

    async def _failed(self, phase: str, side: str, error: SternaError) -> MigrationFailed:
        try:
            state = await self._guest.state_in_words()
        except SternaError:
            state = ""
        return MigrationFailed(
            phase=phase,
            side=side,
            cause=str(error),
            guest_state=state,
            aborted=self._aborted or isinstance(error, OperationAborted),
        )

    async def _result(self, dom: Dom, total_ms: int) -> MigrationResult:
        figures = self._last
        try:
            reply = await self._destination.call(
                "DOMAIN_GET_JOB_STATS", DomainGetJobStatsArgs(dom, 1)
            )
            figures = {param.field: param.value for param in reply.params} or figures
        except SternaError as error:
            self._warnings.append(f"no statistics from the destination: {error}")
        downtime = figures.get("downtime")
        return MigrationResult(
            guest=dom.name,
            destination=self._destination.uri,
            total_ms=total_ms,
            downtime_ms=None if downtime is None else int(downtime),
            transferred=int(figures.get("data_processed", 0)),
            memory_total=int(figures.get("memory_total", 0)),
            iterations=int(figures.get("memory_iteration", 0)),
            warnings=tuple(self._warnings),
        )

    @property
    def _destination_flags(self) -> int:
        return int(self._flags & ~SOURCE_ONLY)

    def _finish_params(self, dom: Dom, params: list[TypedParam]) -> list[TypedParam]:
        return self._with(params, "destination_name", self._options.name or dom.name)

    @staticmethod
    def _with(params: list[TypedParam], name: str, value: str) -> list[TypedParam]:
        kept = [param for param in params if param.field != name]
        return [*kept, TypedParam(name, int(ParamType.STRING), value)]


def progress_from(figures: dict[str, Any]) -> Progress:
    """A job's figures, by the protocol's names, as progress with a forecast.

    The forecast is plain arithmetic: what remains, divided by what the transfer gains on the
    guest's rewriting of memory.
    """
    remaining = int(figures.get("data_remaining", 0))
    rate = int(figures.get("memory_bps", 0))
    dirty = int(figures.get("memory_dirty_rate", 0)) * int(figures.get("memory_page_size", 4096))
    gain = rate - dirty
    return Progress(
        elapsed_ms=int(figures.get("time_elapsed", 0)),
        total=int(figures.get("data_total", 0)),
        processed=int(figures.get("data_processed", 0)),
        remaining=remaining,
        rate=rate,
        dirty_rate=dirty,
        iteration=int(figures.get("memory_iteration", 0)),
        downtime_ms=int(figures.get("downtime", 0)),
        throttle=int(figures.get("auto_converge_throttle", 0)),
        eta_ms=round(remaining * 1000 / gain) if gain > 0 else None,
    )
