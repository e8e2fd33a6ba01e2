"""Field kinds: how one annotated field lies on the wire (RFC 4506, with libvirt's widenings).

A message is a class with annotated fields; the annotation says both the Python type and the kind::

    class DomainLookupByNameArgs(Message):
        name: Str                                          # u32 length, UTF-8, zero padding
        flags: U32
        dom: Dom | None                                    # u32 flag, then the value
        disks: Annotated[Sequence[Str], Max(16)]           # u32 count, then the items
        model: Annotated[bytes, Chars(32, exact=True)]     # every char in a word of its own

Everything is big-endian and takes a multiple of four bytes. Each variable-length field has a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

STRING_BYTES_MAX = 4 * 1024 * 1024
"""Longest string of the remote protocol."""


class WireError(ValueError):
    """Bytes that are no such message, or a message that cannot be put into bytes."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number of fixed size; `code` is `struct`'s letter."""

    code: str


@dataclass(frozen=True, slots=True)
class Narrow:
    """An 8- or 16-bit integer, widened to a whole word.

    High bits that a peer left in the word are dropped, as C does when it stores the value.
    """

    bits: int
    signed: bool


@dataclass(frozen=True, slots=True)
class Boolean:
    """True or false as an i32; any non-zero word reads as true."""


@dataclass(frozen=True, slots=True)
class String:
    """UTF-8 text without NUL. A NUL would cut the text short in C peers, so it is refused."""

    bytes_max: int = STRING_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Opaque:
    """Bytes with a length word."""

    bytes_max: int


@dataclass(frozen=True, slots=True)
class Fixed:
    """Exactly `size` bytes, no length word. `size` is a multiple of four."""

    size: int


@dataclass(frozen=True, slots=True)
class Chars:
    """A C `char` array: every byte in a word of its own; `bytes` in Python, NULs included.

    With `exact` there is no count on the wire and always `size` chars; else at most `size`.
    """

    size: int
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Max:
    """Bound of a counted list."""

    items: int


@dataclass(frozen=True, slots=True)
class Switch:
    """A union: the earlier field `on` says which kind the value has."""

    on: str
    cases: tuple[tuple[int, Scalar | Boolean | String], ...]


I32 = Annotated[int, Scalar("i")]
U32 = Annotated[int, Scalar("I")]
I64 = Annotated[int, Scalar("q")]
U64 = Annotated[int, Scalar("Q")]
F64 = Annotated[float, Scalar("d")]
I8 = Annotated[int, Narrow(8, signed=True)]
U8 = Annotated[int, Narrow(8, signed=False)]
I16 = Annotated[int, Narrow(16, signed=True)]
U16 = Annotated[int, Narrow(16, signed=False)]
Bool = Annotated[bool, Boolean()]
Str = Annotated[str, String()]
Uuid = Annotated[bytes, Fixed(16)]
