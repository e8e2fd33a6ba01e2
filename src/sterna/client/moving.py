"""What every way of moving a guest shows meanwhile, and how it can be stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sterna.client.errors import MigrationFailed
from sterna.client.types import MigrationResult, Progress
from sterna.errors import ArgumentUnsupported, OperationAborted, SternaError
from sterna.guest.states import State
from sterna.rpc.enums import Feature, MigrateFlag
from sterna.rpc.msg_common import Dom
from sterna.rpc.msg_domain import DomainGetJobStatsArgs
from sterna.rpc.msg_migration import DomainMigrateStartPostCopyArgs

if TYPE_CHECKING:
    from sterna.client.api import Host
    from sterna.client.guest import Guest

OnProgress = Callable[[Progress], None]
PROGRESS_INTERVAL_S: Final = 0.2
SECOND_PASS: Final = 2


class Moving:
    """One migration under way, as its source tells of it."""

    def __init__(self, guest: Guest, on_progress: OnProgress | None) -> None:
        self._guest = guest
        self._source = guest.host
        self._on_progress = on_progress
        self._aborted = False
        self._abort_wanted = asyncio.Event()
        self._last: dict[str, Any] = {}
        self._warnings: list[str] = []
        self._flags = MigrateFlag(0)
        self._postcopy_wanted = False

    def abort(self) -> None:
        """Asks for the migration's end; it then fails, or succeeds if it was too late."""
        self._aborted = True
        self._abort_wanted.set()

    async def _choose_offline(self, *hosts: Host, asked: bool) -> None:
        """A guest that does not run has nothing but its definition to be moved, and to be kept.

        Raises: ArgumentUnsupported: one of the hosts cannot do that.
        """
        if not asked and await self._guest.state() != State.SHUTOFF:
            return
        self._flags |= MigrateFlag.OFFLINE | MigrateFlag.PERSIST_DEST
        self._flags &= ~MigrateFlag.LIVE
        for host in hosts:
            if not await host.supports(Feature.MIGRATION_OFFLINE):
                raise ArgumentUnsupported(f"{host.uri} does not move guests that do not run")

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

    async def _abort(self) -> None:
        self._abort_wanted.clear()
        try:
            await self._guest.abort_job()
        except SternaError as error:
            # Too late: the guest is being handed over, and the migration goes on to its end.
            self._warnings.append(f"not aborted: {error}")

    async def _show_progress(self, dom: Dom) -> bool:
        """Whether it has a job."""
        try:
            reply = await self._source.call("DOMAIN_GET_JOB_STATS", DomainGetJobStatsArgs(dom, 0))
        except SternaError:
            return False  # whoever drives it is told what is wrong
        if reply.type:
            self._last = {param.field: param.value for param in reply.params}
            progress = progress_from(self._last)
            if self._on_progress is not None:
                self._on_progress(progress)
            if self._postcopy_wanted and progress.iteration >= SECOND_PASS:
                await self._start_postcopy(dom)
        return bool(reply.type)

    async def _start_postcopy(self, dom: Dom) -> None:
        self._postcopy_wanted = False
        args = DomainMigrateStartPostCopyArgs(dom, 0)
        try:
            await self._source.call("DOMAIN_MIGRATE_START_POST_COPY", args)
        except SternaError as error:
            self._warnings.append(f"post-copy was not started: {error}")

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


def result_from(
    figures: dict[str, Any],
    guest: str,
    destination: str,
    total_ms: int,
    warnings: Sequence[str],
    *,
    offline: bool = False,
) -> MigrationResult:
    """A result, of a finished job's figures by the protocol's names; none of one `offline`."""
    downtime = figures.get("downtime")
    return MigrationResult(
        guest=guest,
        destination=destination,
        total_ms=total_ms,
        downtime_ms=None if downtime is None else int(downtime),
        transferred=int(figures.get("data_processed", 0)),
        memory_total=int(figures.get("memory_total", 0)),
        iterations=int(figures.get("memory_iteration", 0)),
        warnings=tuple(warnings),
        offline=offline,
    )
