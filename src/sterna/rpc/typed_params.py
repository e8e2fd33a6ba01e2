"""Typed parameters: lists of named values that carry their type.

`encode_params` takes plain values and chooses the type where none is given: bool, str and float
as themselves, int as i32, then u32, i64, u64, whichever holds it first. Where a client looks at
the type (statistics and job information are u64), give it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum

from sterna.rpc.msg_common import TypedParam

Value = int | float | str | bool


class ParamType(IntEnum):
    """The type's number on the wire."""

    INT = 1
    UINT = 2
    LLONG = 3
    ULLONG = 4
    DOUBLE = 5
    BOOLEAN = 6
    STRING = 7


STRING_OKAY = 1 << 2
"""Flag of calls with typed output: the caller understands strings."""


def encode_params(
    params: Mapping[str, Value] | Iterable[tuple[str, Value, ParamType]],
) -> list[TypedParam]:
    """The list as messages carry it, in the order given. Names may repeat in the iterable form."""
    if isinstance(params, Mapping):
        return [TypedParam(name, type_for(value), value) for name, value in params.items()]
    return [TypedParam(name, int(kind), value) for name, value, kind in params]


def decode_params(params: Iterable[TypedParam]) -> dict[str, Value]:
    """Values by name. Of a name that repeats the last one stays; see `decode_repeated`."""
    return {param.field: param.value for param in params}


def decode_repeated(params: Iterable[TypedParam], name: str) -> list[Value]:
    """All values of one name, in order (`migrate_disks` and `compression` repeat)."""
    return [param.value for param in params if param.field == name]


def type_for(value: Value) -> ParamType:
    """The narrowest type that holds the value."""
    match value:
        case bool():
            return ParamType.BOOLEAN
        case str():
            return ParamType.STRING
        case float():
            return ParamType.DOUBLE
    if -(1 << 31) <= value < 1 << 31:
        return ParamType.INT
    if 0 <= value < 1 << 32:
        return ParamType.UINT
    if value < 1 << 63:
        return ParamType.LLONG
    return ParamType.ULLONG
