"""Where the data goes: migration URIs, as libvirt 9.0 reads and answers them (observed). Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from sterna.errors import ArgumentUnsupported, InternalError, InvalidArg, OperationInvalid

SCHEMES: Final = ("tcp", "unix")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of the data connection.

    Attributes:
        host, port: for TCP; no port means that one is to be found.
        path: for a Unix socket.
        style: what stands between scheme and host: "//", or nothing as old peers write it.
    """

    scheme: str
    host: str = ""
    port: int | None = None
    path: str = ""
    style: str = "//"

    def text(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
        port = "" if self.port is None else f":{self.port}"
        return f"tcp:{self.style}{bracketed(self.host)}{port}"

    def for_qemu(self) -> str:
        """As QEMU's own commands want it."""
        if self.scheme == "unix":
            return f"unix:{self.path}"
        return replace(self, style="").text()


@dataclass(frozen=True, slots=True)
class Incoming:
    """How a destination receives.

    Attributes:
        listen: what QEMU's `migrate-incoming` is told.
        uri_out: what the controller is told; None to keep its own.
        port: the port taken from the pool; None if the controller named one.
    """

    listen: str
    uri_out: str | None
    port: int | None


def parse(uri: str) -> Endpoint:
    """Read a migration URI: `tcp://host[:port]`, `tcp:host[:port]`, `unix:///path`.

    Raises: InvalidArg (8), ArgumentUnsupported (74), OperationInvalid (55).
    """
    scheme, colon, rest = uri.partition(":")
    if not colon or "/" in scheme:
        raise InvalidArg(f"missing scheme in migration URI: {uri}")
    if scheme == "rdma":
        # It locks all of the guest's memory, up to a limit that no guest can have here yet.
        raise OperationInvalid("cannot start RDMA migration with no memory hard limit set")
    if scheme not in SCHEMES:
        raise ArgumentUnsupported(f"unsupported scheme {scheme} in migration URI {uri}")
    if scheme == "unix":
        path = urlsplit(uri).path
        if not path.startswith("/"):
            raise InvalidArg(f"missing path in migration URI: {uri}")
        return Endpoint("unix", path=path)
    style = "//" if rest.startswith("//") else ""
    try:
        parts = urlsplit(f"tcp://{rest.removeprefix('//')}")
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise InvalidArg(f"malformed migration URI {uri}: {exc}") from exc
    if not host:
        raise InvalidArg(f"missing host in migration URI: {uri}")
    return Endpoint("tcp", host, port, style=style)


def plan_incoming(
    uri_in: str | None,
    *,
    listen_address: str | None,
    own_host: str,
    any_address: str,
    take_port: Callable[[], int],
) -> Incoming:
    """How to receive for a controller that asked for `uri_in`.

    Args:
        listen_address: where to listen, if the caller or the configuration said so.
        own_host: this host as its peers reach it.
        any_address: what listens everywhere here, "::" or "0.0.0.0".

    Raises: InvalidArg, ArgumentUnsupported; InternalError for a host nobody else can reach.
    """
    address = bracketed(listen_address or any_address)
    if uri_in is None:
        if own_host.startswith("localhost"):
            raise InternalError(
                "hostname on destination resolved to localhost, but migration requires an FQDN"
            )
        port = take_port()
        # No slashes: peers older than libvirt 1.0 could not read them.
        out = Endpoint("tcp", own_host, port, style="")
        return Incoming(f"tcp:{address}:{port}", out.text(), port)
    wanted = parse(uri_in)
    if wanted.scheme == "unix":
        return Incoming(wanted.for_qemu(), None, None)
    if wanted.port is not None:
        return Incoming(f"tcp:{address}:{wanted.port}", None, None)
    port = take_port()
    return Incoming(f"tcp:{address}:{port}", f"{uri_in.rstrip('/')}:{port}", port)


def bracketed(host: str) -> str:
    """An IPv6 address in brackets, anything else as it is."""
    return f"[{host.strip('[]')}]" if ":" in host else host
