"""A migration that its source drives (peer-to-peer): asked for with one call, then only watched."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sterna.client.errors import ConnectionFailed, MigrationFailed, MigrationInDoubt
from sterna.client.moving import PROGRESS_INTERVAL_S, Moving, OnProgress, result_from
from sterna.client.types import MigrationResult
from sterna.client.uri import parse_uri
from sterna.errors import InvalidArg, NoSupport, OperationInvalid, RpcError, SternaError
from sterna.rpc.enums import MigrateFlag
from sterna.rpc.msg_common import Dom
from sterna.rpc.msg_migration import DomainMigratePerform3ParamsArgs

if TYPE_CHECKING:
    from sterna.client.guest import Guest
    from sterna.client.migrate import MigrateOptions

AWAY = "migrated away"
"""A story's kind in the source's history."""


class Driven(Moving):
    """One migration that the source drives.

    Args:
        destination: its daemon, as the source sees it.

    Raises:
        InvalidArg: it is a path of this machine, and the source is another one.
    """

    def __init__(
        self,
        guest: Guest,
        destination: str,
        options: MigrateOptions,
        on_progress: OnProgress | None,
    ) -> None:
        super().__init__(guest, on_progress)
        self._destination = destination
        self._uri = as_the_source_sees_it(destination, guest.host.uri)
        self._options = options
        self._postcopy_wanted = options.postcopy
        self._flags = options.flags() | MigrateFlag.PEER2PEER

    async def run(self) -> MigrationResult:
        """Until it has ended.

        Raises:
            MigrationFailed: the guest is where it was.
            MigrationInDoubt: it is not known where it runs; the source asks on.
        """
        started = time.monotonic()
        dom = await self._guest.dom()
        watcher = asyncio.ensure_future(self._watch(dom))  # ended below
        try:
            await self._perform(dom)
        except SternaError as error:
            raise await self._why(error) from error
        finally:
            watcher.cancel()
        total_ms = round((time.monotonic() - started) * 1000)
        offline = MigrateFlag.OFFLINE in self._flags
        figures = {} if offline else await story_figures(self._guest, dom) or self._last
        said = self._warnings
        return result_from(figures, dom.name, self._destination, total_ms, said, offline=offline)

    async def begin(self) -> None:
        """Until memory moves; it goes on when this client leaves. Raises as `run` does."""
        dom = await self._guest.dom()
        work = asyncio.ensure_future(self._perform(dom))  # waited for, or left to the source
        while not work.done() and not self._last.get("data_processed"):
            await asyncio.wait([work], timeout=PROGRESS_INTERVAL_S / 4)
            await self._show_progress(dom)
        if work.done() and (error := work.exception()) is not None:
            if isinstance(error, SternaError):
                raise await self._why(error) from error
            raise error
        work.cancel()

    async def _perform(self, dom: Dom) -> None:
        await self._choose_offline(self._source, asked=self._options.offline)
        args = DomainMigratePerform3ParamsArgs(
            dom, self._uri, self._options.params(), b"", int(self._flags)
        )
        await self._source.call("DOMAIN_MIGRATE_PERFORM3_PARAMS", args)

    async def _why(self, error: SternaError) -> SternaError:
        if isinstance(error, ConnectionFailed):
            return error
        if await in_doubt(self._guest):
            return MigrationInDoubt(self._guest.name, self._destination, str(error))
        return await self._failed("", "source", error)


class Watched(Moving):
    """A migration that somebody else asked for."""

    async def run(self) -> MigrationResult:
        """Until it has ended.

        Raises:
            OperationInvalid: none is under way.
            MigrationFailed, MigrationInDoubt: as it ended.
        """
        dom = await self._guest.dom()
        started = time.monotonic()
        before = await newest_story(self._guest, dom)
        job = await self._guest.job()
        if job is None or job["operation"] != "migration-out":
            raise OperationInvalid(f"domain '{dom.name}' is not being migrated away")
        while await self._show_progress(dom):  # noqa: ASYNC110 - figures come by asking only
            await asyncio.sleep(PROGRESS_INTERVAL_S)
        total_ms = int(self._last.get("time_elapsed", 0))
        total_ms = total_ms or round((time.monotonic() - started) * 1000)
        told = await newest_story(self._guest, dom)
        if told is None or told == before:
            if await in_doubt(self._guest):
                raise MigrationInDoubt(dom.name, "its destination", "see `sterna reconcile`")
            raise await self._failed("", "source", OperationInvalid("it ended without a word"))
        if not told["succeeded"]:
            cause = told["why"] or "given up"
            raise MigrationFailed(phase="", side="source", cause=cause, guest_state="")
        return result_from(told["stats"], dom.name, told["host"], total_ms, self._warnings)


def as_the_source_sees_it(destination: str, source: str) -> str:
    """A destination as a URI that the source's daemon can use. Raises: as `Driven`."""
    uri = parse_uri(destination)
    if uri.transport == "unix" and parse_uri(source).transport != "unix":
        raise InvalidArg(
            f"'{destination}' is a path on this machine, and the source would look for it on its"
            " own: name the destination as the source reaches it, or drive the migration from here"
        )
    return str(uri)


async def newest_story(guest: Guest, dom: Dom) -> dict[str, Any] | None:
    """What the source has written down of the guest's last migration away; None if it is not
    Sterna, or there was none."""
    try:
        entries = await guest.host.history(str(UUID(bytes=dom.uuid)), limit=5)
    except (NoSupport, RpcError):
        return None  # libvirtd does not know our program
    return next((entry["detail"] for entry in entries if entry["kind"] == AWAY), None)


async def story_figures(guest: Guest, dom: Dom) -> dict[str, Any]:
    """The figures of the migration that has just succeeded; empty if nobody has kept them."""
    told = await newest_story(guest, dom)
    return told["stats"] if told is not None and told["succeeded"] else {}


async def in_doubt(guest: Guest) -> bool:
    """Whether the source does not know where it runs."""
    try:
        return bool((await guest.evidence())["in_doubt"])
    except SternaError:
        return False
