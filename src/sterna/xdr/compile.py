"""Codecs: for each message class a pair of functions, written as Python source on first use.

Written out, a small message decodes in about a microsecond; interpreting its fields one by one
takes five times as long. The text is made of nothing but field names and numbers of our own.

Input is taken leniently, as libvirt 9.0 does (observed): bytes after the last field, padding
that is not zero, and optional flags other than 0 and 1 are accepted. Whatever else is wrong ends
in `WireError`, and in nothing else. Output is strict.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from sterna.xdr.message import Message
from sterna.xdr.wire import (
    Boolean,
    Chars,
    Fixed,
    Max,
    Narrow,
    Opaque,
    Scalar,
    String,
    Switch,
    WireError,
)

M = TypeVar("M", bound=Message)

Encode = Callable[[Any, bytearray], None]
Decode = Callable[[bytes, int, int], tuple[Any, int]]

MESSAGE_BYTES_MAX = 33_554_408
"""Largest payload of a packet: the 32 MiB limit less the header."""

_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")


class Codec(NamedTuple):
    """`encode(message, out)` appends; `decode(data, start, end)` gives the message and its end."""

    encode: Encode
    decode: Decode
    size_min: int


class ListOf(NamedTuple):
    """A counted list of at most `items_max` items of one kind."""

    item: Any
    items_max: int


class Optional_(NamedTuple):
    """A flag word, then perhaps a value."""

    kind: Any


_codecs: dict[type[Message], Codec] = {}


def encode(message: Message) -> bytes:
    """The message's bytes.

    Raises:
        WireError: a value is of the wrong type, out of range, or over its bound.
    """
    out = bytearray()
    encode_into(message, out)
    return bytes(out)


def encode_into(message: Message, out: bytearray) -> None:
    """Append the message's bytes to `out`. On an error `out` is as before."""
    start = len(out)
    codec = codec_of(type(message))
    try:
        codec.encode(message, out)
    except (struct.error, ValueError, TypeError, AttributeError) as why:
        del out[start:]
        raise WireError(f"cannot encode {type(message).__name__}: {why}") from why
    if len(out) - start > MESSAGE_BYTES_MAX:
        del out[start:]
        raise WireError(f"cannot encode {type(message).__name__}: longer than a packet may be")


def decode(cls: type[M], data: bytes, start: int = 0) -> M:
    """Read a message from `data`, which may go on behind it.

    Raises:
        WireError: the bytes end too early, or a length, text or union tag is not allowed.
    """
    codec = codec_of(cls)
    try:
        message, _end = codec.decode(data, start, len(data))
    except (struct.error, ValueError) as why:  # UnicodeDecodeError and WireError are ValueErrors
        raise WireError(f"cannot decode {cls.__name__}: {why}") from why
    return message  # type: ignore[no-any-return]  # the generated function makes a `cls`


def codec_of(cls: type[Message]) -> Codec:
    """The codec of a message class, compiled when it is first asked for."""
    codec = _codecs.get(cls)
    if codec is None:
        codec = _codecs[cls] = _compile(cls)
    return codec


def field_kinds(cls: type[Message]) -> dict[str, Any]:
    """Each field's kind: one of `sterna.xdr.wire`, a message class, `ListOf` or `Optional_`."""
    hints = get_type_hints(cls, include_extras=True)
    return {name: _kind(hints[name], f"{cls.__name__}.{name}") for name in cls.__match_args__}


def _kind(hint: Any, where: str) -> Any:
    if isinstance(hint, type) and issubclass(hint, Message):
        return hint
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        inner = [arg for arg in get_args(hint) if arg is not NoneType]
        if len(inner) == 1:
            return Optional_(_kind(inner[0], where))
    if origin is Annotated:
        base, kind, *_ = get_args(hint)
        if isinstance(kind, Max) and get_origin(base) is Sequence:
            return ListOf(_kind(get_args(base)[0], where), kind.items)
        return kind
    raise TypeError(f"{where}: {hint!r} has no place on the wire")


def _compile(cls: type[Message]) -> Codec:
    writer = _Writer(cls)
    kinds = field_kinds(cls)
    writer.encoder(kinds)
    writer.decoder(kinds)
    source = "\n".join(writer.lines)
    exec(compile(source, f"<codec of {cls.__name__}>", "exec"), writer.scope)  # noqa: S102 - ours
    size_min = sum(_size_min(kind) for kind in kinds.values())
    return Codec(writer.scope["_encode"], writer.scope["_decode"], size_min)


def _size_min(kind: Any) -> int:
    """Fewest bytes a value can take: what bounds a list's count before it is read."""
    match kind:
        case Scalar(code):
            return struct.calcsize(f">{code}")
        case Fixed(size):
            return size
        case Chars(size, exact=True):
            return 4 * size
        case type():
            return codec_of(kind).size_min
        case _:
            return 4


def _short() -> WireError:
    return WireError("the data ends too early or a length is over its limit")


class _Writer:
    """Writes the two functions of one message class."""

    def __init__(self, cls: type[Message]) -> None:
        self.lines: list[str] = []
        self.scope: dict[str, Any] = {
            "_cls": cls,
            "_new": object.__new__,
            "_word": struct.Struct(">I").pack,
            "_read_word": struct.Struct(">I").unpack_from,
            "_pad": _PAD,
            "_short": _short,
            "_Bad": WireError,
            "_pack": struct.pack,
            "_unpack": struct.unpack_from,
        }
        self._names = 0
        self._indent = 1

    def _line(self, text: str) -> None:
        self.lines.append("    " * self._indent + text)

    def _name(self, value: Any) -> str:
        self._names += 1
        name = f"_c{self._names}"
        self.scope[name] = value
        return name

    def _temp(self) -> str:
        self._names += 1
        return f"v{self._names}"

    # -- encoding

    def encoder(self, kinds: dict[str, Any]) -> None:
        self.lines.append("def _encode(m, out):")
        self._line(
            f"if m.__class__ is not _cls: raise TypeError('not a {self.scope['_cls'].__name__}')"
        )
        run: list[tuple[str, str]] = []
        for name, kind in kinds.items():
            if isinstance(kind, (Scalar, Boolean, Narrow)):
                run.append(self._scalar_out(f"m.{name}", kind))
                continue
            self._flush(run)
            self._put(f"m.{name}", kind)
        self._flush(run)

    def _scalar_out(self, value: str, kind: Scalar | Boolean | Narrow) -> tuple[str, str]:
        match kind:
            case Scalar(code):
                return code, value
            case Boolean():
                return "i", f"1 if {value} else 0"
            case Narrow(bits, signed):
                low, high = (
                    (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
                )
                self._line(f"if not {low} <= {value} <= {high}: raise _Bad('out of range')")
                return "i", value

    def _flush(self, run: list[tuple[str, str]]) -> None:
        if run:
            pack = self._name(struct.Struct(">" + "".join(code for code, _ in run)).pack)
            self._line(f"out += {pack}({', '.join(value for _, value in run)})")
            run.clear()

    def _put(self, value: str, kind: Any) -> None:
        match kind:
            case Scalar() | Boolean() | Narrow():
                self._flush([self._scalar_out(value, kind)])
            case String(bytes_max):
                text = self._temp()
                self._line(f"{text} = {value}.encode()")
                self._line(f"if len({text}) > {bytes_max}: raise _Bad('text over its limit')")
                self._line(f"if 0 in {text}: raise _Bad('NUL in text')")
                self._line(f"out += _word(len({text})) + {text} + _pad[len({text}) & 3]")
            case Opaque(bytes_max):
                self._bytes_only(value)
                self._line(f"if len({value}) > {bytes_max}: raise _Bad('data over its limit')")
                self._line(f"out += _word(len({value})) + {value} + _pad[len({value}) & 3]")
            case Fixed(size):
                self._bytes_only(value)
                self._line(f"if len({value}) != {size}: raise _Bad('not {size} bytes')")
                self._line(f"out += {value}")
            case Chars(size, exact):
                self._put_chars(value, size, exact)
            case ListOf(item, items_max):
                self._put_list(value, item, items_max)
            case Optional_(inner):
                self._put_optional(value, inner)
            case Switch():
                self._put_switch(value, kind)
            case type():
                self._line(f"{self._name(codec_of(kind).encode)}({value}, out)")
            case _:
                raise TypeError(f"no such field kind: {kind!r}")

    def _bytes_only(self, value: str) -> None:
        self._line(f"if not isinstance({value}, bytes): raise TypeError('bytes are wanted')")

    def _put_chars(self, value: str, size: int, exact: bool) -> None:
        self._bytes_only(value)
        if exact:
            self._line(f"if len({value}) != {size}: raise _Bad('not {size} chars')")
        else:
            self._line(f"if len({value}) > {size}: raise _Bad('data over its limit')")
            self._line(f"out += _word(len({value}))")
        self._line(f"out += _pack(f'>{{len({value})}}i', *memoryview({value}).cast('b'))")

    def _put_list(self, value: str, item: Any, items_max: int) -> None:
        seq, one = self._temp(), self._temp()
        self._line(f"{seq} = {value}")
        self._line(f"if len({seq}) > {items_max}: raise _Bad('too many items')")
        self._line(f"out += _word(len({seq}))")
        if isinstance(item, Scalar):
            self._line(f"out += _pack(f'>{{len({seq})}}{item.code}', *{seq})")
            return
        self._line(f"for {one} in {seq}:")
        self._indent += 1
        self._put(one, item)
        self._indent -= 1

    def _put_optional(self, value: str, inner: Any) -> None:
        one = self._temp()
        self._line(f"{one} = {value}")
        self._line(f"if {one} is None: out += {bytes(4)!r}")
        self._line("else:")
        self._indent += 1
        self._line(f"out += {(1).to_bytes(4, 'big')!r}")
        self._put(one, inner)
        self._indent -= 1

    def _put_switch(self, value: str, kind: Switch) -> None:
        tag = f"m.{kind.on}"
        for number, case in kind.cases:
            self._line(f"if {tag} == {number}:")
            self._indent += 1
            self._put(value, case)
            self._line("return")
            self._indent -= 1
        self._line(f"raise _Bad(f'no such type: {{{tag}}}')")

    # -- decoding

    def decoder(self, kinds: dict[str, Any]) -> None:
        self.lines.append("def _decode(data, pos, end):")
        self._line("m = _new(_cls)")
        cls = self.scope["_cls"]
        for name in kinds:
            self.scope[f"_set_{name}"] = getattr(cls, name).__set__
        run: list[tuple[str, Any]] = []
        tags: dict[str, str] = {}
        for name, kind in kinds.items():
            if isinstance(kind, (Scalar, Boolean, Narrow)):
                run.append((name, kind))
                continue
            tags |= self._take_run(run)
            if isinstance(kind, Switch):
                self._take_switch(name, kind, tags[kind.on])
                continue
            value = self._take(kind)
            self._line(f"_set_{name}(m, {value})")
        self._take_run(run)
        self._line("return m, pos")

    def _take_run(self, run: list[tuple[str, Any]]) -> dict[str, str]:
        """Read fixed-size neighbours with one call. Gives the temporaries by field."""
        if not run:
            return {}
        temps = {name: self._temp() for name, _ in run}
        self._unpack_fixed([kind for _, kind in run], list(temps.values()))
        for name, kind in run:
            self._line(f"_set_{name}(m, {self._narrowed(temps[name], kind)})")
        run.clear()
        return temps

    def _unpack_fixed(self, kinds: list[Any], temps: list[str]) -> None:
        packer = struct.Struct(
            ">" + "".join(k.code if isinstance(k, Scalar) else "i" for k in kinds)
        )
        self._line(f"{', '.join(temps)}, = {self._name(packer.unpack_from)}(data, pos)")
        self._line(f"pos += {packer.size}")

    def _narrowed(self, value: str, kind: Scalar | Boolean | Narrow) -> str:
        match kind:
            case Scalar():
                return value
            case Boolean():
                return f"{value} != 0"
            case Narrow(bits, signed=False):
                return f"{value} & {(1 << bits) - 1}"
            case Narrow(bits):
                half = 1 << bits - 1
                return f"(({value} + {half}) & {(1 << bits) - 1}) - {half}"

    def _take(self, kind: Any) -> str:
        """Lines that read one value; gives the expression that holds it."""
        match kind:
            case Scalar() | Boolean() | Narrow():
                value = self._temp()
                self._unpack_fixed([kind], [value])
                return self._narrowed(value, kind)
            case String(bytes_max):
                value = self._take_bytes(bytes_max)
                self._line(f"{value} = {value}.decode()")
                self._line(f"if '\\0' in {value}: raise _Bad('NUL in text')")
                return value
            case Opaque(bytes_max):
                return self._take_bytes(bytes_max)
            case Fixed(size):
                value = self._temp()
                self._line(f"{value} = data[pos:pos + {size}]")
                self._line(f"pos += {size}")
                self._line("if pos > end: raise _short()")
                return value
            case Chars(size, exact):
                return self._take_chars(size, exact)
            case ListOf(item, items_max):
                return self._take_list(item, items_max)
            case Optional_(inner):
                return self._take_optional(inner)
            case type():
                value = self._temp()
                self._line(f"{value}, pos = {self._name(codec_of(kind).decode)}(data, pos, end)")
                return value
            case _:
                raise TypeError(f"no such field kind: {kind!r}")

    def _take_count(self, items_max: int, size_min: int) -> str:
        count = self._temp()
        self._line(f"{count}, = _read_word(data, pos)")
        self._line("pos += 4")
        # Before anything is made from it: a huge count must not cost memory.
        self._line(f"if {count} > {items_max} or pos + {count} * {size_min} > end: raise _short()")
        return count

    def _take_bytes(self, bytes_max: int) -> str:
        count, value = self._take_count(bytes_max, 1), self._temp()
        self._line(f"{value} = data[pos:pos + {count}]")
        self._line(f"pos += {count} + (-{count} & 3)")
        self._line("if pos > end: raise _short()")
        return value

    def _take_chars(self, size: int, exact: bool) -> str:
        count, value = (
            (str(size), self._temp()) if exact else (self._take_count(size, 4), self._temp())
        )
        # The low byte of each word is the char, whatever its sign did to the rest.
        self._line(f"{value} = data[pos + 3:pos + 4 * {count}:4]")
        self._line(f"pos += 4 * {count}")
        self._line("if pos > end: raise _short()")
        return value

    def _take_list(self, item: Any, items_max: int) -> str:
        count, value = self._take_count(items_max, _size_min(item)), self._temp()
        if isinstance(item, Scalar):
            self._line(f"{value} = list(_unpack(f'>{{{count}}}{item.code}', data, pos))")
            self._line(f"pos += {count} * {_size_min(item)}")
            return value
        self._line(f"{value} = []")
        self._line(f"for _ in range({count}):")
        self._indent += 1
        self._line(f"{value}.append({self._take(item)})")
        self._indent -= 1
        return value

    def _take_optional(self, inner: Any) -> str:
        flag, value = self._temp(), self._temp()
        self._line(f"{flag}, = _read_word(data, pos)")
        self._line("pos += 4")
        self._line(f"if {flag}:")
        self._indent += 1
        self._line(f"{value} = {self._take(inner)}")
        self._indent -= 1
        self._line(f"else: {value} = None")
        return value

    def _take_switch(self, name: str, kind: Switch, tag: str) -> None:
        for number, case in kind.cases:
            self._line(f"if {tag} == {number}:")
            self._indent += 1
            self._line(f"_set_{name}(m, {self._take(case)})")
            self._line("return m, pos")
            self._indent -= 1
        self._line(f"raise _Bad(f'no such type: {{{tag}}}')")
