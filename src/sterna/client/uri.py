"""Where a host is: connection URIs as libvirt's tools write them, and our short forms.

| form | means |
|---|---|
| ``qemu:///system``, ``qemu:///session`` | this machine's daemon |
| ``qemu+unix:///system?socket=PATH`` | the daemon behind that socket |
| ``qemu+tls://HOST[:16514]/system``, ``qemu://HOST/system`` | over TLS, with certificates |
| ``qemu+tcp://HOST[:16509]/system`` | over TCP, unencrypted |
| ``qemu+ssh://[USER@]HOST[:PORT]/system[?socket=PATH]`` | the daemon there, through ssh |
| ``/PATH`` | short for ``qemu+unix:///system?socket=/PATH`` |
| ``DIR/`` holding ``run/libvirt-sock`` | the daemon started with ``--root DIR`` |

The name sent in CONNECT_OPEN is the URI without transport, user, host, port and the parameters
the client itself uses (observed with virsh 9.0).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from sterna.errors import InvalidArg
from sterna.host.pki import SYSTEM_PKI

TCP_PORT = 16509
TLS_PORT = 16514
TRANSPORTS = ("unix", "tls", "tcp", "ssh")
# Parameters that steer the client and are not passed on to the daemon.
OWN_PARAMS = frozenset(
    {
        "name", "command", "socket", "mode", "proxy", "netcat", "keyfile", "no_tty", "no_verify",
        "no_sanity", "pkipath", "tls_priority", "auth", "authfile", "sshauth", "known_hosts",
        "known_hosts_verify",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Uri:
    """A connection URI, taken apart.

    Attributes:
        transport: one of `TRANSPORTS`.
        path: ``/system`` or ``/session``.
        socket: path of the unix socket, empty for the transport's default.
        open_name: what CONNECT_OPEN sends.
        text: what the user wrote.
        pki: where the system's certificates are, for a daemon that has them elsewhere.
    """

    transport: str
    host: str
    port: int | None
    user: str | None
    path: str
    socket: str
    open_name: str
    text: str
    params: dict[str, str] = field(default_factory=dict)
    pki: Path = SYSTEM_PKI

    def __str__(self) -> str:
        return self.text


def parse_uri(text: str) -> Uri:
    """Takes a URI or one of the short forms apart.

    Raises:
        InvalidArg: it is none of the forms above.
    """
    if text.startswith(("/", "./", "~/")):
        return _from_path(text)
    split = urlsplit(text)
    driver, _, transport = split.scheme.lower().partition("+")
    if driver != "qemu":
        raise InvalidArg(
            f"'{text}' is not a connection URI: expected qemu[+TRANSPORT]://… or /PATH"
        )
    params = {name.lower(): value for name, value in parse_qsl(split.query, keep_blank_values=True)}
    host = split.hostname or ""
    if not transport:
        transport = "tls" if host else "unix"
    if transport not in TRANSPORTS:
        raise InvalidArg(f"'{text}': unknown transport '{transport}' ({', '.join(TRANSPORTS)})")
    if transport == "unix" and host:
        raise InvalidArg(f"'{text}': a unix socket has no host name")
    try:
        port = split.port
    except ValueError as error:
        raise InvalidArg(f"'{text}': {error}") from None
    path = split.path or "/system"
    passed_on = {name: value for name, value in params.items() if name not in OWN_PARAMS}
    query = f"?{urlencode(passed_on)}" if passed_on else ""
    return Uri(
        transport=transport,
        host=host,
        port=port,
        user=split.username,
        path=path,
        socket=params.get("socket", ""),
        open_name=params.get("name", f"qemu://{path}{query}"),
        text=text,
        params=params,
    )


def _from_path(text: str) -> Uri:
    path = Path(text).expanduser()
    if path.is_dir():
        path = path / "run" / "libvirt-sock"
    socket = os.path.abspath(path)
    return Uri(
        transport="unix",
        host="",
        port=None,
        user=None,
        path="/system",
        socket=socket,
        open_name="qemu:///system",
        text=f"qemu+unix:///system?socket={socket}",
        params={"socket": socket},
    )
