"""The other hosts' daemons, for migrations that this host drives: sessions of our own client.

The port it fills is `sterna.migration.remote`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sterna.client.errors import ConnectionFailed
from sterna.client.session import open_session
from sterna.client.uri import parse_uri
from sterna.errors import OperationFailed
from sterna.guest.ports import ClientLink
from sterna.migration.answers import Prepared
from sterna.migration.remote import RemoteLost, Upload, Wanted
from sterna.rpc.asyncio_shell import ClientConnection
from sterna.rpc.errors import ConnectionLost
from sterna.rpc.msg_connect import ConnectSupportsFeatureArgs
from sterna.rpc.msg_migration import (
    DomainMigrateFinish3ParamsArgs,
    DomainMigratePrepare3ParamsArgs,
    DomainMigratePrepareTunnel3ParamsArgs,
)
from sterna.xdr.message import Message


class Session:
    """`sterna.migration.remote.Remote` over a connection of the client's."""

    def __init__(self, connection: ClientConnection, host: str) -> None:
        self._connection = connection
        self.host = host

    @property
    def link(self) -> ClientLink:
        """See `Remote`."""
        return self._connection

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

    async def _call(self, procedure: str, args: Message) -> Any:
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
    host = parse_uri(uri).host
    opened = open_session(uri, pki=pki)
    try:
        connection = await opened.__aenter__()
    except ConnectionFailed as failed:
        raise OperationFailed(
            f"Failed to connect to remote libvirt URI {uri}: {failed.why}"
        ) from failed
    try:
        yield Session(connection, host)
    finally:
        await opened.__aexit__(None, None, None)
