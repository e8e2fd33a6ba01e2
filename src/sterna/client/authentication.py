"""Saying who we are to a host that asks: SASL, with the credentials file of libvirt's clients.

    [credentials-admin]
    authname=ann
    password=…

    [auth-libvirt-host-a]
    credentials=admin

`auth-libvirt-default` is for hosts without a section of their own.
"""

from __future__ import annotations

import asyncio
import configparser
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sterna.client.uri import Uri
from sterna.errors import AuthFailed, InvalidArg
from sterna.rpc.asyncio_shell import ClientConnection
from sterna.rpc.enums import AuthKind
from sterna.rpc.msg_connect import AuthSaslStartArgs, AuthSaslStepArgs
from sterna.rpc.scram import MECHANISM as SCRAM
from sterna.rpc.scram import ScramClient, ScramError

EXTERNAL: Final = "EXTERNAL"
_NONCE_BYTES = 24
_FILE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and its password."""

    user: str
    password: str


async def authenticate(
    connection: ClientConnection, uri: Uri, kinds: list[int], *, has_certificate: bool
) -> None:
    """Say who we are, if the host wants to know.

    Args:
        kinds: what the host listed.
        has_certificate: it has seen one of ours.

    Raises:
        AuthFailed: the host does not know us, or wants something we don't have.
    """
    wish, _, mechanism = uri.params.get("auth", "").partition(".")
    if wish not in ("", "sasl"):
        raise InvalidArg(f"'{uri}': auth is sasl or sasl.MECHANISM")
    if not kinds or (kinds[0] == AuthKind.NONE and not wish):
        return
    if AuthKind.SASL not in kinds:
        raise AuthFailed(f"{uri} wants a kind of authentication that sterna does not speak")
    listed = (await connection.call("AUTH_SASL_INIT")).mechlist
    offered = listed.replace(",", " ").split()
    if mechanism and mechanism not in offered:
        raise AuthFailed(f"{uri} does not offer {mechanism}, but {listed or 'nothing'}")
    wanted = [mechanism] if mechanism else [EXTERNAL, SCRAM]
    if EXTERNAL in wanted and EXTERNAL in offered and has_certificate:
        await _external(connection)
    elif SCRAM in wanted and SCRAM in offered:
        await _scram(connection, uri)
    else:
        raise AuthFailed(f"{uri} offers nothing that sterna speaks: {listed}")


async def _external(connection: ClientConnection) -> None:
    """Be who the certificate says we are."""
    done = await connection.call("AUTH_SASL_START", AuthSaslStartArgs(EXTERNAL, 0, b""))
    if not done.complete:
        raise AuthFailed("the host wants more than the certificate")


async def _scram(connection: ClientConnection, uri: Uri) -> None:
    """Prove a password, and have the host prove that it knows it."""
    credentials = find_credentials(uri)
    nonce = secrets.token_urlsafe(_NONCE_BYTES)
    try:
        scram = ScramClient(credentials.user, credentials.password, nonce)
        said = await connection.call("AUTH_SASL_START", AuthSaslStartArgs(SCRAM, 0, scram.first()))
        proof = await asyncio.to_thread(scram.final, said.data)
        answer = await _step(connection, proof)
        scram.check(answer.data)
        if not answer.complete and not (await _step(connection, b"")).complete:
            raise ScramError("the host does not come to an end")
    except (ScramError, ValueError) as error:
        raise AuthFailed(f"{uri}: {error}") from error


async def _step(connection: ClientConnection, data: bytes) -> Any:
    return await connection.call("AUTH_SASL_STEP", AuthSaslStepArgs(0, data))


def find_credentials(uri: Uri) -> Credentials:
    """The name and password for a host: from `?authfile=`, else from where libvirt's clients look.

    Raises:
        AuthFailed: there are none; the text says where they were looked for.
        InvalidArg: a file is not of that form.
    """
    looked = []
    for path in _files(uri):
        looked.append(str(path))
        # A daemon that migrates is a client too: nothing that blocks may be opened for its callers.
        if path.is_file():
            found = _in_file(path, uri.host or "localhost")
            if found is not None:
                return found
    raise AuthFailed(f"{uri} wants a password, and there is none for it in {' or '.join(looked)}")


def _files(uri: Uri) -> Iterator[Path]:
    if named := uri.params.get("authfile") or os.environ.get("LIBVIRT_AUTH_FILE"):
        yield Path(named)
        return
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    yield Path(home) / "libvirt" / "auth.conf"
    yield Path("/etc/libvirt/auth.conf")


def _in_file(path: Path, host: str) -> Credentials | None:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_string(file.read(_FILE_BYTES_MAX))
    except OSError as error:
        raise AuthFailed(f"cannot read {path}: {error.strerror}") from error
    except (configparser.Error, UnicodeDecodeError) as error:
        # Its own words would quote the file.
        raise InvalidArg(f"{path} is not a file of credentials") from error
    for name in (f"auth-libvirt-{host}", "auth-libvirt-default"):
        which = parser.get(name, "credentials", fallback=None)
        section = f"credentials-{which}"
        if which is None:
            continue
        try:
            return Credentials(parser.get(section, "authname"), parser.get(section, "password"))
        except configparser.Error as error:
            raise InvalidArg(
                f"{path}: [{name}] names [{section}], which has no authname and password"
            ) from error
    return None
