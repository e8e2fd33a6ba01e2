"""Streams: every rule, from both ends. What is answered to whom is libvirt 9.0's (observed)."""

from __future__ import annotations

from typing import Any

import pytest

from sterna.errors import OperationFailed
from sterna.rpc.calls import procedure
from sterna.rpc.errors import LocalMistake, ProtocolViolation, StreamClosed
from sterna.rpc.frame import STREAM_BYTES_MAX, Packet, PacketType, Status
from sterna.rpc.msg_common import Dom, ErrorBody, Hole, Vol
from sterna.rpc.msg_device import DomainOpenConsoleArgs
from sterna.rpc.msg_storage import StorageVolDownloadArgs, StorageVolUploadArgs
from sterna.rpc.session import Limits, ServerSession, StreamEnd, StreamInput, StreamState
from sterna.rpc.session_client import ClientSession, Replied
from sterna.xdr import decode, encode
from support.wire import (
    call_packet,
    client,
    events,
    packets,
    server,
    stream_packet,
    take_output,
)

VOL = Vol("p", "v", "/v")
ARGS = {
    "DOMAIN_OPEN_CONSOLE": DomainOpenConsoleArgs(Dom("g", bytes(16), 1), None, 0),
    "STORAGE_VOL_UPLOAD": StorageVolUploadArgs(VOL, 0, 0, 1),
    "STORAGE_VOL_DOWNLOAD": StorageVolDownloadArgs(VOL, 0, 0, 1),
}
CONSOLE, UPLOAD, DOWNLOAD = ARGS
OK, ERROR, CONTINUE = Status.OK, Status.ERROR, Status.CONTINUE


def opened(
    name: str, *, sparse: bool = False, limits: Limits | None = None
) -> tuple[ServerSession, StreamState]:
    """A daemon's session with one stream, serial 5, whose call is answered."""
    session = server(limits)
    session.receive(call_packet(name, ARGS[name], serial=5), (), 0.0)
    (call,) = events(session)
    stream = session.open_stream(call, sparse=sparse)
    session.reply(call)
    take_output(session)
    return session, stream


def feed(session: ServerSession | ClientSession, raw: bytes) -> list[Any]:
    session.receive(raw, (), 0.0)
    return [event.item for event in events(session) if isinstance(event, StreamInput)]


def sent(session: ServerSession | ClientSession) -> list[Packet]:
    return packets(take_output(session))


def shape(session: ServerSession | ClientSession) -> list[tuple[int, int, bytes]]:
    return [(p.type, p.status, p.data[p.start :]) for p in sent(session)]


def test_upload() -> None:
    session, stream = opened(UPLOAD)
    assert feed(session, stream_packet(UPLOAD, 5, b"abc")) == [b"abc"]
    assert feed(session, stream_packet(UPLOAD, 5)) == []  # no data is nothing
    assert feed(session, stream_packet(UPLOAD, 5, status=OK)) == [StreamEnd.FINISHED]
    assert shape(session) == []
    session.stream_confirm(stream)
    assert shape(session) == [(PacketType.STREAM, OK, b"")]
    session.stream_confirm(stream)
    assert feed(session, stream_packet(UPLOAD, 5, b"late")) == []
    assert shape(session) == []


def test_download() -> None:
    session, stream = opened(DOWNLOAD)
    session.stream_send(stream, b"abc")
    session.stream_eof(stream)
    session.stream_eof(stream)
    assert shape(session) == [
        (PacketType.STREAM, CONTINUE, b"abc"),
        (PacketType.STREAM, CONTINUE, b""),
    ]
    assert feed(session, stream_packet(DOWNLOAD, 5, status=OK)) == [StreamEnd.FINISHED]
    assert shape(session) == [(PacketType.STREAM, OK, b"")]
    assert stream.ended


def test_a_client_may_finish_a_download_early() -> None:
    session, stream = opened(DOWNLOAD)
    assert feed(session, stream_packet(DOWNLOAD, 5, b"nobody reads this")) == []
    assert feed(session, stream_packet(DOWNLOAD, 5, status=OK)) == [StreamEnd.FINISHED]
    assert shape(session) == [(PacketType.STREAM, OK, b"")]
    with pytest.raises(StreamClosed):
        session.stream_send(stream, b"x")


def test_an_abort_is_confirmed_with_ok_once() -> None:
    session, stream = opened(CONSOLE)
    assert feed(session, stream_packet(CONSOLE, 5, status=ERROR)) == [StreamEnd.ABORTED]
    assert shape(session) == [(PacketType.STREAM, OK, b"")]
    assert feed(session, stream_packet(CONSOLE, 5, status=ERROR)) == []
    session.stream_fail(stream, OperationFailed("late"))
    assert shape(session) == []


def test_an_abort_after_a_finish() -> None:
    session, _ = opened(UPLOAD)
    feed(session, stream_packet(UPLOAD, 5, status=OK))
    assert feed(session, stream_packet(UPLOAD, 5, status=ERROR)) == [StreamEnd.ABORTED]
    assert len(sent(session)) == 1


def test_after_our_error_nothing_is_answered() -> None:
    session, stream = opened(UPLOAD)
    session.stream_fail(stream, OperationFailed("full"))
    (packet,) = sent(session)
    assert (packet.type, packet.status) == (PacketType.STREAM, ERROR)
    assert decode(ErrorBody, packet.data, packet.start).message == "operation failed: full"
    for status, raw in ((CONTINUE, b"x"), (OK, b""), (ERROR, b"")):
        assert feed(session, stream_packet(UPLOAD, 5, raw, status=status)) == []
    assert shape(session) == []


def test_a_console_ends_from_both_sides() -> None:
    session, stream = opened(CONSOLE)
    session.stream_send(stream, b"login: ")
    assert feed(session, stream_packet(CONSOLE, 5, b"root")) == [b"root"]
    session.stream_eof(stream)
    assert len(sent(session)) == 2
    assert feed(session, stream_packet(CONSOLE, 5, status=OK)) == [StreamEnd.FINISHED]
    assert shape(session) == [(PacketType.STREAM, OK, b"")]
    session, stream = opened(CONSOLE)
    assert feed(session, stream_packet(CONSOLE, 5, status=OK)) == [StreamEnd.FINISHED]
    assert feed(session, stream_packet(CONSOLE, 5, b"late")) == []
    with pytest.raises(StreamClosed):
        session.stream_send(stream, b"x")
    session.stream_eof(stream)  # the guest stops just now: that confirms
    assert shape(session) == [(PacketType.STREAM, OK, b"")]


def test_no_confirmation_unasked() -> None:
    session, stream = opened(UPLOAD)
    with pytest.raises(LocalMistake):
        session.stream_confirm(stream)


def test_data_has_bounds() -> None:
    session, stream = opened(DOWNLOAD)
    for size in (0, STREAM_BYTES_MAX + 1):
        with pytest.raises(LocalMistake):
            session.stream_send(stream, bytes(size))
    session.stream_eof(stream)
    with pytest.raises(LocalMistake):
        session.stream_send(stream, b"x")


def hole(serial: int, length: int = 1 << 20, **header: Any) -> bytes:
    raw = header.pop("raw", None)
    body = encode(Hole(length, 0)) if raw is None else raw
    return stream_packet(UPLOAD, serial, body, kind=PacketType.STREAM_HOLE, **header)


def test_holes_on_a_sparse_stream() -> None:
    session, stream = opened(UPLOAD, sparse=True)
    assert feed(session, hole(5)) == [Hole(1 << 20, 0)]
    session.stream_send_hole(stream, 7)
    assert shape(session) == [(PacketType.STREAM_HOLE, CONTINUE, encode(Hole(7, 0)))]


@pytest.mark.parametrize(
    ("raw", "sparse"), [(hole(5), False), (hole(5, raw=b"123"), True), (hole(5, -1), True)]
)
def test_bad_holes_end_the_connection(raw: bytes, sparse: bool) -> None:
    session, _ = opened(UPLOAD, sparse=sparse)
    assert feed(session, raw) == []
    assert isinstance(session.failure, ProtocolViolation)


def test_a_hole_is_not_sent_where_none_may_be() -> None:
    session, stream = opened(DOWNLOAD)
    with pytest.raises(LocalMistake):
        session.stream_send_hole(stream, 7)


def test_odd_packets_of_a_stream_are_dropped() -> None:
    session, _ = opened(UPLOAD)
    assert feed(session, stream_packet(UPLOAD, 5, b"x", status=7)) == []
    assert feed(session, stream_packet(UPLOAD, 5, b"x", version=2)) == []
    assert feed(session, stream_packet(UPLOAD, 6, b"x")) == []
    assert feed(session, stream_packet(DOWNLOAD, 5, b"x")) == []
    assert session.failure is None


def test_only_stream_calls_open_streams_and_only_one() -> None:
    session = server()
    session.receive(call_packet("CONNECT_GET_HOSTNAME"), (), 0.0)
    (call,) = events(session)
    with pytest.raises(LocalMistake):
        session.open_stream(call)
    session, _ = opened(UPLOAD)
    session.receive(call_packet(UPLOAD, ARGS[UPLOAD], serial=5), (), 0.0)
    (call,) = events(session)
    with pytest.raises(StreamClosed):
        session.open_stream(call)


def test_an_error_reply_takes_the_stream_along() -> None:
    session = server()
    session.receive(call_packet(UPLOAD, ARGS[UPLOAD], serial=5), (), 0.0)
    (call,) = events(session)
    stream = session.open_stream(call)
    session.reply_error(call, OperationFailed("no"))
    assert stream.ended
    assert not session.streams
    assert [p.type for p in sent(session)] == [PacketType.REPLY]


def test_input_nobody_takes_stays_in_the_socket() -> None:
    session, _ = opened(UPLOAD, limits=Limits(stream_bytes_max=1000))
    items = feed(session, stream_packet(UPLOAD, 5, bytes(100)) * 50)
    assert len(items) < 10
    assert not session.wants_input
    taken = len(items)
    while items:
        session.stream_taken(items.pop())
        more = [event.item for event in events(session)]
        taken += len(more)
        items += more
    assert taken == 50
    assert session.wants_input


def test_tiny_items_count_too() -> None:
    session, _ = opened(UPLOAD, sparse=True, limits=Limits(stream_bytes_max=10_000))
    assert len(feed(session, (stream_packet(UPLOAD, 5, b"x") + hole(5)) * 1000)) < 100


# -- the client's end


def calling(name: str, *, sparse: bool = False) -> tuple[ClientSession, StreamState]:
    session = client()
    serial, stream = session.call(procedure(name), ARGS[name], sparse=sparse)
    assert stream is not None
    assert serial == 0
    take_output(session)
    return session, stream


def test_data_may_come_ahead_of_the_reply() -> None:
    session, stream = calling(DOWNLOAD)
    session.receive(
        stream_packet(DOWNLOAD, 0, b"data")
        + stream_packet(DOWNLOAD, 0)
        + call_packet(DOWNLOAD, kind=PacketType.REPLY),
        (),
        0.0,
    )
    assert list(events(session)) == [
        StreamInput(stream, b"data"),
        StreamInput(stream, StreamEnd.EOF),
        Replied(0),
    ]
    session.stream_finish(stream)
    assert shape(session) == [(PacketType.STREAM, OK, b"")]
    assert feed(session, stream_packet(DOWNLOAD, 0, status=OK)) == [StreamEnd.CONFIRMED]
    assert stream.ended


def test_a_client_uploads_and_finishes() -> None:
    session, stream = calling(UPLOAD, sparse=True)
    session.stream_send(stream, b"x")
    session.stream_send_hole(stream, 9)
    session.stream_finish(stream)
    assert [p[0] for p in shape(session)] == [3, 6, 3]
    with pytest.raises(StreamClosed):
        session.stream_send(stream, b"x")
    session.stream_abort(stream)
    assert shape(session) == []


def test_a_client_aborts() -> None:
    session, stream = calling(CONSOLE)
    session.stream_abort(stream)
    assert shape(session) == [(PacketType.STREAM, ERROR, b"")]
    # Data that was under way is dropped.
    assert feed(session, stream_packet(CONSOLE, 0, b"late")) == []
    assert feed(session, stream_packet(CONSOLE, 0, status=OK)) == [StreamEnd.CONFIRMED]


def test_the_servers_error_ends_the_stream() -> None:
    daemon, theirs = opened(UPLOAD)
    daemon.stream_fail(theirs, OperationFailed("disk full"))
    session, stream = calling(UPLOAD)
    while stream.key[2] != 5:
        _, other = session.call(procedure(UPLOAD), ARGS[UPLOAD])
        assert other is not None
        stream = other
    (item,) = feed(session, take_output(daemon))
    assert isinstance(item, OperationFailed)
    assert stream.ended
    with pytest.raises(StreamClosed):
        session.stream_send(stream, b"x")


def test_a_refused_call_leaves_no_stream() -> None:
    session, stream = calling(UPLOAD)
    session.receive(call_packet(UPLOAD, kind=PacketType.REPLY, status=ERROR), (), 0.0)
    list(events(session))
    assert stream.ended
    assert not session.streams


def test_an_unasked_confirmation_is_fatal() -> None:
    session, _ = calling(CONSOLE)
    assert feed(session, stream_packet(CONSOLE, 0, status=OK)) == []
    assert isinstance(session.failure, ProtocolViolation)
