"""Calls and replies in both roles; bad packets; limits. Answers are libvirtd 9.0's (observed)."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from sterna.errors import NoDomain, RpcError, SternaError
from sterna.rpc.calls import QEMU_PROGRAM, REMOTE_PROGRAM, procedure
from sterna.rpc.errors import LocalMistake, ProtocolViolation
from sterna.rpc.frame import PacketType, Status, build
from sterna.rpc.msg_common import Dom, ErrorBody
from sterna.rpc.msg_connect import (
    ConnectGetCapabilitiesRet,
    ConnectGetHostnameRet,
    ConnectSupportsFeatureArgs,
    ConnectSupportsFeatureRet,
)
from sterna.rpc.msg_domain import DomainLookupByNameArgs, DomainLookupByNameRet
from sterna.rpc.msg_event import DomainEventCallbackLifecycleMsg, DomainEventLifecycleMsg
from sterna.rpc.session import Call, Limits, ServerSession
from sterna.rpc.session_client import EventReceived, Replied
from sterna.xdr import WireError, decode
from support.wire import call_packet, client, events, packets, server, take_output

DOM = Dom("g", bytes(16), 3)
LIFECYCLE = procedure("DOMAIN_EVENT_CALLBACK_LIFECYCLE")


def feed(session: ServerSession, raw: bytes) -> list[Any]:
    session.receive(raw, (), 0.0)
    return list(events(session))


def error_of(raw: bytes) -> ErrorBody:
    (packet,) = packets(raw)
    assert (packet.type, packet.status) == (PacketType.REPLY, Status.ERROR)
    return decode(ErrorBody, packet.data, packet.start)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (call_packet("AUTH_LIST", number=9999), "unknown procedure: 9999"),
        (call_packet("AUTH_LIST", number=318), "unknown procedure: 318"),  # an event
        (call_packet("AUTH_LIST", program=5), "Cannot find program 5 version 1"),
        (
            call_packet("AUTH_LIST", version=2),
            f"Cannot find program {REMOTE_PROGRAM} version 2",
        ),
        (call_packet("AUTH_LIST", status=Status.ERROR), "Unexpected message status 1"),
        (call_packet("DOMAIN_LOOKUP_BY_NAME"), "Unable to decode message payload"),
        (
            call_packet("DOMAIN_LOOKUP_BY_NAME", raw=b"\xff\xff\xff\xff"),
            "Unable to decode message payload",
        ),
    ],
)
def test_bad_calls_get_libvirtds_answers(raw: bytes, text: str) -> None:
    session = server()
    assert feed(session, raw) == []
    body = error_of(take_output(session))
    assert (body.code, body.domain, body.level, body.message) == (39, 7, 2, text)
    assert session.failure is None
    assert session.calls_running == 0
    assert len(feed(session, call_packet("AUTH_LIST"))) == 1


@pytest.mark.parametrize(
    "kind",
    [
        PacketType.REPLY,
        PacketType.MESSAGE,
        PacketType.STREAM,
        PacketType.STREAM_HOLE,
        17,
        -1,
    ],
)
def test_what_is_no_call_is_dropped(kind: int) -> None:
    session = server()
    assert feed(session, call_packet("DOMAIN_OPEN_CONSOLE", kind=kind)) == []
    assert not session.output
    assert session.failure is None


@pytest.mark.parametrize("length", [0, 27, 33_554_437])
def test_a_bad_length_ends_the_connection(length: int) -> None:
    session = server()
    assert len(feed(session, call_packet("AUTH_LIST") + struct.pack(">I", length))) == 1
    assert isinstance(session.failure, ProtocolViolation)
    assert not session.wants_input
    assert feed(session, call_packet("AUTH_LIST")) == []


def test_trailing_bytes_are_accepted() -> None:
    raw = call_packet("CONNECT_SUPPORTS_FEATURE", raw=struct.pack(">II", 10, 99))
    (call,) = feed(server(), raw)
    assert call.args == ConnectSupportsFeatureArgs(10)


def test_replies_may_come_in_any_order_and_serials_are_only_echoed() -> None:
    session = server()
    serials = (7, 7, 0, 0xFFFFFFFF)
    calls = feed(session, b"".join(call_packet("CONNECT_GET_HOSTNAME", serial=n) for n in serials))
    for call in reversed(calls):
        session.reply(call, ConnectGetHostnameRet("h"))
    assert [p.serial for p in packets(take_output(session))] == list(reversed(serials))


def test_never_a_second_reply() -> None:
    session = server()
    (call,) = feed(session, call_packet("CONNECT_GET_HOSTNAME"))
    session.reply(call, ConnectGetHostnameRet("h"))
    with pytest.raises(LocalMistake):
        session.reply(call, ConnectGetHostnameRet("h"))
    with pytest.raises(LocalMistake):
        session.reply_error(call, NoDomain("x"))
    assert len(packets(take_output(session))) == 1


@pytest.mark.parametrize(
    "ret", [None, ConnectGetCapabilitiesRet("x"), ConnectGetHostnameRet("a\0b")]
)
def test_a_reply_that_is_none_leaves_the_call_unanswered(ret: Any) -> None:
    session = server()
    (call,) = feed(session, call_packet("CONNECT_GET_HOSTNAME"))
    with pytest.raises(WireError):
        session.reply(call, ret)
    session.reply_error(call, RpcError("Unable to encode message payload"))
    assert error_of(take_output(session)).code == 39


def test_a_void_call_takes_no_reply_message() -> None:
    session = server()
    (call,) = feed(session, call_packet("CONNECT_CLOSE", serial=4))
    with pytest.raises(WireError):
        session.reply(call, ConnectGetHostnameRet("h"))
    session.reply(call)
    (packet,) = packets(take_output(session))
    assert len(packet.data) == 28


# -- limits


def test_calls_beyond_the_limit_wait_their_turn() -> None:
    session = server(Limits(calls_running_max=3, calls_running_extra=0))
    raw = b"".join(call_packet("CONNECT_GET_CAPABILITIES", serial=n) for n in range(10))
    running = feed(session, raw)
    seen = [call.serial for call in running]
    assert (len(seen), session.calls_waiting) == (3, 7)
    while running:
        session.reply(running.pop(0), ConnectGetCapabilitiesRet("x"))
        take_output(session)
        more = list(events(session))
        assert len(more) <= 1
        running += more
        seen += [call.serial for call in more]
    assert seen == list(range(10))


def test_a_waiting_call_that_does_not_decode_is_answered_in_its_turn() -> None:
    session = server(Limits(calls_running_max=1, calls_running_extra=0))
    good = call_packet("CONNECT_GET_CAPABILITIES", serial=1)
    bad = call_packet("DOMAIN_LOOKUP_BY_NAME", serial=2)
    (call,) = feed(session, good + bad + good)
    session.reply(call, ConnectGetCapabilitiesRet("x"))
    assert len(list(events(session))) == 1
    assert [(p.serial, p.status) for p in packets(take_output(session))] == [(1, 0), (2, 1)]


def test_calls_that_never_wait_may_run_beyond_it() -> None:
    session = server(Limits(calls_running_max=1, calls_running_extra=1))
    raw = call_packet("CONNECT_GET_CAPABILITIES") + call_packet("CONNECT_GET_HOSTNAME")
    assert len(feed(session, raw)) == 2


@pytest.mark.parametrize(
    "limits",
    [
        Limits(calls_running_max=1, calls_running_extra=0, calls_waiting_max=5),
        Limits(calls_running_max=1, calls_running_extra=0, call_bytes_max=3000),
    ],
)
def test_reading_stops_when_too_much_waits(limits: Limits) -> None:
    session = server(limits)
    raw = b"".join(call_packet("CONNECT_GET_CAPABILITIES", serial=n) for n in range(100))
    running = feed(session, raw)
    assert not session.wants_input
    assert session.calls_waiting <= 6
    assert session.has_unparsed
    served = 0
    while running:
        session.reply(running.pop(0), ConnectGetCapabilitiesRet("x"))
        take_output(session)
        running += list(events(session))
        served += 1
    assert served == 100
    assert session.wants_input


def test_a_client_that_does_not_read_is_not_served() -> None:
    session = server(Limits(output_bytes_high=1000))
    raw = b"".join(call_packet("CONNECT_GET_HOSTNAME", serial=n) for n in range(1000))
    session.receive(raw, (), 0.0)
    for call in events(session):
        session.reply(call, ConnectGetHostnameRet("h"))
    assert session.output_bytes < 1100
    assert not session.wants_input
    take_output(session)
    assert session.wants_input
    assert session.next_event() is not None


def test_bad_calls_do_not_grow_the_output_either() -> None:
    session = server(Limits(output_bytes_high=1000))
    feed(session, call_packet("AUTH_LIST", number=9999) * 1000)
    assert session.output_bytes < 1300


def test_events_that_nobody_reads_end_the_connection() -> None:
    session = server(Limits(event_bytes_max=1000))
    event = DomainEventCallbackLifecycleMsg(0, DOM, 1, 2)
    for _ in range(1000):
        session.send_event(LIFECYCLE, event)
    assert session.failure is not None
    assert session.output_bytes <= 1000


def test_one_large_reply_always_fits() -> None:
    session = server(Limits(output_bytes_max=100))
    calls = feed(session, call_packet("CONNECT_GET_CAPABILITIES") * 2)
    session.reply(calls[0], ConnectGetCapabilitiesRet("x" * 1000))
    assert session.failure is None
    session.reply(calls[1], ConnectGetCapabilitiesRet("x" * 1000))
    assert session.failure is not None


def test_events_are_checked() -> None:
    session = server()
    with pytest.raises(WireError):
        session.send_event(LIFECYCLE, DomainEventLifecycleMsg(DOM, 1, 2))
    session.send_event(LIFECYCLE, DomainEventCallbackLifecycleMsg(0, DOM, 1, 2))
    (packet,) = packets(take_output(session))
    assert (packet.type, packet.serial, packet.procedure) == (PacketType.MESSAGE, 1, 318)


# -- descriptors


def fd_call(name: str, fds: int, raw: bytes = b"") -> bytes:
    body = call_packet(name, kind=PacketType.CALL_WITH_FDS, fd_count=fds, raw=raw)
    return body + bytes(fds)


def test_descriptors_nobody_took_come_back() -> None:
    session = server()
    session.receive(fd_call("CONNECT_CLOSE", 2), [11, 12], 0.0)
    (call,) = events(session)
    assert call.fds == (11, 12)
    session.reply(call)
    assert session.take_unwanted_fds() == [11, 12]
    session.receive(fd_call("CONNECT_CLOSE", 1), [13], 0.0)
    (call,) = events(session)
    assert call.take_fds() == (13,)
    session.reply(call)
    assert session.take_unwanted_fds() == []


def test_descriptors_of_refused_and_dropped_packets_come_back() -> None:
    session = server()
    raw = call_packet("AUTH_LIST", kind=PacketType.CALL_WITH_FDS, fd_count=1, number=9999) + b"\0"
    session.receive(raw, [11], 0.0)
    assert list(events(session)) == []
    raw = call_packet("AUTH_LIST", kind=PacketType.REPLY_WITH_FDS, fd_count=1) + b"\0"
    session.receive(raw, [12], 0.0)
    assert list(events(session)) == []
    assert session.take_unwanted_fds() == [11, 12]


def test_the_end_gives_all_descriptors_back() -> None:
    session = server(Limits(calls_running_max=1, calls_running_extra=0))
    session.receive(fd_call("CONNECT_GET_CAPABILITIES", 1), [11], 0.0)
    assert len(list(events(session))) == 1
    session.receive(fd_call("CONNECT_GET_CAPABILITIES", 1), [12], 0.0)
    session.receive(fd_call("CONNECT_GET_CAPABILITIES", 2)[:-1], [13], 0.0)
    list(events(session))
    assert sorted(session.drop_fds()) == [11, 12, 13]


def test_held_descriptors_are_bounded() -> None:
    session = server(Limits(fds_max=4))
    for n in range(10):
        session.receive(fd_call("CONNECT_GET_CAPABILITIES", 1), [n], 0.0)
        list(events(session))
    assert not session.wants_input
    assert session.calls_running == 4


# -- the client's role


def connected() -> tuple[Any, int]:
    session = client()
    serial, _ = session.call(procedure("CONNECT_GET_HOSTNAME"))
    take_output(session)
    return session, serial


def answer(which: str, serial: int, **header: Any) -> bytes:
    return call_packet(which, serial=serial, **{"kind": PacketType.REPLY, **header})


def test_a_reply_finds_its_call() -> None:
    session, serial = connected()
    ret = ConnectGetHostnameRet("h")
    session.receive(answer("CONNECT_GET_HOSTNAME", serial, message=ret), (), 0.0)
    assert list(events(session)) == [Replied(serial, ret)]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (
            answer("CONNECT_GET_TYPE", 0, message=ConnectGetHostnameRet("h")),
            "Unexpected message proc 3 != 59",
        ),
        (answer("CONNECT_GET_HOSTNAME", 0), "Unable to decode message payload"),
        (
            answer("CONNECT_GET_HOSTNAME", 0, status=Status.ERROR),
            "Unable to decode message payload",
        ),
        (
            answer("CONNECT_GET_HOSTNAME", 0, program=QEMU_PROGRAM),
            f"Unexpected message program {QEMU_PROGRAM}",
        ),
    ],
)
def test_a_bad_reply_fails_only_its_call(raw: bytes, text: str) -> None:
    session, _ = connected()
    session.receive(raw, (), 0.0)
    (reply,) = events(session)
    assert isinstance(reply.error, SternaError)
    assert str(reply.error) == text
    assert session.failure is None


@pytest.mark.parametrize(
    "raw", [answer("CONNECT_GET_HOSTNAME", 77), call_packet("AUTH_LIST"), b"\0\0\0\0"]
)
def test_what_is_fatal_to_a_client(raw: bytes) -> None:
    session, _ = connected()
    session.receive(raw, (), 0.0)
    assert list(events(session)) == []
    assert isinstance(session.failure, ProtocolViolation)


@pytest.mark.parametrize(
    "raw",
    [
        call_packet("AUTH_LIST", kind=PacketType.MESSAGE),  # no event
        call_packet("AUTH_LIST", kind=PacketType.MESSAGE, number=9999),
        call_packet("AUTH_LIST", kind=PacketType.MESSAGE, program=5),
        call_packet(LIFECYCLE, kind=PacketType.MESSAGE),  # does not decode
        call_packet("AUTH_LIST", kind=PacketType.STREAM),  # no such stream
    ],
)
def test_what_a_client_ignores(raw: bytes) -> None:
    session, _ = connected()
    session.receive(raw, (), 0.0)
    assert list(events(session)) == []
    assert session.failure is None


def test_events_arrive() -> None:
    session, _ = connected()
    event = DomainEventCallbackLifecycleMsg(4, DOM, 2, 0)
    session.receive(
        bytes(build(REMOTE_PROGRAM, 318, PacketType.MESSAGE, 1, message=event)), (), 0.0
    )
    assert list(events(session)) == [EventReceived(LIFECYCLE, event)]


def test_arguments_are_checked_before_anything_is_sent() -> None:
    session = client()
    for args in (None, ConnectGetHostnameRet("x"), DomainLookupByNameArgs("a\0")):
        with pytest.raises(WireError):
            session.call(procedure("DOMAIN_LOOKUP_BY_NAME"), args)
    assert not session.output


def test_serials_wrap_and_skip_those_in_use() -> None:
    session = client()
    first, _ = session.call(procedure("CONNECT_GET_HOSTNAME"))
    session._serial = (1 << 32) - 1
    second, _ = session.call(procedure("CONNECT_GET_HOSTNAME"))
    third, _ = session.call(procedure("CONNECT_GET_HOSTNAME"))
    assert (first, second, third) == (0, (1 << 32) - 1, 1)


def test_a_call_says_what_it_is() -> None:
    (call,) = feed(server(), call_packet("CONNECT_GET_HOSTNAME", serial=9))
    assert isinstance(call, Call)
    assert repr(call) == "<Call CONNECT_GET_HOSTNAME #9>"


# -- both roles joined


def test_two_sessions_cut_at_every_byte() -> None:
    """However the bytes between two sessions are cut, the same conversation takes place."""
    script: list[tuple[str, Any, Any]] = [
        ("CONNECT_GET_HOSTNAME", None, ConnectGetHostnameRet("host")),
        (
            "CONNECT_SUPPORTS_FEATURE",
            ConnectSupportsFeatureArgs(10),
            ConnectSupportsFeatureRet(1),
        ),
        ("DOMAIN_LOOKUP_BY_NAME", DomainLookupByNameArgs("g"), DomainLookupByNameRet(DOM)),
        ("DOMAIN_LOOKUP_BY_NAME", DomainLookupByNameArgs("z"), NoDomain("z")),
        ("CONNECT_CLOSE", None, None),
    ]
    ours = client()
    for name, args, _ in script:
        ours.call(procedure(name), args)
    request = take_output(ours)
    for cut in range(len(request) + 1):
        daemon, peer = server(), client()
        for name, args, _ in script:
            peer.call(procedure(name), args)
        calls = feed(daemon, request[:cut]) + feed(daemon, request[cut:])
        for call, (_, _, ret) in zip(calls, script, strict=True):
            if isinstance(ret, SternaError):
                daemon.reply_error(call, ret)
            else:
                daemon.reply(call, ret)
        response = take_output(daemon)
        at = cut * len(response) // max(1, len(request))
        peer.receive(response[:at], (), 0.0)
        replies = list(events(peer))
        peer.receive(response[at:], (), 0.0)
        replies += list(events(peer))
        for reply, (_, _, ret) in zip(replies, script, strict=True):
            if isinstance(ret, SternaError):
                assert str(reply.error) == str(ret)
            else:
                assert reply.ret == ret
