"""Packets: their header, and how a stream of bytes falls apart into them.

::

    0 length u32, of the whole packet    12 procedure i32    20 serial u32
    4 program u32                        16 type i32         24 status i32
    8 version u32                                            28 payload

Payloads are XDR, except for the raw bytes of streams, which are not padded.

A packet of a `..._WITH_FDS` type begins its payload with the number of descriptors. They follow
behind the packet, each with one byte that no length counts (libvirt 9.0, observed).
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from sterna.rpc.errors import ProtocolViolation
from sterna.xdr.compile import encode_into
from sterna.xdr.message import Message
from sterna.xdr.wire import WireError

HEADER = struct.Struct(">IIIiiIi")
HEADER_BYTES = 28
PACKET_BYTES_MAX = 33_554_436
"""libvirt 9.0 drops a connection that announces more (observed)."""
FDS_MAX = 32
"""Most descriptors that one packet may carry."""
STREAM_BYTES_MAX = 262_120
"""Most stream data libvirt puts into one packet; peers of any age take that much."""

_WORD = struct.Struct(">I")
_NO_FDS: tuple[int, ...] = ()


class PacketType(IntEnum):
    """What a packet is. Plain numbers on the wire: unknown ones are the session's business."""

    CALL = 0
    REPLY = 1
    MESSAGE = 2
    STREAM = 3
    CALL_WITH_FDS = 4
    REPLY_WITH_FDS = 5
    STREAM_HOLE = 6


class Status(IntEnum):
    """How it went; CONTINUE only occurs on streams."""

    OK = 0
    ERROR = 1
    CONTINUE = 2


class Packet(NamedTuple):
    """One whole packet. The payload is `data[start:]`; `data` is never shared with another."""

    program: int
    version: int
    procedure: int
    type: int
    serial: int
    status: int
    data: bytes
    start: int = HEADER_BYTES
    fds: tuple[int, ...] = _NO_FDS


def build(
    program: int,
    procedure: int,
    kind: PacketType,
    serial: int,
    *,
    status: Status = Status.OK,
    message: Message | None = None,
    raw: bytes = b"",
    fd_count: int | None = None,
    version: int = 1,
) -> bytearray:
    """A packet with a message or raw bytes as its payload.

    Raises:
        WireError: the message cannot be encoded, or the packet would be too long.
    """
    out = bytearray(HEADER_BYTES)
    if fd_count is not None:
        out += _WORD.pack(fd_count)
    if message is not None:
        encode_into(message, out)
    else:
        out += raw
    if len(out) > PACKET_BYTES_MAX:
        raise WireError("the packet would be too long")
    HEADER.pack_into(out, 0, len(out), program, version, procedure, kind, serial, status)
    return out


def stream_header(
    program: int, procedure: int, serial: int, data_bytes: int, *, version: int = 1
) -> bytes:
    """What goes before so many bytes of a stream's data: the rest of that packet."""
    length = HEADER_BYTES + data_bytes
    kind, status = PacketType.STREAM, Status.CONTINUE
    return HEADER.pack(length, program, version, procedure, kind, serial, status)


class Splitter:
    """Cuts received bytes into packets, however they were fragmented.

    Holds at most one incomplete packet and what one `feed` brought. Feed it only after
    `next_packet` has given None, unless the caller bounds what it feeds.

    Args:
        accept_fds: whether descriptors can arrive at all (unix sockets).
        bytes_max: the longest packet; less than the protocol allows where less is all there is.
    """

    def __init__(self, *, accept_fds: bool, bytes_max: int = PACKET_BYTES_MAX) -> None:
        self._accept_fds = accept_fds
        self.bytes_max = bytes_max
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self._fds: deque[int] = deque()
        self._incomplete: Packet | None = None  # whole but for its descriptors
        self._fds_missing = 0

    def feed(self, data: bytes, fds: Iterable[int] = _NO_FDS) -> None:
        """Take what one read gave. The descriptors now belong to the splitter."""
        self._fds.extend(fds)
        if self._at == len(self._buffer):
            self._buffer, self._at = data, 0
            return
        if isinstance(self._buffer, bytearray):
            del self._buffer[: self._at]
        else:
            # A bytearray grows in place: a packet sent byte by byte must not cost squared time.
            self._buffer = bytearray(memoryview(self._buffer)[self._at :])
        self._at = 0
        self._buffer += data

    def next_packet(self) -> Packet | None:
        """The next whole packet, or None until more is fed.

        Raises:
            ProtocolViolation: a length no packet may have, or descriptors where none belong.
        """
        if self._incomplete is not None:
            return self._collect_fds()
        buffer, at = self._buffer, self._at
        available = len(buffer) - at
        if available < HEADER_BYTES:
            if available >= 4:
                self._check_length(_WORD.unpack_from(buffer, at)[0])
            self._check_no_fds()
            return None
        length, program, version, procedure, kind, serial, status = HEADER.unpack_from(buffer, at)
        self._check_length(length)
        if available < length:
            self._check_no_fds()
            return None
        if isinstance(buffer, bytes) and len(buffer) == length:
            data = buffer
        else:
            data = bytes(memoryview(buffer)[at : at + length])
        self._at = at + length
        packet = Packet(program, version, procedure, kind, serial, status, data)
        if kind in (PacketType.CALL_WITH_FDS, PacketType.REPLY_WITH_FDS):
            return self._announce_fds(packet)
        return packet

    @property
    def empty(self) -> bool:
        """Whether everything fed has been given out."""
        return self._at == len(self._buffer) and self._incomplete is None

    def take_fds(self) -> list[int]:
        """Descriptors that no packet has claimed, for the caller to close at the end."""
        left = list(self._fds)
        if self._incomplete is not None:
            left.extend(self._incomplete.fds)
        self._fds.clear()
        self._incomplete = None
        return left

    def _check_length(self, length: int) -> None:
        if not HEADER_BYTES <= length <= self.bytes_max:
            raise ProtocolViolation(f"a packet of {length} bytes")

    def _check_no_fds(self) -> None:
        if self._fds:
            # They come with the bytes that follow a packet which announced them, never else.
            raise ProtocolViolation("file descriptors that no packet announced")

    def _announce_fds(self, packet: Packet) -> Packet | None:
        if len(packet.data) < HEADER_BYTES + 4:
            raise ProtocolViolation("a packet with file descriptors, without their number")
        (count,) = _WORD.unpack_from(packet.data, HEADER_BYTES)
        packet = packet._replace(start=HEADER_BYTES + 4)
        if count > FDS_MAX:
            raise ProtocolViolation(f"a packet with {count} file descriptors")
        if not count:
            return packet
        if not self._accept_fds:
            raise ProtocolViolation("file descriptors over a transport that has none")
        self._incomplete, self._fds_missing = packet, count
        return self._collect_fds()

    def _collect_fds(self) -> Packet | None:
        packet = self._incomplete
        assert packet is not None  # noqa: S101 - both callers have just seen to it
        while self._fds_missing:
            if self._at == len(self._buffer):
                return None
            if not self._fds:
                raise ProtocolViolation("a byte that should carry a file descriptor carries none")
            self._at += 1
            self._fds_missing -= 1
            packet = self._incomplete = packet._replace(fds=(*packet.fds, self._fds.popleft()))
        self._incomplete = None
        return packet
