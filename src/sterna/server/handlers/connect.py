"""The connection itself: opening, closing, features, identity."""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from sterna.errors import ErrorDomain, InternalError, NoConnect
from sterna.rpc.asyncio_shell import Call
from sterna.rpc.enums import Feature
from sterna.rpc.msg_connect import (
    ConnectGetHostnameRet,
    ConnectGetLibVersionRet,
    ConnectGetTypeRet,
    ConnectGetUriRet,
    ConnectIsSecureRet,
    ConnectOpenArgs,
    ConnectSetIdentityArgs,
    ConnectSupportsFeatureArgs,
    ConnectSupportsFeatureRet,
)
from sterna.server.dispatch import check_flags, handles
from sterna.server.logging import event
from sterna.server.session import Session

log = logging.getLogger(__name__)

LIB_VERSION = 9_000_000
"""What clients are told as the library's version: the release whose behaviour we answer with.

Clients choose what to offer by this number (virt-manager) and by features; ours has nothing to do
with it, and is what `sternad --version` prints.
"""

OPEN_READ_ONLY = 1

_DRIVER = "qemu"
_SECONDARY = frozenset({"network", "storage", "nodedev", "secret", "interface", "nwfilter"})
"""Schemes of the other daemons of a modular host: opened by clients that only want those."""

_FEATURES = frozenset(Feature) - {
    Feature.MIGRATION_V1,
    Feature.REMOTE,
    Feature.MIGRATION_V2,
    Feature.MIGRATION_DIRECT,
}
"""Numbers answered with 1. Migrations of version 1 and 2 (1, 3) and 5 are not spoken here: every
client that could ask for them finds 6 and 13 first."""


@handles("CONNECT_OPEN", early=True)
def connect_open(session: Session, args: ConnectOpenArgs) -> None:
    if session.uri is not None:
        raise InternalError("connection already open", domain=ErrorDomain.RPC)
    session.uri = accepted_uri(args.name or "", root=session.context.is_system)
    if args.flags & OPEN_READ_ONLY:
        session.read_only = True
    event(
        log,
        "client.opened",
        logging.DEBUG,
        client=session.number,
        uri=session.uri,
        read_only=session.read_only,
    )


def accepted_uri(name: str, *, root: bool) -> str:
    """The URI a client opens, as GET_URI answers it.

    Args:
        name: the URI without transport and host; "" asks for the default.
        root: the daemon is the system's; else it is one user's.

    Raises:
        NoConnect: not a driver we are.
        InternalError: a path that the driver does not know.
    """
    own = "/system" if root else "/session"
    if not name:
        return f"{_DRIVER}://{own}"
    try:
        parts = urlsplit(name)
    except ValueError as error:
        raise NoConnect(name) from error
    if parts.netloc or (parts.scheme != _DRIVER and parts.scheme not in _SECONDARY):
        raise NoConnect(name)
    # Root's clients may call it either way (libvirt 9.0, observed): it is the socket that decides.
    if parts.path not in {"/system", "/session"}:
        raise InternalError(
            f"unexpected {parts.scheme} URI path '{parts.path}', try {_DRIVER}://{own}",
            domain=ErrorDomain.NONE,
        )
    return name


@handles("CONNECT_CLOSE", early=True, whole_call=True)
def connect_close(session: Session, call: Call) -> None:
    """Answer, then hang up; what was pipelined after it is not served."""
    session.connection.reply(call)
    session.connection.close()


@handles("CONNECT_SUPPORTS_FEATURE", early=True)
def connect_supports_feature(
    session: Session, args: ConnectSupportsFeatureArgs
) -> ConnectSupportsFeatureRet:
    if args.feature == Feature.PROGRAM_KEEPALIVE:
        settings = session.context.settings
        session.connection.start_keepalive(settings.keepalive_interval_s, settings.keepalive_count)
    elif session.uri is None:
        raise InternalError("hypervisor connection not open", domain=ErrorDomain.RPC)
    return ConnectSupportsFeatureRet(supported=int(args.feature in _FEATURES))


@handles("CONNECT_GET_URI")
def connect_get_uri(session: Session, args: None) -> ConnectGetUriRet:
    return ConnectGetUriRet(uri=session.uri or "")


@handles("CONNECT_GET_TYPE")
def connect_get_type(session: Session, args: None) -> ConnectGetTypeRet:
    return ConnectGetTypeRet(type="QEMU")


@handles("CONNECT_GET_LIB_VERSION")
def connect_get_lib_version(session: Session, args: None) -> ConnectGetLibVersionRet:
    return ConnectGetLibVersionRet(lib_ver=LIB_VERSION)


@handles("CONNECT_GET_HOSTNAME")
def connect_get_hostname(session: Session, args: None) -> ConnectGetHostnameRet:
    return ConnectGetHostnameRet(hostname=session.context.hostname)


@handles("CONNECT_IS_SECURE")
def connect_is_secure(session: Session, args: None) -> ConnectIsSecureRet:
    """The way from the driver to the hypervisor, which is a socket on this host."""
    return ConnectIsSecureRet(secure=1)


@handles("CONNECT_REGISTER_CLOSE_CALLBACK", "CONNECT_UNREGISTER_CLOSE_CALLBACK")
def close_callback(session: Session, args: None) -> None:
    """Nothing to remember: a daemon with a local QEMU never loses its own connection to it."""


@handles("CONNECT_SET_IDENTITY")
def connect_set_identity(session: Session, args: ConnectSetIdentityArgs) -> None:
    """Sent by daemons that forward for somebody; rights come from the socket alone."""
    check_flags(args.flags, 0, "remoteDispatchConnectSetIdentity")
