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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sterna.client.driven import Driven
from sterna.client.errors import ConnectionFailed, MigrationInDoubt
from sterna.client.moving import Moving, OnProgress, result_from
from sterna.client.types import MigrationResult
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
)
from sterna.rpc.typed_params import ParamType

if TYPE_CHECKING:
    from sterna.client.api import Host
    from sterna.client.guest import Guest

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
        tunnelled: send its memory through the connection of the two daemons, which must be the
            source's own (peer-to-peer).
        parallel: send over several connections.
        connections: how many of them; 0 for QEMU's own number.
        compression: `xbzrle` or `mt`; `zlib` or `zstd` for parallel ones.
        compression_level: as that method counts; 0 for its own.
        zero_copy: have the kernel send from the guest's memory itself; for parallel ones.
        tls: have QEMU encrypt it.
        tls_name: the name in the destination's certificate, if not its host's.
        offline: move the definition of a guest that does not run; also without this word.
        abort_on_error: end it if the guest meets an I/O error meanwhile.
        listen_address: where the destination listens for the memory.
        persistent_xml: the domain XML to keep there.
        copy_storage: copy its disks, too: "all" of each, or "inc", what its top image holds; empty
            for storage that both hosts see.
        copy_disks: targets of the disks that are copied; empty for all that are only here.
        synchronous_writes: a write of the guest ends when both sides have it, so that a copy
            catches up whatever the guest does.
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
    tunnelled: bool = False
    parallel: bool = False
    connections: int = 0
    compression: str = ""
    compression_level: int = 0
    zero_copy: bool = False
    tls: bool = False
    tls_name: str = ""
    offline: bool = False
    abort_on_error: bool = False
    listen_address: str = ""
    persistent_xml: str = ""
    copy_storage: str = ""
    copy_disks: tuple[str, ...] = ()
    synchronous_writes: bool = False
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
            (self.tunnelled, MigrateFlag.TUNNELLED),
            (self.parallel, MigrateFlag.PARALLEL),
            (bool(self.compression), MigrateFlag.COMPRESSED),
            (self.zero_copy, MigrateFlag.ZEROCOPY),
            (self.tls, MigrateFlag.TLS),
            (self.abort_on_error, MigrateFlag.ABORT_ON_ERROR),
            (self.copy_storage == "all", MigrateFlag.NON_SHARED_DISK),
            (self.copy_storage == "inc", MigrateFlag.NON_SHARED_INC),
            (self.synchronous_writes, MigrateFlag.NON_SHARED_SYNCHRONOUS_WRITES),
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
                ("persistent_xml", self.persistent_xml),
                ("listen_address", self.listen_address),
                ("compression", self.compression),
                ("tls.destination", self.tls_name),
                *(("migrate_disks", target) for target in self.copy_disks),
            )
            if value
        ]
        params += [
            TypedParam(name, int(ParamType.INT), number)
            for name, number in (
                ("parallel.connections", self.connections),
                (f"compression.{self.compression}.level", self.compression_level),
            )
            if number
        ]
        if self.bandwidth_mib_s:
            params.append(TypedParam("bandwidth", int(ParamType.ULLONG), self.bandwidth_mib_s))
        return params


async def migrate(
    guest: Guest,
    destination: Host | str,
    options: MigrateOptions,
    on_progress: OnProgress | None = None,
) -> MigrationResult:
    """Moves a guest, and says how it went.

    Cancelling the task that runs this aborts the migration first, waits for both sides to have
    cleaned up, and then ends with `MigrationFailed` or, if it was too late, with the result.

    Args:
        destination: a host that is connected to, and then this client drives the five phases; or
            a connection URI as the source sees it, and then the source drives them (peer-to-peer).
        on_progress: called with the newest figures some five times a second.

    Raises:
        MigrationFailed: it did not happen; the guest is where it was.
        MigrationInDoubt: the destination's answer was lost at the one moment where it matters.
    """
    migration: Migration | Driven
    if isinstance(destination, str):
        migration = Driven(guest, destination, options, on_progress)
    else:
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


class Migration(Moving):
    """One migration that this client drives."""

    def __init__(
        self,
        guest: Guest,
        destination: Host,
        options: MigrateOptions,
        on_progress: OnProgress | None,
    ) -> None:
        super().__init__(guest, on_progress)
        self._destination = destination
        self._options = options
        self._flags = options.flags()
        self._postcopy_wanted = options.postcopy

    async def run(self) -> MigrationResult:
        """The five phases."""
        started = time.monotonic()
        dom = await self._guest.dom()
        hosts = (self._source, self._destination)
        await self._choose_offline(*hosts, asked=self._options.offline)
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
        cookie = b""
        if MigrateFlag.OFFLINE not in self._flags:
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

    async def _perform(
        self, dom: Dom, cookie: bytes, params: list[TypedParam]
    ) -> bytes | SternaError:
        args = DomainMigratePerform3ParamsArgs(dom, None, params, cookie, int(self._flags))
        try:
            reply = await self._source.call("DOMAIN_MIGRATE_PERFORM3_PARAMS", args)
        except SternaError as error:
            return error
        return bytes(reply.cookie_out)

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

    async def _result(self, dom: Dom, total_ms: int) -> MigrationResult:
        figures = self._last
        there = self._destination.uri
        if MigrateFlag.OFFLINE in self._flags:
            return result_from({}, dom.name, there, total_ms, self._warnings, offline=True)
        try:
            reply = await self._destination.call(
                "DOMAIN_GET_JOB_STATS", DomainGetJobStatsArgs(dom, 1)
            )
            figures = {param.field: param.value for param in reply.params} or figures
        except SternaError as error:
            self._warnings.append(f"no statistics from the destination: {error}")
        return result_from(figures, dom.name, there, total_ms, self._warnings)

    @property
    def _destination_flags(self) -> int:
        return int(self._flags & ~SOURCE_ONLY)

    def _finish_params(self, dom: Dom, params: list[TypedParam]) -> list[TypedParam]:
        return self._with(params, "destination_name", self._options.name or dom.name)

    @staticmethod
    def _with(params: list[TypedParam], name: str, value: str) -> list[TypedParam]:
        kept = [param for param in params if param.field != name]
        return [*kept, TypedParam(name, int(ParamType.STRING), value)]
