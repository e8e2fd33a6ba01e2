"""The codec: every field kind both ways, byte by byte; lenient in, strict out, bounded."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Sequence
from typing import Annotated, Any

import pytest

from sterna.xdr import Message, WireError, decode, encode
from sterna.xdr.compile import encode_into
from sterna.xdr.wire import (
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
    Boolean,
    Chars,
    Fixed,
    Max,
    Opaque,
    Scalar,
    Str,
    String,
    Switch,
)


class Numbers(Message):
    a: I32
    b: U32
    c: I64
    d: U64
    e: F64


class Narrows(Message):
    a: I8
    b: U8
    c: I16
    d: U16
    e: Bool


class Text(Message):
    s: Annotated[str, String(8)]


class Blob(Message):
    b: Annotated[bytes, Opaque(5)]
    f: Annotated[bytes, Fixed(4)]


class CharArrays(Message):
    some: Annotated[bytes, Chars(3)]
    exact: Annotated[bytes, Chars(2, exact=True)]


class Maybe(Message):
    n: I32 | None
    t: Text | None


class Lists(Message):
    numbers: Annotated[Sequence[U64], Max(2)]
    texts: Annotated[Sequence[Str], Max(2)]
    inner: Annotated[Sequence[Text], Max(2)]


class Union(Message):
    kind: I32
    value: Annotated[
        int | str | bool,
        Switch("kind", ((1, Scalar("i")), (6, Boolean()), (7, String()))),
    ]


class Unions(Message):
    all: Annotated[Sequence[Union], Max(4)]
    after: U32


class Nothing(Message):
    pass


ROWS: list[tuple[Message, str]] = [
    (
        Numbers(-1, 0xFFFFFFFF, -2, 1, 1.5),
        "ffffffff ffffffff fffffffffffffffe 0000000000000001 3ff8000000000000",
    ),
    (Narrows(-1, 255, -2, 65535, True), "ffffffff 000000ff fffffffe 0000ffff 00000001"),
    (Text(""), "00000000"),
    (Text("abcd"), "00000004 61626364"),
    (Text("é"), "00000002 c3a90000"),
    (Blob(b"abcde", b"wxyz"), "00000005 6162636465000000 7778797a"),
    (CharArrays(b"a\0", b"\xff~"), "00000002 00000061 00000000 ffffffff 0000007e"),
    (Maybe(None, None), "00000000 00000000"),
    (Maybe(0, Text("x")), "00000001 00000000 00000001 00000001 78000000"),
    (
        Lists([1, 2], ["x"], [Text("y")]),
        "00000002 0000000000000001 0000000000000002 00000001 00000001 78000000"
        "00000001 00000001 79000000",
    ),
    (Lists([], [], []), "00000000 00000000 00000000"),
    (Union(1, -1), "00000001 ffffffff"),
    (Union(6, True), "00000006 00000001"),
    (Union(7, "hi"), "00000007 00000002 68690000"),
    (
        Unions([Union(1, 5), Union(7, "")], 9),
        "00000002 00000001 00000005 00000007 00000000 00000009",
    ),
    (Nothing(), ""),
]


@pytest.mark.parametrize(("message", "hexed"), ROWS)
def test_bytes_both_ways(message: Message, hexed: str) -> None:
    raw = bytes.fromhex(hexed)
    assert encode(message) == raw
    assert decode(type(message), raw) == message


@pytest.mark.parametrize(("message", "hexed"), ROWS)
def test_every_truncation_is_a_wire_error(message: Message, hexed: str) -> None:
    raw = bytes.fromhex(hexed)
    for end in range(len(raw)):
        with pytest.raises(WireError):
            decode(type(message), raw[:end])


@pytest.mark.parametrize(("message", "hexed"), ROWS)
def test_what_follows_is_left_alone(message: Message, hexed: str) -> None:
    raw = b"before" + bytes.fromhex(hexed) + b"behind"
    assert decode(type(message), raw, 6) == message


@pytest.mark.parametrize(
    ("hexed", "message"),
    [
        ("00000001 78ffffff", Text("x")),  # padding that is not zero
        ("00000005 00000007 00000000", Maybe(7, None)),  # an optional flag of 5
        ("ffffff80 ffffff01 7fff8000 12340001 ffffffff", Narrows(-128, 1, -32768, 1, True)),
    ],
)
def test_lenient_as_libvirt_is(hexed: str, message: Message) -> None:
    assert decode(type(message), bytes.fromhex(hexed)) == message


@pytest.mark.parametrize(
    ("cls", "hexed"),
    [
        (Text, "00000009 616161616161616161000000"),  # over its bound
        (Text, "ffffffff"),
        (Text, "00000001 ff000000"),  # no UTF-8
        (Text, "00000001 00000000"),  # a NUL
        (Text, "00000001 78"),  # padding missing
        (Blob, "00000006 6162636465660000 7778797a"),
        (Lists, "00000003 0000000000000001 0000000000000002 0000000000000003 00000000 00000000"),
        (Lists, "00000000 7fffffff"),
        (Union, "00000002 00000000"),  # no such case: it has no length that could be skipped
        (CharArrays, "00000004 00000061 00000061 00000061 00000061 00000000 00000000"),
    ],
)
def test_refused_input(cls: type[Message], hexed: str) -> None:
    with pytest.raises(WireError):
        decode(cls, bytes.fromhex(hexed))


def test_a_huge_count_costs_nothing() -> None:
    class Many(Message):
        texts: Annotated[Sequence[Str], Max(1 << 30)]

    with pytest.raises(WireError):
        decode_local(Many, (1 << 30).to_bytes(4, "big"))


def decode_local(cls: type[Message], raw: bytes) -> Message:
    """For classes declared inside a test: their annotations need nothing local."""
    return decode(cls, raw)


@pytest.mark.parametrize(
    "message",
    [
        Numbers(1 << 31, 0, 0, 0, 0.0),
        Numbers(0, -1, 0, 0, 0.0),
        Numbers("1", 0, 0, 0, 0.0),  # type: ignore[arg-type]  # the mistake is the test
        Numbers(0, 0, 0, 0, None),  # type: ignore[arg-type]  # the mistake is the test
        Narrows(128, 0, 0, 0, False),
        Narrows(0, -1, 0, 0, False),
        Narrows(0, 0, 0, 65536, False),
        Text("123456789"),
        Text("a\0b"),
        Text("\udc80"),
        Text(b"bytes"),  # type: ignore[arg-type]  # the mistake is the test
        Text(None),  # type: ignore[arg-type]  # the mistake is the test
        Blob(b"123456", b"1234"),
        Blob(b"", b"123"),
        Blob("text", b"1234"),  # type: ignore[arg-type]  # the mistake is the test
        CharArrays(b"1234", b"12"),
        CharArrays(b"", b"123"),
        Lists([1, 2, 3], [], []),
        Lists([], ["a", "b", "c"], []),
        Lists([], [], [Blob(b"", b"1234")]),  # type: ignore[list-item]  # the mistake is the test
        Lists(5, [], []),  # type: ignore[arg-type]  # the mistake is the test
        Maybe("x", None),  # type: ignore[arg-type]  # the mistake is the test
        Union(2, 0),
        Union(7, 0),
    ],
)
def test_strict_output(message: Message) -> None:
    out = bytearray(b"kept")
    with pytest.raises(WireError):
        encode_into(message, out)
    assert out == b"kept"


class Long(Message):
    texts: Annotated[Sequence[Str], Max(16)]


def test_no_message_is_longer_than_a_packet() -> None:
    out = bytearray(b"kept")
    with pytest.raises(WireError, match="longer than a packet"):
        encode_into(Long(["x" * (4 << 20)] * 9), out)
    assert out == b"kept"
    assert len(encode(Long(["x" * (4 << 20)] * 7))) > 28 << 20


def test_a_message_is_a_frozen_dataclass_to_others() -> None:
    text = Text("x")
    assert dataclasses.is_dataclass(text)
    assert [field.name for field in dataclasses.fields(text)] == ["s"]
    assert dataclasses.replace(text, s="y") == Text(s="y")
    assert dataclasses.asdict(Maybe(1, text)) == {"n": 1, "t": {"s": "x"}}
    with pytest.raises(dataclasses.FrozenInstanceError):
        text.s = "z"  # type: ignore[misc]  # the mistake is the test
    with pytest.raises(dataclasses.FrozenInstanceError):
        del text.s
    assert not hasattr(text, "__dict__")


def test_a_message_is_a_value() -> None:
    text: Any = Text("x")
    assert text == Text("x")
    assert text != Text("y")
    assert text != "x"
    assert hash(text) == hash(Text("x"))
    assert repr(Maybe(None, text)) == "Maybe(n=None, t=Text(s='x'))"
    assert pickle.loads(pickle.dumps(text)) == text
    assert copy.copy(text) is text
    assert copy.deepcopy(text) is text
    match text:
        case Text(s):
            assert s == "x"


def test_wrong_arguments_are_type_errors() -> None:
    with pytest.raises(TypeError):
        Text()  # type: ignore[call-arg]  # the mistake is the test
    with pytest.raises(TypeError):
        Text("a", "b")  # type: ignore[call-arg]  # the mistake is the test


def test_a_field_without_a_kind_is_noticed() -> None:
    with pytest.raises(TypeError, match="has no place on the wire"):
        encode(Wrong(1))


class Wrong(Message):
    n: int
