"""Every message type: what is encoded decodes to the same, and no bytes at all do harm."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sterna.rpc.msg_common import DomainInterface, ErrorBody, Hole, StatsRecord, TypedParam
from sterna.xdr import Message, WireError, decode, encode
from support.wire import all_message_types, messages

TYPES: list[type[Message]] = [
    *all_message_types(),
    ErrorBody,
    Hole,
    TypedParam,
    StatsRecord,
    DomainInterface,
]
# There are some seven hundred types: in the bounded run each gets a few examples.
FEW = settings(max_examples=max(3, settings().max_examples // 30))


@pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.__name__)
def test_round_trip_and_truncation(cls: type[Message]) -> None:
    @FEW
    @given(messages(cls))
    def check(message: Message) -> None:
        raw = encode(message)
        assert len(raw) % 4 == 0
        assert decode(cls, raw) == message
        for end in {0, len(raw) // 2, len(raw) - 4, len(raw) - 1} - {len(raw), -1, -4}:
            with pytest.raises(WireError):
                decode(cls, raw[:end])

    check()


@given(st.sampled_from(TYPES), st.binary(max_size=200))
def test_random_bytes(cls: type[Message], raw: bytes) -> None:
    try:
        message = decode(cls, raw)
    except WireError:
        return
    # What was understood is what we would say ourselves.
    assert decode(cls, encode(message)) == message or "nan" in repr(message)


@given(st.data())
def test_damaged_bytes(data: st.DataObject) -> None:
    cls: type[Message] = data.draw(st.sampled_from(TYPES))
    raw = bytearray(encode(data.draw(messages(cls))))
    for _ in range(data.draw(st.integers(1, 4))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = decode(cls, bytes(raw))
    except WireError:
        return
    assert decode(cls, encode(message)) == message or "nan" in repr(message)
