"""Peer-to-peer: the source drives the five phases itself, over its own session with the other side.

Whoever asked for it may leave. The controller's connection, on which the source's job and the
destination's autokill hang, is the one between the two daemons. What this controller does after a
failure is what every controller does (`sterna.client.migrate`), but for one thing: when the answer
to Finish is lost it says nothing and waits, for the source's core asks the destination by itself
(L5).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

from sterna.errors import (
    InvalidArg,
    MigrateFinishOk,
    OperationFailed,
    OperationInvalid,
    SternaError,
    error_for,
)
from sterna.guest.actor import Guest
from sterna.guest.registry import Registry
from sterna.guest.states import PausedReason, State
from sterna.migration import checks
from sterna.migration.answers import Prepared
from sterna.migration.outgoing import Outgoing
from sterna.migration.params import Request
from sterna.migration.peers import Peers
from sterna.migration.remote import Remote, RemoteLost, Wanted
from sterna.migration.sending import Sending
from sterna.migration.tunnel import Tunnel
from sterna.rpc.enums import Feature, MigrateFlag
from sterna.rpc.msg_common import TypedParam
from sterna.rpc.typed_params import ParamType

log = logging.getLogger("sterna.migration.p2p")

SETTLE_S: Final = 30.0
"""How long the caller waits for the outcome when Finish's answer was lost. The source itself never
stops asking."""

_SOURCE_ONLY: Final = (
    MigrateFlag.CHANGE_PROTECTION | MigrateFlag.ABORT_ON_ERROR | MigrateFlag.AUTO_CONVERGE
)
_AT_HOME: Final = frozenset(
    {
        "persistent_xml",
        "destination_xml",
        "destination_name",
        "migrate_uri",
        "auto_converge.initial",
        "auto_converge.increment",
        "tls.destination",
    }
)
"""Parameters that the source keeps to itself, or says in its own words."""


class PeerToPeer:
    """Drives migrations away from this host."""

    def __init__(self, registry: Registry, source: Sending, peers: Peers) -> None:
        self._registry, self._source, self._peers = registry, source, peers

    async def migrate(self, guest: Guest, request: Request, uri: str | None, cookie: bytes) -> None:
        """Move the guest to the daemon at `uri`; returns when it runs there.

        It goes on if the caller's waiting is cancelled.

        Raises: why it did not move; it runs on here then, or the text says where it is.
        """
        if cookie:
            raise OperationInvalid("received unexpected cookie with P2P migration")
        if not uri:
            raise InvalidArg("missing destination connection URI for peer-to-peer migration")
        if MigrateFlag.OFFLINE not in request.flags:
            checks.check_free(guest)  # before another host is troubled
        drive = _Drive(guest, request, self._source)
        work = self._registry.surroundings.work.start(self._drive(drive, uri))
        await asyncio.shield(work)

    async def _drive(self, drive: _Drive, uri: str) -> None:
        async with self._peers.connect(uri) as remote:
            await drive.run(remote)


class _Drive:
    """One migration."""

    def __init__(self, guest: Guest, request: Request, source: Sending) -> None:
        self._guest, self._source = guest, source
        flags = request.flags & ~MigrateFlag.PEER2PEER | MigrateFlag.CHANGE_PROTECTION
        self._request = replace(request, flags=flags)
        self._asked = request.flags
        self._tunnel: Tunnel | None = None
        self._outgoing: Outgoing | None = None

    async def run(self, remote: Remote) -> None:
        await self._check_features(remote)
        guest, link = self._guest, remote.link
        begun = await self._source.begin(guest, link, self._request)
        self._outgoing = self._source.find(guest.uuid)
        wanted = self._wanted(begun.xml)
        prepared = await self._prepare(remote, wanted, begun.cookie)
        if MigrateFlag.OFFLINE in self._asked:
            await self._finish(remote, wanted, b"")
            return
        try:
            cookie = await self._perform(remote, prepared)
        except SternaError as failed:
            raise await self._cancelled(remote, wanted, failed) from failed
        await self._finish(remote, wanted, cookie)

    async def _check_features(self, remote: Remote) -> None:
        needed = [Feature.MIGRATION_P2P, Feature.MIGRATION_PARAMS]
        if MigrateFlag.OFFLINE in self._asked:
            needed.append(Feature.MIGRATION_OFFLINE)
        missing = await remote.check(needed)
        if missing is not None:
            text = "Destination libvirt does not support peer-to-peer migration protocol"
            raise OperationFailed(text)

    def _wanted(self, xml: str) -> Wanted:
        """What the destination is told: everything but what only the source needs."""
        request, guest = self._request, self._guest
        flags = self._asked & ~_SOURCE_ONLY
        paused = guest.state is State.PAUSED and guest.reason is not PausedReason.MIGRATION
        if paused:
            flags |= MigrateFlag.PAUSED
        params = [param for param in request.params if param.field not in _AT_HOME]
        for name, value in (
            ("destination_xml", xml),
            ("destination_name", request.name),
            ("migrate_uri", request.migrate_uri),
        ):
            if value:
                params.append(TypedParam(name, int(ParamType.STRING), value))
        return Wanted(params, flags)

    async def _prepare(self, remote: Remote, wanted: Wanted, cookie: bytes) -> Prepared:
        try:
            if MigrateFlag.TUNNELLED not in self._asked:
                return await remote.prepare(wanted, cookie)
            prepared, upload = await remote.prepare_tunnel(wanted, cookie)
        except (SternaError, RemoteLost) as failed:
            await self._confirm(remote, b"", cancelled=True)
            raise self._why(failed, "prepare") from failed
        self._tunnel = Tunnel(upload, self._guest.surroundings.work)
        return prepared

    async def _perform(self, remote: Remote, prepared: Prepared) -> bytes:
        request = self._request
        request = replace(request, migrate_uri=prepared.uri_out or request.migrate_uri)
        return await self._source.perform(
            *(self._guest, remote.link, request, prepared.cookie),
            tunnel=self._tunnel,
            peer=remote,
        )

    async def _cancelled(self, remote: Remote, wanted: Wanted, failed: SternaError) -> SternaError:
        """Perform failed: end the other side. Its word explains more, if its QEMU went first."""
        try:
            await remote.finish(self._finishing(wanted), b"", cancelled=True)
        except MigrateFinishOk:
            return failed  # as it was told to
        except (SternaError, RemoteLost) as said:
            if isinstance(said, SternaError) and type(failed) is OperationFailed:
                return said
        return failed

    async def _finish(self, remote: Remote, wanted: Wanted, cookie: bytes) -> None:
        try:
            if self._tunnel is not None:
                await self._tunnel.delivered()
            last = await remote.finish(self._finishing(wanted), cookie, cancelled=False)
        except RemoteLost as lost:
            if self._outgoing is None:
                raise self._why(lost, "finish") from lost
            await self._outcome(self._outgoing, lost)
        except SternaError as refused:
            # The destination's own word; the source asks it all the same, if it can. (L5)
            await self._confirm(remote, b"", cancelled=True)
            if self._outgoing is None or not self._outgoing.moved:
                raise self._why(refused, "finish") from refused
        else:
            await self._confirm(remote, last, cancelled=False)

    async def _outcome(self, outgoing: Outgoing, lost: RemoteLost) -> None:
        """Finish's answer was lost. The core asks; whoever waits here hears what it finds out."""
        try:
            async with asyncio.timeout(SETTLE_S):
                await asyncio.shield(outgoing.over)
        except TimeoutError:
            if outgoing.handed_over:
                raise self._why(lost, "finish") from lost
            raise OperationFailed(
                f"nobody knows yet whether domain '{self._guest.name}' runs at its destination:"
                f" {lost}; it is held paused here and the destination is asked again until it"
                " answers"
            ) from lost
        if not outgoing.moved:
            raise self._why(lost, "finish") from lost

    async def _confirm(self, remote: Remote, cookie: bytes, *, cancelled: bool) -> None:
        """Phase 5. That it does not fit any more means that the core knows already."""
        try:
            await self._source.confirm(self._guest, remote.link, cookie, cancelled=cancelled)
        except SternaError as exc:
            log.info("migration.not_confirmed guest=%s why=%r", self._guest.name, str(exc))

    def _finishing(self, wanted: Wanted) -> Wanted:
        name = self._request.name or self._guest.name
        kept = [param for param in wanted.params if param.field != "destination_name"]
        named = TypedParam("destination_name", int(ParamType.STRING), name)
        return replace(wanted, params=[*kept, named])

    def _why(self, failed: Exception, phase: str) -> SternaError:
        """The same error, and where the guest is now (L8)."""
        guest = self._guest
        now = "is paused here" if guest.state is State.PAUSED else "runs on here"
        if guest.running is None:
            now = "does not run here"
        if self._outgoing is not None and self._outgoing.handed_over:
            now = "runs there, and may miss memory that is here"
        where = f"the migration failed in {phase} at the destination, domain '{guest.name}' {now}"
        if isinstance(failed, SternaError):
            return error_for(failed.number, f"{failed}; {where}", domain=failed.domain)
        return OperationFailed(f"Lost connection to destination host: {failed}; {where}")
