"""Packets captured from libvirt 9.0, byte by byte: a whole session in both roles."""

from __future__ import annotations

import re
from pathlib import Path

from sterna.errors import NoDomain
from sterna.rpc.calls import procedure
from sterna.rpc.msg_common import Dom
from sterna.rpc.msg_connect import (
    AuthListRet,
    ConnectGetLibVersionRet,
    ConnectOpenArgs,
    ConnectSupportsFeatureArgs,
    ConnectSupportsFeatureRet,
)
from sterna.rpc.msg_device import DomainOpenConsoleArgs
from sterna.rpc.msg_domain import DomainLookupByNameArgs, DomainLookupByNameRet
from sterna.rpc.msg_storage import StorageVolUploadArgs
from sterna.rpc.session_client import ClientSession, Replied
from sterna.xdr.message import Message
from support.wire import client, events, packets, server, take_output

FILE = Path(__file__).parents[2] / "vectors/packets.txt"
UUID = bytes.fromhex("aaaaaaaabbbbccccddddeeeeeeeeeeee")
DOM = Dom("g1", UUID, 25)
NOT_FOUND = NoDomain("no domain with matching name 'zz'")


def load() -> dict[str, bytes]:
    vectors = {}
    lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
    for block in "\n".join(lines).strip().split("\n\n"):
        head, body = block.split("\n", 1)
        raw = bytearray()
        for text, hexed in re.findall(r'"([^"]*)"|([0-9a-f]+)', body):
            raw += text.encode() if text else bytes.fromhex(hexed)
        vectors[head] = bytes(raw)
    return vectors


VECTORS = load()

EXCHANGES: list[tuple[str, str, Message | None, Message | None]] = [
    ("AUTH_LIST", "AUTH_LIST", None, AuthListRet([0])),
    (
        "FEATURE_10",
        "CONNECT_SUPPORTS_FEATURE",
        ConnectSupportsFeatureArgs(10),
        ConnectSupportsFeatureRet(1),
    ),
    ("OPEN", "CONNECT_OPEN", ConnectOpenArgs("qemu:///system", 0), None),
    (
        "LOOKUP_G1",
        "DOMAIN_LOOKUP_BY_NAME",
        DomainLookupByNameArgs("g1"),
        DomainLookupByNameRet(DOM),
    ),
    ("LOOKUP_ZZ", "DOMAIN_LOOKUP_BY_NAME", DomainLookupByNameArgs("zz"), None),
    ("LIB_VERSION", "CONNECT_GET_LIB_VERSION", None, ConnectGetLibVersionRet(9_000_000)),
    ("CLOSE", "CONNECT_CLOSE", None, None),
]


def test_a_client_sends_these_bytes_and_understands_the_answers() -> None:
    session = client()
    for vector, name, args, ret in EXCHANGES:
        session.call(procedure(name), args)
        assert take_output(session) == VECTORS[f"{vector} >"]
        session.receive(VECTORS[f"{vector} <"], (), 0.0)
        (reply,) = events(session)
        assert isinstance(reply, Replied)
        assert reply.ret == ret
        if vector == "LOOKUP_ZZ":
            assert isinstance(reply.error, NoDomain)
            assert str(reply.error) == str(NOT_FOUND)
            assert reply.error.detail == NOT_FOUND.detail
        else:
            assert reply.error is None


def test_a_server_understands_these_bytes_and_sends_the_answers() -> None:
    session = server()
    for vector, name, args, ret in EXCHANGES:
        session.receive(VECTORS[f"{vector} >"], (), 0.0)
        (call,) = events(session)
        assert call.procedure is procedure(name)
        assert call.args == args
        if vector == "LOOKUP_ZZ":
            session.reply_error(call, NOT_FOUND)
        else:
            session.reply(call, ret)
        assert take_output(session) == VECTORS[f"{vector} <"]


def test_ping_and_pong() -> None:
    for session in (server(), client()):
        session.receive(VECTORS["PING >"], (), 0.0)
        assert not list(events(session))
        assert take_output(session) == VECTORS["PONG <"]
        session.keepalive.allow(5, 5, 0.0)
        session.tick(5.0)
        assert take_output(session) == VECTORS["PING >"]


def advance(session: ClientSession, serial: int) -> None:
    """Make calls until the next one has that serial."""
    while packets(_call(session))[0].serial != serial - 1:
        pass


def _call(session: ClientSession) -> bytes:
    session.call(procedure("CONNECT_GET_TYPE"))
    return take_output(session)


def test_stream_packets() -> None:
    session = client()
    advance(session, 8)
    _, console = session.call(procedure("DOMAIN_OPEN_CONSOLE"), DomainOpenConsoleArgs(DOM, None, 0))
    assert console is not None
    take_output(session)
    session.stream_send(console, b"abc")
    assert take_output(session) == VECTORS["STREAM_DATA >"]
    session.stream_finish(console)
    assert take_output(session) == VECTORS["STREAM_FINISH >"]


def test_hole() -> None:
    session = client()
    advance(session, 10)
    from sterna.rpc.msg_common import Vol

    _, upload = session.call(
        procedure("STORAGE_VOL_UPLOAD"),
        StorageVolUploadArgs(Vol("p", "v", "k"), 0, 0, 1),
        sparse=True,
    )
    assert upload is not None
    take_output(session)
    session.stream_send_hole(upload, 1 << 20)
    assert take_output(session) == VECTORS["HOLE >"]
