"""For tests of the wire: values of any message type, packets, two sessions joined."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from sterna.rpc.calls import PROCEDURES, Procedure, procedure
from sterna.rpc.frame import Packet, PacketType, Splitter, Status, build
from sterna.rpc.session import Limits, ServerSession
from sterna.rpc.session_base import BaseSession, FdByte
from sterna.rpc.session_client import ClientSession
from sterna.xdr.compile import ListOf, Optional_, field_kinds
from sterna.xdr.message import Message
from sterna.xdr.wire import (
    Boolean,
    Chars,
    Fixed,
    Narrow,
    Opaque,
    Scalar,
    String,
    Switch,
)

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


def all_message_types() -> list[type[Message]]:
    """Every message a procedure carries."""
    return [cls for one in PROCEDURES for cls in (one.args, one.ret) if cls is not None]


def messages(cls: type[Message]) -> st.SearchStrategy[Any]:
    """Any message of that type."""
    kinds = field_kinds(cls)
    for kind in kinds.values():
        if isinstance(kind, Switch):
            return _switched(cls, kinds, kind)
    return st.builds(cls, *[_values(kind) for kind in kinds.values()])


def _switched(cls: type[Message], kinds: dict[str, Any], switch: Switch) -> st.SearchStrategy[Any]:
    others = {n: _values(k) for n, k in kinds.items() if not isinstance(k, Switch)}
    (name,) = (n for n, k in kinds.items() if k is switch)
    return st.one_of(
        [
            st.builds(cls, **{**others, switch.on: st.just(tag), name: _values(case)})
            for tag, case in switch.cases
        ]
    )


def _values(kind: Any) -> st.SearchStrategy[Any]:
    match kind:
        case Scalar("d"):
            return st.floats(allow_nan=False)
        case Scalar(code):
            bits = 8 * struct.calcsize(f">{code}")
            return _integers(bits, signed=code.islower())
        case Narrow(bits, signed):
            return _integers(bits, signed=signed)
        case Boolean():
            return st.booleans()
        case String():
            return TEXT
        case Opaque(bytes_max):
            return st.binary(max_size=min(bytes_max, 16))
        case Fixed(size) | Chars(size, True):
            return st.binary(min_size=size, max_size=size)
        case Chars(size):
            return st.binary(max_size=min(size, 8))
        case ListOf(item, items_max):
            return st.lists(_values(item), max_size=min(items_max, 3))
        case Optional_(inner):
            return st.none() | _values(inner)
        case _:
            return messages(kind)


def _integers(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    if signed:
        return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)
    return st.integers(0, (1 << bits) - 1)


def call_packet(
    name: str | Procedure, args: Message | None = None, *, serial: int = 0, **header: Any
) -> bytes:
    """A call as a client sends it; `header` overrides single fields."""
    which = procedure(name) if isinstance(name, str) else name
    fields: dict[str, Any] = {"message": args, **header}
    program = fields.pop("program", which.program)
    number = fields.pop("number", which.number)
    kind = fields.pop("kind", PacketType.CALL)
    return bytes(build(program, number, kind, serial, **fields))


def stream_packet(name: str, serial: int, raw: bytes = b"", **header: Any) -> bytes:
    """A packet of an open stream."""
    which = procedure(name)
    fields: dict[str, Any] = {"status": Status.CONTINUE, "raw": raw, **header}
    kind = fields.pop("kind", PacketType.STREAM)
    return bytes(build(which.program, which.number, kind, serial, **fields))


def take_output(session: BaseSession) -> bytes:
    """What a session wants to send, descriptors as the bytes they ride on."""
    out = bytearray()
    while session.output:
        chunk = session.output.popleft()
        out += b"\0" if isinstance(chunk, FdByte) else chunk
    session.sent(len(out))
    return bytes(out)


def packets(data: bytes) -> list[Packet]:
    """The packets in these bytes, which must hold nothing else."""
    splitter = Splitter(accept_fds=True)
    splitter.feed(data)
    found = list(iter(splitter.next_packet, None))
    assert splitter.empty
    return found


def events(session: BaseSession) -> Iterator[Any]:
    """What a session has to tell, until it has no more."""
    while (event := session.next_event()) is not None:
        yield event


def server(limits: Limits | None = None) -> ServerSession:
    """A daemon's session at time 0."""
    return ServerSession(0.0, limits, accept_fds=True)


def client(limits: Limits | None = None) -> ClientSession:
    """A client's session at time 0."""
    return ClientSession(0.0, limits, accept_fds=True)
