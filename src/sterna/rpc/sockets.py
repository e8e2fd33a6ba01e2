"""Bytes and descriptors through a socket: the seam below the connections.

A transport reads and writes without blocking. The other one is `sterna.rpc.tls`.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from sterna.rpc.errors import ProtocolViolation
from sterna.rpc.frame import HEADER_BYTES, STREAM_BYTES_MAX
from sterna.rpc.session_base import Chunk, FdByte

READ_BYTES = HEADER_BYTES + STREAM_BYTES_MAX
"""A full packet of a stream in one read is a packet without copying."""
_WRITE_CHUNKS_MAX = 64
_FD_SPACE = socket.CMSG_SPACE(8 * array.array("i").itemsize)
_UCRED = struct.Struct("iII")
_SUN_PATH_MAX = 107
_TCP_PROBES = 3


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end. Ids only on unix sockets, as the kernel vouches for them."""

    uid: int | None
    gid: int | None
    pid: int | None
    address: str
    is_unix: bool


class Transport(Protocol):
    """What a connection needs of the thing that carries its bytes."""

    @property
    def carries_fds(self) -> bool: ...
    def fileno(self) -> int: ...
    def read(self) -> tuple[bytes, list[int]]:
        """What has arrived; no bytes at the end. BlockingIOError if nothing has."""

    def write(self, chunks: deque[Chunk]) -> int:
        """Send from the front of `chunks` and take it from there; the bytes that left.

        BlockingIOError if nothing can be sent now.
        """

    def gone(self) -> bool: ...
    def limit_silence(self, seconds: float | None) -> None: ...
    def close(self) -> None: ...


class SocketTransport:
    """A unix or TCP socket as it is."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.carries_fds = sock.family == socket.AF_UNIX
        if not self.carries_fds:
            prepare_tcp(sock)

    def fileno(self) -> int:
        """The descriptor to watch; -1 once closed."""
        return self._sock.fileno()

    def read(self) -> tuple[bytes, list[int]]:
        """See `Transport`. Descriptors come closed on exec."""
        if not self.carries_fds:
            return self._sock.recv(READ_BYTES), []
        # A plain recv of the byte that carries a descriptor would lose it.
        data, ancillary, flags, _ = self._sock.recvmsg(
            READ_BYTES, _FD_SPACE, socket.MSG_CMSG_CLOEXEC
        )
        if not ancillary:
            return data, []
        fds = array.array("i")
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(value[: len(value) - len(value) % fds.itemsize])
        if flags & socket.MSG_CTRUNC:
            close_fds(fds)
            raise ProtocolViolation("more file descriptors at once than any packet sends")
        return data, list(fds)

    def write(self, chunks: deque[Chunk]) -> int:
        """See `Transport`. A descriptor that was sent is closed here."""
        first = chunks[0]
        if isinstance(first, FdByte):
            # One descriptor, one byte, one message: what libvirt 9.0 expects (observed).
            rights = array.array("i", [first.fd])
            self._sock.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            chunks.popleft()
            os.close(first.fd)
            return 1
        if len(chunks) == 1:
            count = self._sock.send(first)
        else:
            count = self._sock.sendmsg(_bytes_ahead(chunks))
        drop(chunks, count)
        return count

    def gone(self) -> bool:
        """Whether the peer has closed, looked up now, even behind bytes not yet read."""
        return is_hung_up(self._sock.fileno())

    def limit_silence(self, seconds: float | None) -> None:
        """Let the kernel notice a dead TCP peer within this time, even while nobody reads."""
        if not self.carries_fds:
            limit_tcp_silence(self._sock, seconds)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


def prepare_tcp(sock: socket.socket) -> None:
    """What every TCP connection of ours has."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def limit_tcp_silence(sock: socket.socket, seconds: float | None) -> None:
    """Have the kernel end a connection whose peer has acknowledged nothing for so long, be it
    data or a probe; None: as long as it does by itself."""
    idle, interval = (7200, 75) if seconds is None else _probe_times(seconds)
    user_timeout_ms = 0 if seconds is None else int(seconds * 1000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, idle),
        (socket.TCP_KEEPINTVL, interval),
        (socket.TCP_KEEPCNT, _TCP_PROBES),
        (socket.TCP_USER_TIMEOUT, user_timeout_ms),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _probe_times(seconds: float) -> tuple[int, int]:
    """Idle time and interval of the kernel's probes, whole seconds of at least one."""
    interval = max(1, int(seconds / (_TCP_PROBES + 2)))
    return max(1, int(seconds) - _TCP_PROBES * interval), interval


def _bytes_ahead(chunks: deque[Chunk]) -> list[bytes | bytearray | memoryview]:
    ahead: list[bytes | bytearray | memoryview] = []
    for chunk in chunks:
        if isinstance(chunk, FdByte) or len(ahead) == _WRITE_CHUNKS_MAX:
            break
        ahead.append(chunk)
    return ahead


def drop(chunks: deque[Chunk], count: int) -> None:
    """Take `count` bytes, which were sent, from the front."""
    while count:
        first = chunks[0]
        assert not isinstance(first, FdByte)  # noqa: S101 - only bytes were sent
        if count < len(first):
            chunks[0] = memoryview(first)[count:]  # a copy each time would cost squared time
            return
        count -= len(first)
        chunks.popleft()


def is_hung_up(fd: int) -> bool:
    """Whether the peer of a socket has closed or reset it. True for a closed descriptor too."""
    if fd < 0:
        return True
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)  # HUP and ERR are always reported
    return any(events & ~select.POLLIN for _, events in poll.poll(0))


def peer_of(sock: socket.socket) -> Peer:
    """Who is at the other end of an accepted socket. OSError if it is gone already."""
    if sock.family == socket.AF_UNIX:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(raw)
        return Peer(uid, gid, pid, f"unix pid {pid}", True)
    host, port, *_ = sock.getpeername()
    return Peer(None, None, None, f"{host}:{port}", False)


def close_fds(fds: Iterable[int]) -> None:
    """Close descriptors nobody wants."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


@contextlib.contextmanager
def short_unix_path(path: str | os.PathLike[str]) -> Iterator[str]:
    """A name for a socket that fits into sun_path's 108 bytes, however deep it lies."""
    whole = os.fsdecode(path)
    if len(os.fsencode(whole)) <= _SUN_PATH_MAX:
        yield whole
        return
    directory, name = os.path.split(whole)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)
