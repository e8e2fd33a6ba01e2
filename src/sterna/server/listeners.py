"""Sockets that clients come to: unix read-write, unix read-only, TCP where asked for.

A listener accepts and hands the socket on; it knows nothing of what is spoken there. A failing
accept (no descriptors left) pauses that listener for a moment instead of spinning.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import ipaddress
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sterna.server.logging import event

log = logging.getLogger(__name__)

BACKLOG = 128
ACCEPTS_PER_TURN = 16
"""So that a flood of connections leaves the loop to those already here."""
ACCEPT_PAUSE_S = 0.5
PATH_BYTES_MAX = 107
"""sun_path is 108 bytes with its NUL (unix(7))."""

Accepted = Callable[[socket.socket, bool], None]
"""Takes a connected, non-blocking socket and whether it may only read."""


class ListenError(Exception):
    """A socket cannot be opened; the text says which and why."""


class Listener:
    """One listening socket, accepting until closed."""

    def __init__(
        self, listening: socket.socket, accepted: Accepted, *, read_only: bool, name: str
    ) -> None:
        self.name = name
        self._socket = listening
        self._accepted = accepted
        self._read_only = read_only
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._unlink: tuple[Path, tuple[int, int]] | None = None
        listening.setblocking(False)
        self._loop.add_reader(listening, self._accept)

    def remove_at_close(self, path: Path) -> None:
        """Remember the file of a unix socket we bound; only that very file is removed."""
        with short_path(path) as reachable:
            found = os.stat(reachable)
        self._unlink = path, (found.st_dev, found.st_ino)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                client, _ = self._socket.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                event(log, "listener.accept_failed", logging.WARNING, at=self.name, error=error)
                self._loop.remove_reader(self._socket)
                self._resume = self._loop.call_later(
                    ACCEPT_PAUSE_S, self._loop.add_reader, self._socket, self._accept
                )
                return
            client.setblocking(False)
            self._accepted(client, self._read_only)

    def close(self) -> None:
        """Stop accepting and remove the socket's file if it is still ours."""
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        if self._unlink is None:
            return
        path, ours = self._unlink
        with contextlib.suppress(OSError), short_path(path) as reachable:
            found = os.stat(reachable)
            if (found.st_dev, found.st_ino) == ours:
                os.unlink(reachable)


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """The path, or a short name for it: connect and bind take 107 bytes at most.

    A directory descriptor's link below /proc/self/fd names the same directory however long its own
    name is.
    """
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def bind_unix(path: Path, *, mode: int, group: str = "") -> socket.socket:
    """A listening unix socket. A file left by a daemon that died is replaced, nothing else is.

    Raises:
        ListenError: somebody listens there, a file that is no socket is in the way, no such group.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with short_path(path) as reachable:
            remove_stale(path, reachable)
            # Nobody may connect between bind and chmod.
            before = os.umask(0o777)
            try:
                made.bind(reachable)
            finally:
                os.umask(before)
            if group:
                os.chown(reachable, -1, grp.getgrnam(group).gr_gid)
            os.chmod(reachable, mode)
        made.listen(BACKLOG)
    except KeyError as error:
        made.close()
        raise ListenError(f"cannot listen at {path}: no group {group!r}") from error
    except OSError as error:
        made.close()
        raise ListenError(f"cannot listen at {path}: {error.strerror or error}") from error
    except ListenError:
        made.close()
        raise
    return made


def remove_stale(path: Path, reachable: str) -> None:
    """Remove the socket file of a process that is gone.

    Raises:
        ListenError: it is alive, or no socket.
    """
    try:
        found = os.lstat(reachable)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"cannot listen at {path}: there is a file that is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        refused = probe.connect_ex(reachable) == errno.ECONNREFUSED
    if not refused:
        raise ListenError(f"cannot listen at {path}: another process listens there")
    os.unlink(reachable)


def bind_tcp(host: str, port: int, *, loopback_only: bool = False) -> list[socket.socket]:
    """Listening sockets for every address of the host; "" means all addresses.

    Args:
        loopback_only: refuse a host that other machines could reach; nothing is opened then.

    Raises:
        ListenError: unknown host, the port is taken, or it is not only loopback.
    """
    made: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        if loopback_only:
            for *_, wanted in found:
                refuse_unprotected(str(wanted[0]))
        for family, kind, protocol, _, wanted in found:
            sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # Its IPv4 twin is a socket of its own.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # The kernel's choice for the first address is the port of all.
            chosen = made[0].getsockname()[1] if port == 0 and len(made) > 1 else port
            address = (wanted[0], chosen, *wanted[2:])
            sock.bind(address)
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in made:
            sock.close()
        raise ListenError(
            f"cannot listen on TCP {host or '*'}:{port}: {error.strerror or error}"
        ) from error
    return made


def refuse_unprotected(address: str) -> None:
    """Plain TCP is for this machine alone, unless the administrator says otherwise.

    Raises:
        ListenError: other machines can reach it.
    """
    if not is_loopback(address):
        raise ListenError(
            f"plain TCP at {address} would let everybody who reaches it rule this host: serve TLS "
            "there instead (setting tls), listen on loopback, or say allow_unprotected_tcp = true"
        )


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
