"""Opening and closing a session with a host's daemon, over any transport."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from sterna.client.errors import ConnectionFailed
from sterna.client.uri import TCP_PORT, TLS_PORT, Uri, parse_uri
from sterna.errors import InvalidArg, NoSupport, RpcError
from sterna.host.pki import SYSTEM_PKI, PkiFiles, client_files
from sterna.host.places import Places
from sterna.rpc.asyncio_shell import ClientConnection
from sterna.rpc.enums import Feature
from sterna.rpc.msg_connect import (
    ConnectOpenArgs,
    ConnectSupportsFeatureArgs,
)
from sterna.rpc.tls import TlsFilesError, client_context, why_refused

CONNECT_TIMEOUT_S = 10.0
KEEPALIVE_INTERVAL_S = 1.0
# With the interval: a host that falls silent is given up after 5 s, the budget of L3.
KEEPALIVE_COUNT = 4


def default_uri() -> str:
    """The host that is meant when none is named: `STERNA_URI`, else this machine's daemon."""
    return os.environ.get("STERNA_URI") or "qemu:///system"


@asynccontextmanager
async def open_session(
    text: str | None, *, pki: Path = SYSTEM_PKI
) -> AsyncIterator[ClientConnection]:
    """A connected, opened session; closed on leaving.

    Args:
        pki: where the system's certificates are.

    Raises:
        ConnectionFailed: no daemon answers there, or it wants authentication.
        InvalidArg: the URI is none.
    """
    uri = replace(parse_uri(text or default_uri()), pki=pki)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            connection, helper = await _connect(uri)
    except TimeoutError:
        raise ConnectionFailed(str(uri), f"no answer within {CONNECT_TIMEOUT_S:.0f} s") from None
    except (FileNotFoundError, ConnectionRefusedError) as error:
        port = uri.port or (TLS_PORT if uri.transport == "tls" else TCP_PORT)
        where = local_socket(uri) if uri.transport == "unix" else f"port {port}"
        raise ConnectionFailed(
            str(uri), f"nobody listens at {where}: is sternad running?"
        ) from error
    except OSError as error:
        raise ConnectionFailed(str(uri), _why(error)) from error
    try:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await _introduce(connection, uri)
        except TimeoutError:
            raise ConnectionFailed(
                str(uri), f"the daemon says nothing for {CONNECT_TIMEOUT_S:.0f} s"
            ) from None
        yield connection
        if not connection.closed:
            await _take_leave(connection)
    finally:
        connection.close()
        if helper is not None:
            await _end(helper)


async def _introduce(connection: ClientConnection, uri: Uri) -> None:
    """The session's start, in the order that every client of the protocol uses."""
    try:
        auth = await connection.call("AUTH_LIST")
        kinds = list(auth.types)
    except (NoSupport, RpcError):
        kinds = []
    if any(kinds) or "auth" in uri.params:
        # Most hosts don't ask, and each command would have to load it.
        from sterna.client.authentication import authenticate  # noqa: PLC0415

        await authenticate(connection, uri, kinds, has_certificate=_certificate_shown(uri))
    pings = await connection.call(
        "CONNECT_SUPPORTS_FEATURE", ConnectSupportsFeatureArgs(Feature.PROGRAM_KEEPALIVE)
    )
    if pings.supported:
        connection.start_keepalive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
    await connection.call("CONNECT_OPEN", ConnectOpenArgs(uri.open_name, 0))


async def _take_leave(connection: ClientConnection) -> None:
    try:
        async with asyncio.timeout(1):
            await connection.call("CONNECT_CLOSE")
    except (RpcError, TimeoutError):
        # The peer closes as soon as it has answered: whichever is seen first is fine.
        return


async def _connect(uri: Uri) -> tuple[ClientConnection, asyncio.subprocess.Process | None]:
    if uri.transport == "tcp":
        connection = await ClientConnection.connect_tcp(
            uri.host or "localhost", uri.port or TCP_PORT
        )
        return connection, None
    if uri.transport == "tls":
        host, port = uri.host or "localhost", uri.port or TLS_PORT
        return await ClientConnection.connect_tls(host, port, _tls_context(uri)), None
    if uri.transport == "ssh":
        return await _connect_ssh(uri)
    return await ClientConnection.connect_unix(local_socket(uri)), None


def _tls_context(uri: Uri) -> ssl.SSLContext:
    """What we show to a host and whom we believe, as the URI's parameters have it.

    Raises:
        ConnectionFailed: the certificates cannot be used.
    """
    files = _certificates(uri)
    try:
        return client_context(
            ca=None if _is_on(uri, "no_verify") else files.ca,
            certificate=files.certificate,
            key=files.key,
            revoked=files.revoked,
        )
    except TlsFilesError as error:
        raise ConnectionFailed(str(uri), str(error)) from error


def _certificates(uri: Uri) -> PkiFiles:
    pkipath = uri.params.get("pkipath")
    return client_files(Path(pkipath) if pkipath else None, uri.pki)


def _certificate_shown(uri: Uri) -> bool:
    return uri.transport == "tls" and _certificates(uri).certificate is not None


def _is_on(uri: Uri, name: str) -> bool:
    """Switches are numbers in a URI, and any but 0 is on."""
    value = uri.params.get(name, "0")
    if not value.isdecimal():
        raise InvalidArg(f"'{uri}': {name} is 0 or 1")
    return int(value) != 0


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be believed: {why_refused(error)}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {why_refused(error)}"
    return error.strerror or str(error)


def local_socket(uri: Uri) -> str:
    """The socket that is named, else this machine's: the system's for `/system`, or the user's."""
    if uri.socket:
        return uri.socket
    places = Places.system() if uri.path == "/system" and _reachable() else Places.user()
    return str(places.socket)


def _reachable() -> bool:
    """Whether the system's daemon is the one to talk to: always for root, else if it is there."""
    return os.geteuid() == 0 or Places.system().socket.exists()


async def _connect_ssh(uri: Uri) -> tuple[ClientConnection, asyncio.subprocess.Process]:
    """ssh, with netcat at the other end, on a socket pair of ours."""
    remote = uri.socket or str(Places.system().socket)
    command = ["ssh", "-T", "-e", "none", "-o", "BatchMode=yes"]
    if uri.port:
        command += ["-p", str(uri.port)]
    if uri.user:
        command += ["-l", uri.user]
    command += ["--", uri.host or "localhost", f"nc -U '{remote}'"]
    ours, theirs = socket.socketpair()
    with theirs:
        helper = await asyncio.create_subprocess_exec(
            *command, stdin=theirs.fileno(), stdout=theirs.fileno(), start_new_session=True
        )
    return ClientConnection.from_socket(ours), helper


async def _end(helper: asyncio.subprocess.Process) -> None:
    if helper.returncode is None:
        helper.send_signal(signal.SIGTERM)
    await helper.wait()
