"""Whatever bytes arrive in whatever pieces: a session answers, drops or ends; it never raises,
never grows past its limits and never lends a descriptor it forgets.

`make fuzz` runs these for long.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from sterna.errors import OperationFailed
from sterna.rpc.calls import KEEPALIVE_PROGRAM, PROCEDURES, Procedure, procedure
from sterna.rpc.frame import HEADER, PacketType
from sterna.rpc.msg_common import Hole
from sterna.rpc.session import Call, Limits, ServerSession, StreamEnd, StreamInput, StreamState
from sterna.rpc.session_client import ClientSession
from sterna.xdr import encode
from support.wire import events, messages, take_output

LIMITS = Limits(
    calls_running_max=4,
    calls_running_extra=1,
    calls_waiting_max=8,
    call_bytes_max=64 * 1024,
    fds_max=8,
    output_bytes_high=16 * 1024,
    event_bytes_max=16 * 1024,
    output_bytes_max=128 * 1024,
    stream_bytes_max=16 * 1024,
)
STREAMS = [p for p in PROCEDURES if p.stream]
WORDS = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 28, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
SERIALS = st.integers(0, 3)


@st.composite
def packet(draw: st.DrawFn) -> bytes:
    """A packet: proper, nearly proper, or not at all."""
    which: Procedure = draw(st.sampled_from(PROCEDURES) | st.sampled_from(STREAMS))
    kind = draw(st.sampled_from(list(PacketType)) | st.just(PacketType.CALL))
    payload = b""
    if which.args is not None and draw(st.booleans()):
        payload = encode(draw(messages(which.args)))
    elif draw(st.booleans()):
        payload = draw(st.binary(max_size=64))
    if kind == PacketType.STREAM_HOLE and draw(st.booleans()):
        payload = encode(Hole(draw(st.integers(-1, 1 << 40)), 0))
    if kind in (PacketType.CALL_WITH_FDS, PacketType.REPLY_WITH_FDS):
        payload = struct.pack(">I", draw(st.integers(0, 3))) + payload
    program = draw(st.sampled_from([which.program] * 8 + [KEEPALIVE_PROGRAM, 77]))
    number = draw(st.sampled_from([which.number] * 8 + [1, 2, 100_000]))
    version = draw(st.sampled_from([1] * 8 + [0, 2]))
    status = draw(st.sampled_from([0] * 4 + [1, 2, 3, -1]))
    length = 28 + len(payload)
    if draw(st.integers(0, 20)) == 0:
        length = draw(WORDS)
    head = HEADER.pack(length, program, version, number, kind, draw(SERIALS), status)
    return head + payload


INPUT = st.lists(packet() | st.binary(max_size=40) | WORDS.map(lambda w: struct.pack(">I", w)))
CUTS = st.lists(st.integers(1, 100), min_size=1, max_size=8)


def pieces(raw: bytes, cuts: list[int]) -> list[bytes]:
    found, at = [], 0
    for turn in range(len(raw)):
        if at >= len(raw):
            break
        step = cuts[turn % len(cuts)]
        found.append(raw[at : at + step])
        at += step
    return found


class Daemon:
    """Serves what the fuzzer calls, by choices the fuzzer makes."""

    def __init__(self, choose: Callable[[int], int]) -> None:
        self.session = ServerSession(0.0, LIMITS, accept_fds=True)
        self.choose = choose
        self.running: list[Call] = []
        self.streams: list[StreamState] = []
        self.lent: set[int] = set()
        self.next_fd = 1000

    def receive(self, raw: bytes) -> None:
        if not self.session.wants_input:
            return
        fds = []
        if self.choose(4) == 0:
            fds.append(self.next_fd)
            self.next_fd += 1
        self.lent.update(fds)
        self.session.receive(raw, fds, 0.0)
        for event in events(self.session):
            if isinstance(event, Call):
                self.running.append(event)
            elif isinstance(event, StreamInput) and not isinstance(event.item, StreamEnd):
                assert isinstance(event.item, (bytes, Hole))
                self.session.stream_taken(event.item)
        self.act()
        self.check()

    def act(self) -> None:
        if self.running and self.choose(2):
            call = self.running.pop(self.choose(len(self.running)))
            if call.procedure.stream and call.stream is None and self.choose(2):
                key = (call.procedure.program, call.procedure.number, call.serial)
                if key not in self.session.streams:
                    self.streams.append(self.session.open_stream(call, sparse=bool(self.choose(2))))
            if call.procedure.ret is None:
                self.session.reply(call)
            else:
                self.session.reply_error(call, OperationFailed("fuzz"))
        for stream in self.streams:
            what = self.choose(12)
            if what == 0:
                self.session.stream_fail(stream, OperationFailed("fuzz"))
            elif what == 1:
                self.session.stream_eof(stream)
            elif what == 2 and stream.finishing:
                self.session.stream_confirm(stream)
        if self.choose(3) == 0:
            take_output(self.session)

    def check(self) -> None:
        session = self.session
        assert session.calls_running <= LIMITS.calls_running_max + LIMITS.calls_running_extra
        assert session.calls_running == len(self.running)
        assert session.calls_waiting <= LIMITS.calls_waiting_max
        assert session.output_bytes <= LIMITS.output_bytes_max
        self.lent.difference_update(session.take_unwanted_fds())

    def end(self) -> None:
        self.lent.difference_update(self.session.drop_fds())
        assert not self.lent, "descriptors were forgotten"


@given(INPUT, CUTS, st.data())
def test_a_server_survives_anything(
    parts: list[bytes], cuts: list[int], data: st.DataObject
) -> None:
    numbers = iter(data.draw(st.lists(st.integers(0, 1 << 16), min_size=1, max_size=64)) * 10_000)
    daemon = Daemon(lambda below: next(numbers) % below)
    for piece in pieces(b"".join(parts), cuts):
        daemon.receive(piece)
    daemon.end()


@given(INPUT, CUTS)
def test_a_client_survives_anything(parts: list[bytes], cuts: list[int]) -> None:
    session = ClientSession(0.0, LIMITS, accept_fds=True)
    for name in ("CONNECT_GET_HOSTNAME", "AUTH_LIST", "CONNECT_CLOSE"):
        session.call(procedure(name))
    take_output(session)
    for piece in pieces(b"".join(parts), cuts):
        if session.wants_input:
            session.receive(piece, (), 0.0)
        for event in events(session):
            if isinstance(event, StreamInput) and isinstance(event.item, (bytes, Hole)):
                session.stream_taken(event.item)
        assert session.output_bytes <= LIMITS.output_bytes_max


@given(INPUT)
def test_cutting_changes_nothing(parts: list[bytes]) -> None:
    """The same bytes whole or byte by byte get the same answer."""
    raw = b"".join(parts)
    whole = ServerSession(0.0, accept_fds=False)
    whole.receive(raw, (), 0.0)
    calls = [repr(event) for event in events(whole)]
    single = ServerSession(0.0, accept_fds=False)
    found = []
    for byte in raw:
        single.receive(bytes([byte]), (), 0.0)
        found += [repr(event) for event in events(single)]
    assert found == calls
    assert str(single.failure) == str(whole.failure)
    assert take_output(single) == take_output(whole)
