"""A stretch of wire for any bytes: it forwards, and can be closed, reset or cut in the middle."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

Target = Path | tuple[str, int]
"""A unix socket, or host and port of a TCP one."""

PIECE_BYTES: Final = 65536
BACKLOG: Final = 16
_NOWHERE: Final = struct.pack("H14x", socket.AF_UNSPEC)
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def connect(target: Target) -> socket.socket:
    """A stream to it. Raises: OSError."""
    family = socket.AF_UNIX if isinstance(target, Path) else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.connect(str(target) if isinstance(target, Path) else target)
    except OSError:
        made.close()
        raise
    return made


def close(sock: socket.socket) -> None:
    """End both directions; who reads from it wakes up."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def reset(sock: socket.socket) -> None:
    """The same with a RST instead of a FIN, where it is TCP: that is what connecting to nowhere
    does, which the socket module cannot."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if sock.family == socket.AF_INET and _LIBC.connect(sock.fileno(), _NOWHERE, len(_NOWHERE)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    close(sock)


class Relay:
    """Listens on a free TCP port of `address` and forwards to `target`.

    `silence()` stops forwarding without closing: neither end notices by itself. New connections
    wait as well, until `resume()`. `hear` is told everything that passes.
    """

    def __init__(
        self,
        address: str,
        target: Target,
        hear: Callable[[bytes], None] = lambda _data: None,
    ) -> None:
        self.target = target
        self._hear = hear
        self._flowing = threading.Event()
        self._flowing.set()
        self._guard = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((address, 0), backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._spawn(self._accept)

    def cut(self) -> None:
        """Close every connection, both ends."""
        self._each(close)

    def reset(self) -> None:
        self._each(reset)

    def silence(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def close(self) -> None:
        close(self._listener)
        self.resume()
        self.cut()
        for thread in self._threads:
            thread.join(20)
        self._listener.close()

    def _each(self, end: Callable[[socket.socket], None]) -> None:
        with self._guard:
            for sock in self._sockets:
                end(sock)

    def _spawn(self, target: Callable[..., None], *words: socket.socket) -> None:
        thread = threading.Thread(target=target, args=words, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._flowing.wait()
            try:
                server = connect(self.target)
            except OSError:
                client.close()
                continue
            with self._guard:
                self._sockets += [client, server]
            self._spawn(self._forward, client, server)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        """Both directions, until one ends; then both are closed for good: a socket that is only
        shut down goes on taking what its peer sends, until the peer hangs."""
        back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
        back.start()
        self._pump(client, server)
        back.join()
        with self._guard:
            for sock in (client, server):
                self._sockets.remove(sock)
                sock.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                self._flowing.wait()
                self._hear(data)
                sink.sendall(data)
        for sock in (source, sink):
            close(sock)
