"""The other hosts' daemons, for migrations that this host drives: sessions of our own client.

The port it fills is `sterna.migration.remote`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sterna.client.errors import ConnectionFailed
from sterna.client.session import open_session
from sterna.client.uri import parse_uri
from sterna.errors import NoDomain, OperationFailed
from sterna.guest.ports import ClientLink
from sterna.guest.states import PausedReason, State
from sterna.migration.answers import Prepared
from sterna.migration.remote import RemoteLost, Upload, Wanted
from sterna.rpc.asyncio_shell import ClientConnection
from sterna.rpc.errors import ConnectionLost
from sterna.rpc.msg_connect import ConnectSupportsFeatureArgs
from sterna.rpc.msg_domain import DomainGetStateArgs, DomainLookupByUuidArgs
from sterna.rpc.msg_migration import (
    DomainMigrateFinish3ParamsArgs,
    DomainMigratePrepare3ParamsArgs,
    DomainMigratePrepareTunnel3ParamsArgs,
)
from sterna.store.ports import Verdict
from sterna.xdr.message import Message

_HOST_UUID: Final = re.compile(r"<host>\s*<uuid>([0-9a-f-]{36})</uuid>")


class Session:
    """`sterna.migration.remote.Remote` over a connection of the client's."""

    def __init__(self, connection: ClientConnection, uri: str) -> None:
        self._connection = connection
        self.uri = uri
        self.host = parse_uri(uri).host

    @property
    def link(self) -> ClientLink:
        """See `Remote`."""
        return self._connection

    async def host_uuid(self) -> UUID:
        """Which host it is. Raises: ValueError: it does not say."""
        reply = await self._call("CONNECT_GET_CAPABILITIES", None)
        found = _HOST_UUID.search(reply.capabilities)
        if found is None:
            raise ValueError("it does not say which host it is")
        return UUID(found[1])

    async def verdict(self, guest: UUID) -> Verdict | None:
        """What became of a guest that was sent there, as its state shows; None: nothing yet."""
        try:
            found = await self._call("DOMAIN_LOOKUP_BY_UUID", DomainLookupByUuidArgs(guest.bytes))
            now = await self._call("DOMAIN_GET_STATE", DomainGetStateArgs(found.dom, 0))
        except NoDomain:
            return "aborted"
        if now.state == State.SHUTOFF:
            return "aborted"
        waits = now.state == State.PAUSED and now.reason == PausedReason.MIGRATION
        return None if waits else "committed"

    async def check(self, needed: Sequence[int]) -> int | None:
        """See `Remote`."""
        for feature in needed:
            reply = await self._call(
                "CONNECT_SUPPORTS_FEATURE", ConnectSupportsFeatureArgs(feature)
            )
            if not reply.supported:
                return feature
        return None

    async def prepare(self, wanted: Wanted, cookie: bytes) -> Prepared:
        """See `Remote`."""
        args = DomainMigratePrepare3ParamsArgs(wanted.params, cookie, int(wanted.flags))
        reply = await self._call("DOMAIN_MIGRATE_PREPARE3_PARAMS", args)
        return Prepared(bytes(reply.cookie_out), reply.uri_out)

    async def prepare_tunnel(self, wanted: Wanted, cookie: bytes) -> tuple[Prepared, Upload]:
        """See `Remote`."""
        args = DomainMigratePrepareTunnel3ParamsArgs(wanted.params, cookie, int(wanted.flags))
        try:
            stream = await self._connection.open_stream(
                "DOMAIN_MIGRATE_PREPARE_TUNNEL3_PARAMS", args
            )
        except ConnectionLost as lost:
            raise RemoteLost(lost.reason) from lost
        reply: Any = stream.ret
        return Prepared(bytes(reply.cookie_out), None), stream

    async def finish(self, wanted: Wanted, cookie: bytes, *, cancelled: bool) -> bytes:
        """See `Remote`."""
        args = DomainMigrateFinish3ParamsArgs(
            wanted.params, cookie, int(wanted.flags), int(cancelled)
        )
        reply = await self._call("DOMAIN_MIGRATE_FINISH3_PARAMS", args)
        return bytes(reply.cookie_out)

    async def _call(self, procedure: str, args: Message | None) -> Any:
        try:
            return await self._connection.call(procedure, args)
        except ConnectionLost as lost:
            raise RemoteLost(lost.reason) from lost


@asynccontextmanager
async def session(uri: str, pki: Path) -> AsyncIterator[Session]:
    """A session with the daemon at `uri`; closed on leaving. `pki`: where our certificates are.

    Raises:
        OperationFailed: nobody answers there.
        InvalidArg: it is no URI.
    """
    opened = open_session(uri, pki=pki)
    try:
        connection = await opened.__aenter__()
    except ConnectionFailed as failed:
        raise OperationFailed(
            f"Failed to connect to remote libvirt URI {uri}: {failed.why}"
        ) from failed
    try:
        yield Session(connection, uri)
    finally:
        await opened.__aexit__(None, None, None)
