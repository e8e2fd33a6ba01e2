"""Stands between a client and a daemon, understands where packets begin and end, and does harm."""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from support.relay import Target, close, connect, reset

HEADER = struct.Struct(">7I")
REMOTE_PROGRAM = 0x20008086
KEEPALIVE_PROGRAM = 0x6B656570
ACCEPT_BACKLOG = 16


class Kind(enum.IntEnum):
    """Packet types of the wire."""

    CALL = 0
    REPLY = 1
    MESSAGE = 2
    STREAM = 3
    CALL_WITH_FDS = 4
    REPLY_WITH_FDS = 5
    STREAM_HOLE = 6


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet that passed: its header's fields, its whole bytes, when (monotonic clock, ns)."""

    at_ns: int
    connection: int
    program: int
    procedure: int
    kind: Kind
    serial: int
    status: int
    data: bytes = field(repr=False)

    def is_call(self, procedure: int, program: int = REMOTE_PROGRAM) -> bool:
        return (self.program, self.procedure, self.kind) == (program, procedure, Kind.CALL)

    def is_reply(self, procedure: int, program: int = REMOTE_PROGRAM) -> bool:
        return (self.program, self.procedure, self.kind) == (program, procedure, Kind.REPLY)


class Cut(Exception):
    """Raised by a rule: both sides of this connection are closed at once, the packet is lost."""


Rule = Callable[[Packet], bytes | None]
"""What a packet becomes: its bytes, other bytes, or None: swallowed. May wait, or raise Cut."""


@dataclass(slots=True)
class Gate:
    """A rule: packets of that procedure and kind wait here; opened, the first is cut or passes."""

    procedure: int
    kind: Kind = Kind.CALL
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)
    cuts: bool = True

    def __call__(self, packet: Packet) -> bytes:
        which = (packet.program, packet.procedure, packet.kind)
        if which == (REMOTE_PROGRAM, self.procedure, self.kind) and not self.opened.is_set():
            self.reached.set()
            self.opened.wait(60)
            if self.cuts:
                raise Cut
        return packet.data

    def wait_reached(self) -> None:
        assert self.reached.wait(30), f"procedure {self.procedure} was never called"


class Proxy:
    """A unix socket at `path` that forwards to `target`.

    `rule` sees every packet of both directions, in one thread for each direction of a connection: a
    rule that waits delays its direction only. `packets` keeps what passed. Descriptors are not
    forwarded. `silence()` stops forwarding without closing: what a cut cable looks like.
    """

    def __init__(self, path: Path, target: Target, rule: Rule | None = None) -> None:
        self.path = path
        self.target = target
        self.rule: Rule = rule or (lambda packet: packet.data)
        self.packets: list[Packet] = []
        self._news = threading.Condition()
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.bind(str(path))
        self._listener.listen(ACCEPT_BACKLOG)
        self._spawn(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def uri(self) -> str:
        """For clients."""
        return f"qemu+unix:///system?socket={self.path}"

    def cut(self) -> None:
        """Close every connection, both sides."""
        self._each(close)

    def reset(self) -> None:
        """The same with a RST, where the target is TCP."""
        self._each(reset)

    def _each(self, end: Callable[[socket.socket], None]) -> None:
        with self._news:
            for sock in self._sockets:
                end(sock)

    def silence(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def close(self) -> None:
        self._closed = True
        close(self._listener)
        self.resume()
        self.cut()
        for thread in self._threads:
            thread.join(20)
        self._listener.close()
        for sock in self._sockets:
            sock.close()
        self.path.unlink(missing_ok=True)

    def wait_packet(self, wanted: Callable[[Packet], bool], timeout_s: float = 20) -> Packet:
        """The first packet that passed, or passes, of that sort; TimeoutError otherwise."""
        with self._news:
            found: list[Packet] = []

            def seen() -> bool:
                found[:] = [packet for packet in self.packets if wanted(packet)]
                return bool(found)

            if not self._news.wait_for(seen, timeout_s):
                raise TimeoutError(f"no such packet within {timeout_s} s")
            return found[0]

    def _spawn(self, target: Callable[..., None], *words: object) -> None:
        thread = threading.Thread(target=target, args=words, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        connection = 0
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = connect(self.target)
            except OSError:
                client.close()
                continue
            with self._news:
                self._sockets += [client, server]
            self._spawn(self._pump, client, server, connection)
            self._spawn(self._pump, server, client, connection)
            connection += 1

    def _pump(self, source: socket.socket, sink: socket.socket, connection: int) -> None:
        with contextlib.suppress(OSError, Cut), source.makefile("rb") as stream:
            while packet := self._read(stream.read, connection):
                self._flowing.wait()
                data = self.rule(packet)
                with self._news:
                    self.packets.append(packet)
                    self._news.notify_all()
                if data:
                    sink.sendall(data)
        for sock in (source, sink):
            close(sock)

    def _read(self, read: Callable[[int], bytes], connection: int) -> Packet | None:
        head = read(HEADER.size)
        if len(head) < HEADER.size:
            return None
        length, program, _, procedure, kind, serial, status = HEADER.unpack(head)
        body = read(length - HEADER.size)
        if len(body) < length - HEADER.size:
            return None
        at_ns = time.monotonic_ns()
        return Packet(
            at_ns, connection, program, procedure, Kind(kind), serial, status, head + body
        )
