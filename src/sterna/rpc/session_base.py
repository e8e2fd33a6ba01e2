"""What both roles of a session share: input, output, keepalive, streams, limits. No I/O, no clock.

The contract with whoever moves the bytes:

1. give `receive` what was read (only while `wants_input`), then call `next_event` until None;
2. after that, and after any call that may send, take from `output` and count what left with
   `sent`;
3. call `tick` at `deadline`;
4. when `failure` is set, the connection is over: send what `output` holds if it goes at once,
   and close.

Nothing a peer sends raises out of here; a breach of the protocol becomes `failure`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from sterna.errors import SternaError
from sterna.rpc.calls import KEEPALIVE_PROGRAM, PROTOCOL_VERSION, Keepalive, Procedure
from sterna.rpc.errors import LocalMistake, ProtocolViolation, RpcFailure, StreamClosed
from sterna.rpc.frame import (
    PACKET_BYTES_MAX,
    STREAM_BYTES_MAX,
    Packet,
    PacketType,
    Splitter,
    Status,
    build,
    stream_header,
)
from sterna.rpc.keepalive import Due, KeepaliveTimer
from sterna.rpc.msg_common import Hole
from sterna.xdr.compile import decode
from sterna.xdr.message import Message
from sterna.xdr.wire import WireError

MIB = 1024 * 1024
_ITEM_OVERHEAD_BYTES = 128


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may hold. No peer can make us keep more than these."""

    packet_bytes_max: int = PACKET_BYTES_MAX
    """The protocol's own limit."""
    calls_running_max: int = 32
    """Calls handed out and not yet answered. libvirtd has 5; ours cost no thread."""
    calls_running_extra: int = 8
    """This many more if they are of high priority: reads never wait (L6)."""
    calls_waiting_max: int = 1024
    """Calls read while too many run. Reading goes on so that pings are still answered."""
    call_bytes_max: int = 40 * MIB
    """Of all those calls. One call may be 32 MiB."""
    fds_max: int = 64
    """Descriptors of all those calls."""
    output_bytes_high: int = MIB
    """With this much unsent, no more is read: a client that does not read is not served."""
    event_bytes_max: int = 8 * MIB
    """With this much unsent, the next event ends the connection: it will not catch up."""
    output_bytes_max: int = 64 * MIB
    """The same for a reply, unless nothing else is unsent."""
    stream_bytes_max: int = MIB
    """Stream data read and not yet taken; more than that stays in the socket."""


class FdByte(NamedTuple):
    """One descriptor to send, with a byte of its own. Whoever sends it closes it."""

    fd: int


_SENT_APART_BYTES = 4096
"""Data from this size on leaves behind its header instead of being copied into one packet."""

Chunk = bytes | bytearray | memoryview | FdByte


class StreamEnd(Enum):
    """How a stream's input ends."""

    EOF = "eof"
    """The server has no more data (client side)."""
    FINISHED = "finished"
    """The client is done and wants that confirmed (server side)."""
    CONFIRMED = "confirmed"
    """The server confirmed our finish or abort (client side)."""
    ABORTED = "aborted"
    """The client gave up (server side)."""


StreamItem = bytes | Hole | StreamEnd | SternaError
StreamKey = tuple[int, int, int]


class StreamState:
    """One open stream: which call opened it, and how far it has come."""

    __slots__ = ("ended", "eof_sent", "finishing", "key", "procedure", "sparse")

    def __init__(self, procedure: Procedure, serial: int, *, sparse: bool) -> None:
        self.key: StreamKey = (procedure.program, procedure.number, serial)
        self.procedure = procedure
        self.sparse = sparse
        self.eof_sent = False
        self.finishing = False
        self.ended = False


class StreamInput(NamedTuple):
    """Something arrived on a stream."""

    stream: StreamState
    item: StreamItem


class BaseSession:
    """State and rules that do not depend on the role."""

    def __init__(self, now: float, limits: Limits, *, accept_fds: bool) -> None:
        self.limits = limits
        self.failure: RpcFailure | None = None
        self.output: deque[Chunk] = deque()
        self.output_bytes = 0
        self.keepalive = KeepaliveTimer(now)
        self.streams: dict[StreamKey, StreamState] = {}
        self._splitter = Splitter(accept_fds=accept_fds, bytes_max=limits.packet_bytes_max)
        self._stream_bytes = 0
        self._unwanted_fds: list[int] = []
        self._sent_since_tick = False

    def widen(self, limits: Limits) -> None:
        """Other limits from now on, for a peer that is trusted with more."""
        self.limits = limits
        self._splitter.bytes_max = limits.packet_bytes_max

    # -- input

    def receive(self, data: bytes, fds: Iterable[int], now: float) -> None:
        """Take what was read from the socket. The descriptors now belong to the session."""
        self.keepalive.heard(now)
        self._splitter.feed(data, fds)

    @property
    def wants_input(self) -> bool:
        """Whether more should be read. False while the limits are reached."""
        return self.failure is None and not self._full()

    @property
    def has_unparsed(self) -> bool:
        """Whether bytes were received that no event has come of yet."""
        return not self._splitter.empty

    def next_event(self) -> object | None:
        """The next thing that arrived; None until there is more."""
        raise NotImplementedError

    def _full(self) -> bool:
        return (
            self.output_bytes >= self.limits.output_bytes_high
            or self._stream_bytes >= self.limits.stream_bytes_max
        )

    def _next_packet(self) -> Packet | None:
        """The next packet that is not keepalive's; pings are answered on the way."""
        while self.failure is None and not self._full():
            try:
                packet = self._splitter.next_packet()
            except ProtocolViolation as breach:
                self.fail(breach)
                return None
            if packet is None or packet.program != KEEPALIVE_PROGRAM:
                return packet
            self._keepalive_packet(packet)
        return None

    def _keepalive_packet(self, packet: Packet) -> None:
        # Unknown keepalive procedures are ignored, as libvirt 9.0 does (observed).
        self._unwanted_fds.extend(packet.fds)
        if packet.type == PacketType.MESSAGE and packet.procedure == Keepalive.PING:
            self._send_keepalive(Keepalive.PONG)

    def fail(self, why: RpcFailure) -> None:
        """The connection is over. The first reason stays."""
        if self.failure is None:
            self.failure = why

    def take_unwanted_fds(self) -> list[int]:
        """Descriptors that nobody took, for whoever does I/O to close."""
        fds, self._unwanted_fds = self._unwanted_fds, []
        return fds

    def drop_fds(self) -> list[int]:
        """All descriptors the session still holds, to be closed; the connection has ended."""
        queued = [chunk.fd for chunk in self.output if isinstance(chunk, FdByte)]
        self.output.clear()
        self.output_bytes = 0
        return self.take_unwanted_fds() + self._splitter.take_fds() + queued

    # -- output

    def sent(self, count: int) -> None:
        """`count` bytes of `output` went to the socket, and were taken from it."""
        self.output_bytes -= count
        self._sent_since_tick = True

    def _send(self, chunk: bytes | bytearray) -> None:
        self.output.append(chunk)
        self.output_bytes += len(chunk)

    def _send_fds(self, fds: Iterable[int]) -> None:
        for fd in fds:
            self.output.append(FdByte(fd))
            self.output_bytes += 1

    def _send_bounded(self, chunk: bytes | bytearray, bytes_max: int) -> bool:
        """Send, unless too much is unsent already: then the connection ends."""
        if self.failure is not None:
            return False
        if self.output_bytes and self.output_bytes + len(chunk) > bytes_max:
            self.fail(RpcFailure("the peer does not read what it is sent"))
            return False
        self._send(chunk)
        return True

    def _send_keepalive(self, procedure: Keepalive) -> None:
        self._send(build(KEEPALIVE_PROGRAM, procedure, PacketType.MESSAGE, 0))

    # -- time

    def deadline(self) -> float | None:
        """When to call `tick` next; None if nothing is waited for."""
        return self.keepalive.deadline() if self.failure is None else None

    def tick(self, now: float) -> None:
        """A ping goes out or the connection ends, if it is time."""
        if self.failure is not None:
            return
        sent, self._sent_since_tick = self._sent_since_tick, False
        if self._full() and (sent or self.output_bytes < self.limits.output_bytes_high):
            # We do not read, so its silence proves nothing. Unless it is we who wait for it to
            # read, and it does not.
            self.keepalive.heard(now)
            return
        match self.keepalive.tick(now):
            case Due.PING:
                self._send_keepalive(Keepalive.PING)
            case Due.DEAD:
                self.fail(RpcFailure("the peer fell silent: keepalive got no answer"))
            case Due.NOTHING:
                pass

    # -- streams

    def stream_taken(self, item: bytes | Hole) -> None:
        """A reader took this from a stream's input, or nobody will."""
        self._stream_bytes -= _cost(item)

    def stream_send(self, stream: StreamState, data: bytes) -> None:
        """Send one packet of data, at most `STREAM_BYTES_MAX` bytes and at least one."""
        self._sendable(stream)
        if not 0 < len(data) <= STREAM_BYTES_MAX:
            raise LocalMistake(f"{len(data)} bytes in one stream packet")
        if len(data) < _SENT_APART_BYTES:
            self._stream_packet(stream, Status.CONTINUE, raw=data)
            return
        header = stream_header(*stream.key, len(data))
        if self._send_bounded(header, self.limits.output_bytes_max - len(data)):
            self._send(data)

    def stream_send_hole(self, stream: StreamState, length: int) -> None:
        """Send a hole of `length` bytes. Only for streams opened as sparse."""
        self._sendable(stream)
        if not stream.sparse:
            raise LocalMistake("a hole on a stream that is not sparse")
        self._stream_packet(
            stream, Status.CONTINUE, kind=PacketType.STREAM_HOLE, message=Hole(length, 0)
        )

    def _sendable(self, stream: StreamState) -> None:
        if stream.ended or stream.finishing or self.failure is not None:
            raise StreamClosed("the stream has ended")
        if stream.eof_sent:
            raise LocalMistake("data behind the end of a stream")

    def _stream_packet(
        self,
        stream: StreamState,
        status: Status,
        *,
        kind: PacketType = PacketType.STREAM,
        message: Message | None = None,
        raw: bytes = b"",
    ) -> None:
        program, number, serial = stream.key
        packet = build(program, number, kind, serial, status=status, message=message, raw=raw)
        self._send_bounded(packet, self.limits.output_bytes_max)

    def _end_stream(self, stream: StreamState) -> None:
        stream.ended = True
        self.streams.pop(stream.key, None)

    def _stream_for(self, packet: Packet) -> StreamState | None:
        if packet.version != PROTOCOL_VERSION:
            return None
        return self.streams.get((packet.program, packet.procedure, packet.serial))

    def _stream_data(self, stream: StreamState, packet: Packet) -> StreamInput | None:
        """Data or a hole; None if the packet carries nothing."""
        if packet.type == PacketType.STREAM_HOLE:
            if not stream.sparse:
                # libvirt 9.0 ends the connection for this (observed).
                self.fail(ProtocolViolation("a hole on a stream that is not sparse"))
                return None
            try:
                hole = decode(Hole, packet.data, packet.start)
            except WireError:
                self.fail(ProtocolViolation("a hole without its length"))
                return None
            if hole.length < 0:
                self.fail(ProtocolViolation("a hole of negative length"))
                return None
            self._stream_bytes += _cost(hole)
            return StreamInput(stream, hole)
        data = packet.data[packet.start :]
        if not data:
            return None
        self._stream_bytes += _cost(data)
        return StreamInput(stream, data)


def _cost(item: bytes | Hole) -> int:
    """What keeping an item takes: many tiny ones must count too."""
    return _ITEM_OVERHEAD_BYTES + (0 if isinstance(item, Hole) else len(item))
