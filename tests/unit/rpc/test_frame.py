"""Packets out of bytes, however they come; descriptors beside them; and what no packet may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sterna.rpc.errors import ProtocolViolation
from sterna.rpc.frame import (
    FDS_MAX,
    HEADER,
    HEADER_BYTES,
    PACKET_BYTES_MAX,
    Packet,
    PacketType,
    Splitter,
    Status,
    build,
)
from sterna.xdr import WireError


def packet(size: int = 0, serial: int = 0) -> bytes:
    return bytes(build(1, 2, PacketType.CALL, serial, raw=bytes(size)))


def with_fds(count: int, body: bytes = b"") -> bytes:
    return bytes(build(1, 2, PacketType.CALL_WITH_FDS, 0, raw=body, fd_count=count))


def split(splitter: Splitter) -> list[Packet]:
    return list(iter(splitter.next_packet, None))


@given(st.lists(st.integers(0, 300), max_size=6), st.lists(st.integers(1, 400), min_size=1))
def test_any_fragmentation(sizes: list[int], cuts: list[int]) -> None:
    stream = b"".join(packet(size, serial) for serial, size in enumerate(sizes))
    splitter = Splitter(accept_fds=True)
    found = []
    at = 0
    turn = 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        splitter.feed(stream[at : at + step])
        found += split(splitter)
        at, turn = at + step, turn + 1
    assert [p.serial for p in found] == list(range(len(sizes)))
    assert [len(p.data) - p.start for p in found] == sizes
    assert splitter.empty


def test_byte_by_byte() -> None:
    splitter = Splitter(accept_fds=False)
    stream = packet(5, 1) + packet(0, 2)
    found = []
    for byte in stream:
        splitter.feed(bytes([byte]))
        found += split(splitter)
    assert [p.serial for p in found] == [1, 2]


def test_header_fields() -> None:
    raw = build(1, 2, PacketType.REPLY, 3, status=Status.ERROR, raw=b"abcd", version=9)
    splitter = Splitter(accept_fds=False)
    splitter.feed(bytes(raw))
    (found,) = split(splitter)
    assert found == Packet(1, 9, 2, 1, 3, 1, bytes(raw))
    assert found.data[found.start :] == b"abcd"


@pytest.mark.parametrize("length", [0, 3, 4, 20, 27, PACKET_BYTES_MAX + 1, 0xFFFFFFFF])
def test_lengths_no_packet_has(length: int) -> None:
    splitter = Splitter(accept_fds=True)
    splitter.feed(length.to_bytes(4, "big"))
    with pytest.raises(ProtocolViolation):
        splitter.next_packet()


@pytest.mark.parametrize("length", [HEADER_BYTES, PACKET_BYTES_MAX])
def test_lengths_that_are_allowed(length: int) -> None:
    splitter = Splitter(accept_fds=True)
    splitter.feed(length.to_bytes(4, "big"))
    assert splitter.next_packet() is None


def test_the_largest_packet_arrives_in_pieces() -> None:
    splitter = Splitter(accept_fds=False)
    header = HEADER.pack(PACKET_BYTES_MAX, 1, 1, 2, 0, 7, 0)
    splitter.feed(header)
    piece = bytes(65_536)
    left = PACKET_BYTES_MAX - len(header)
    while left:
        assert splitter.next_packet() is None
        splitter.feed(piece[:left])
        left -= min(left, len(piece))
    found = splitter.next_packet()
    assert found is not None
    assert len(found.data) == PACKET_BYTES_MAX


def test_what_is_too_long_to_send() -> None:
    with pytest.raises(WireError):
        build(1, 2, PacketType.STREAM, 0, raw=bytes(PACKET_BYTES_MAX))


def test_descriptors_follow_their_packet_one_byte_each() -> None:
    splitter = Splitter(accept_fds=True)
    splitter.feed(with_fds(2, b"args") + b"\0", [11])
    assert splitter.next_packet() is None
    splitter.feed(b"\0", [12])
    splitter.feed(packet(0, 5))
    first, second = split(splitter)
    assert first.fds == (11, 12)
    assert first.data[first.start :] == b"args"
    assert second.serial == 5
    assert splitter.take_fds() == []


def test_two_packets_with_descriptors_in_one_go() -> None:
    splitter = Splitter(accept_fds=True)
    splitter.feed(with_fds(1) + b"\0" + with_fds(1) + b"\0", [11, 12])
    assert [p.fds for p in split(splitter)] == [(11,), (12,)]


def test_no_descriptors_announced_is_an_ordinary_call() -> None:
    splitter = Splitter(accept_fds=False)
    splitter.feed(with_fds(0, b"args"))
    (found,) = split(splitter)
    assert found.fds == ()
    assert found.data[found.start :] == b"args"


@pytest.mark.parametrize(
    ("raw", "fds", "accept"),
    [
        (packet(), [11], True),  # nobody announced it
        (packet()[:20], [11], True),
        (with_fds(1) + b"\0", [], True),  # the byte came without
        (with_fds(1), [], False),  # not over this transport
        (with_fds(FDS_MAX + 1), [], True),
        (with_fds(1) + b"\0", [11, 12], True),  # one too many
        (bytes(build(1, 2, PacketType.REPLY_WITH_FDS, 0)), [], True),  # without a number
    ],
)
def test_descriptors_where_none_belong(raw: bytes, fds: list[int], accept: bool) -> None:
    splitter = Splitter(accept_fds=accept)
    splitter.feed(raw, fds)
    with pytest.raises(ProtocolViolation):
        split(splitter)


def test_unclaimed_descriptors_are_handed_back() -> None:
    splitter = Splitter(accept_fds=True)
    splitter.feed(with_fds(3) + b"\0\0", [11, 12])
    assert splitter.next_packet() is None
    splitter.feed(b"", [13])
    assert sorted(splitter.take_fds()) == [11, 12, 13]
    assert splitter.take_fds() == []
