"""How one attribute or text of domain XML becomes a Python value, and back.

A `Kind` is a pair of functions. `parse` raises ValueError for text it does not accept; the codec
adds the name of the element and the line. Texts are written as libvirt 9.0 writes them (observed).
"""

from __future__ import annotations

import re
import uuid as uuidlib
from collections.abc import Callable
from typing import Any, NamedTuple

from sterna.errors import ErrorDomain, InternalError, InvalidArg, Overflow, XmlError


class Kind(NamedTuple):
    """One scalar type of the XML: text -> value and value -> text."""

    name: str
    parse: Callable[[str], Any]
    format: Callable[[Any], str]


def _same(text: str) -> str:
    return text


TEXT = Kind("text", _same, str)
TEXT_OR_EMPTY = Kind("text or empty", _same, str)  # an empty element means something too

INT_TEXT_MAX = 24  # 64-bit values in any base fit; longer input is refused before int() sees it

_DECIMAL = re.compile(r"\s*[+-]?[0-9]+\Z")
_ANY_BASE = re.compile(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|[0-9]+)\Z")


def _integer(text: str) -> int:
    if len(text) > INT_TEXT_MAX or not _DECIMAL.match(text):
        raise ValueError("Expected integer value")
    return int(text)


def _natural(text: str) -> int:
    if len(text) > INT_TEXT_MAX or not _DECIMAL.match(text):
        raise ValueError("Expected non-negative integer value")
    number = int(text)
    if not 0 <= number < 1 << 64:
        raise ValueError("Expected non-negative integer value")
    return number


def parse_any_base(text: str) -> int:
    """Hexadecimal with 0x, octal with a leading 0, decimal otherwise, as strtoul with base 0."""
    match = _ANY_BASE.match(text) if len(text) <= INT_TEXT_MAX else None
    if match is None or match[1] == "-":
        raise ValueError("Expected non-negative integer value")
    digits = match[2]
    if digits[:2] in ("0x", "0X"):
        return int(digits, 16)
    if len(digits) > 1 and digits[0] == "0":
        if set(digits) & set("89"):
            raise ValueError("Expected non-negative integer value")
        return int(digits, 8)
    return int(digits)


INT = Kind("int", _integer, str)
NAT = Kind("nat", _natural, str)


def hexadecimal(width: int) -> Kind:
    """Number written as 0x and at least `width` digits; any base is read."""

    def text(number: int) -> str:
        return f"0x{number:0{width}x}"

    return Kind(f"hex{width}", parse_any_base, text)


HEX1, HEX2, HEX4, HEX6 = hexadecimal(1), hexadecimal(2), hexadecimal(4), hexadecimal(6)
ANY_BASE = Kind("any base", parse_any_base, str)


def _two(name: str, yes: str, no: str) -> Kind:
    def parse(text: str) -> bool:
        if text == yes:
            return True
        if text == no:
            return False
        raise ValueError

    return Kind(name, parse, lambda value: yes if value else no)


YES_NO = _two("yes/no", "yes", "no")
ON_OFF = _two("on/off", "on", "off")


class UnknownWord(ValueError):
    """A word outside a closed list, where libvirt calls that unsupported rather than wrong."""


def one_of(*words: str, unknown: str | None = None) -> Kind:
    """A word out of a closed list. `unknown` is libvirt's sentence for others, with {} for it."""
    allowed = frozenset(words)

    def parse(text: str) -> str:
        if text in allowed:
            return text
        if unknown is not None:
            raise UnknownWord(unknown.format(text))
        raise ValueError

    return Kind("one of " + ", ".join(words), parse, str)


def parse_uuid(text: str) -> uuidlib.UUID:
    """libvirt takes 32 hexadecimal digits with dashes and spaces anywhere (observed)."""
    digits = text.strip().replace("-", "").replace(" ", "")
    if len(digits) != 32 or not all(c in "0123456789abcdefABCDEF" for c in digits):
        raise InternalError("malformed uuid element", domain=ErrorDomain.DOMAIN)
    return uuidlib.UUID(hex=digits)


UUID = Kind("uuid", parse_uuid, str)

_MAC = re.compile(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}\Z")


def parse_mac(text: str) -> str:
    if not _MAC.match(text):
        raise XmlError(f"unable to parse mac address '{text}'")
    return ":".join(f"{int(part, 16):02x}" for part in text.split(":"))


MAC = Kind("mac", parse_mac, str)

_UNITS: dict[str, int] = {"": 1, "b": 1, "byte": 1, "bytes": 1}
for _power, _letter in enumerate("kmgtpe", start=1):
    _UNITS[_letter] = _UNITS[f"{_letter}ib"] = 1 << (10 * _power)
    _UNITS[f"{_letter}b"] = 1000**_power

SIZE_BYTES_MAX = (1 << 63) - 1


def size_bytes(number: str, unit: str | None, default_unit: str) -> int:
    """A number with its unit in bytes. `k` and `KiB` are 1024, `KB` is 1000 (domain XML docs)."""
    scale = _UNITS.get((unit if unit is not None else default_unit).lower())
    if scale is None:
        raise InvalidArg(f"unknown suffix '{unit}'")
    total = _natural(number) * scale
    if total > SIZE_BYTES_MAX:
        raise Overflow(f"value too large: {number}{unit or default_unit}")
    return total


def size_kib(number: str, unit: str | None, default_unit: str = "KiB") -> int:
    """The same, rounded up to whole KiB as libvirt rounds."""
    return (size_bytes(number, unit, default_unit) + 1023) // 1024


_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&apos;", '"': "&quot;"})


def escape(text: str) -> str:
    """Text as libvirt prints it, in attributes and in elements alike."""
    return text.translate(_ESCAPES)
