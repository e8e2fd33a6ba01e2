"""The one engine between dataclasses and XML.

A model class is a dataclass whose fields say where they live::

    @dataclass(slots=True)
    class Example:
        dev: str | None = at("target@dev")           # an attribute of a child element
        mtu: int | None = at("mtu@size", NAT)
        serial: str | None = at("serial")            # an element's text
        readonly: bool = flag("readonly")            # an empty element that is there or not
        address: Address | None = variants("address", "type", ADDRESSES)
        tags: list[Tag] = children("vlan/tag", Tag)

Elements come out in the order in which the fields name them first, so a class is also the
reference of libvirt's output order. Content no field names is refused with its name and line:
nothing is dropped silently. Comments and processing instructions are not content.

`xml_tail` names inherited fields that are printed after the class's own.
`xml_open_pair` prints an empty element as <a></a> on two lines.
A class may define `after_parse(self, line: int)`, called once its fields are set, to refuse or
normalise combinations. Codecs are compiled on first use and cached.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from sterna.config.element import (
    attributes_of,
    bad_value,
    limit_depth,
    line_of,
    local_name,
    twice,
    unknown_element,
)
from sterna.config.values import TEXT, TEXT_OR_EMPTY, Kind, UnknownWord, escape, size_kib
from sterna.errors import (
    ConfigUnsupported,
    ErrorDomain,
    InternalError,
    XmlError,
)

if TYPE_CHECKING:
    from lxml.etree import _Element

NAMESPACES = {"qemu": "http://libvirt.org/schemas/domain/qemu/1.0"}


class SELF:
    """Stands for the class being declared, where an element holds its own kind."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mode:
    """What a text is for.

    inactive: leave out what exists only while the guest runs (ptys, tap names).
    secure: print passwords.
    status: for our own record of a running guest: with what is remembered beside the definition.
    """

    inactive: bool = False
    secure: bool = False
    status: bool = False


When = Callable[[Any, Mode], bool]


def live_only(_value: object, mode: Mode) -> bool:
    """For fields that exist only while the guest runs."""
    return not mode.inactive


def secure_only(_value: object, mode: Mode) -> bool:
    """For passwords."""
    return mode.secure


def status_only(_value: object, mode: Mode) -> bool:
    """For what a daemon remembers of a running guest but shows nobody."""
    return mode.status


class Spec(NamedTuple):
    """Where a field lives and how it is read and written."""

    shape: str
    path: str
    kind: Kind = TEXT
    cls: Any = None
    when: When | None = None
    unit: str = "KiB"
    required: bool = False


def _field(spec: Spec, default: Any = None, factory: Any = dataclasses.MISSING) -> Any:
    if factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=factory, metadata={"xml": spec})
    return dataclasses.field(default=default, metadata={"xml": spec})


def at(
    path: str,
    kind: Kind = TEXT,
    default: Any = None,
    *,
    when: When | None = None,
    required: bool = False,
) -> Any:
    """A scalar: `elem@attr`, `@attr` of the element itself, `elem` or `.` for text.

    required: an attribute that must be there where its element is.
    """
    return _field(Spec("scalar", path, kind, when=when, required=required), default)


def in_kib(path: str, *, default_unit: str = "KiB") -> Any:
    """An element whose text is a size with a `unit` attribute; the value is in KiB."""
    return _field(Spec("size", path, unit=default_unit))


def flag(path: str, *, when: When | None = None) -> Any:
    """True when the (empty) element is there."""
    return _field(Spec("flag", path, when=when), False)


def child(path: str, cls: type, *, when: When | None = None) -> Any:
    """An element with a class of its own, or None."""
    return _field(Spec("child", path, cls=cls, when=when))


def children(path: str, cls: type, *, when: When | None = None) -> Any:
    """A list of elements of one class."""
    return _field(Spec("children", path, cls=cls, when=when), factory=list)


def variants(path: str, key: str, classes: Mapping[str, type]) -> Any:
    """An element whose class depends on its attribute `key`, or None."""
    return _field(Spec("variants", path, cls=(key, classes)))


def texts(path: str, kind: Kind = TEXT) -> Any:
    """A list of elements that hold only text."""
    return _field(Spec("texts", path, kind), factory=list)


def kept(path: str) -> Any:
    """An element that nothing here interprets, kept whole as a `Kept`."""
    return _field(Spec("child", path, cls=Kept))


@dataclasses.dataclass(slots=True)
class Kept:
    """An element kept as it came: names, attributes and order."""

    tag: str
    attributes: dict[str, str]
    text: str | None
    elements: list[Kept]

    @classmethod
    def read(cls, element: _Element, depth: int = 0) -> Kept:
        limit_depth(element, depth)
        tag = element.tag
        if tag[0] == "{" or any(name[0] == "{" for name in element.attrib):
            raise unknown_element(element)
        text = element.text
        return cls(
            tag,
            dict(attributes_of(element)),
            text if text and text.strip() else None,
            [cls.read(kid, depth + 1) for kid in element if isinstance(kid.tag, str)],
        )

    def write(self, tag: str, out: list[str], pad: str, mode: Mode) -> None:
        head = f"{pad}<{tag}"
        for name, value in self.attributes.items():
            head += f" {name}='{escape(value)}'"
        if self.elements:
            out.append(f"{head}>\n")
            for kid in self.elements:
                kid.write(kid.tag, out, pad + "  ", mode)
            out.append(f"{pad}</{tag}>\n")
        elif self.text is not None:
            out.append(f"{head}>{escape(self.text)}</{tag}>\n")
        else:
            out.append(f"{head}/>\n")


# --- compiled form ------------------------------------------------------------


class _Item(NamedTuple):
    """A scalar's place: the field, its kind, and when it is printed."""

    field: str
    kind: Kind
    when: When | None
    unit: str | None = None  # for sizes: what a number without unit means


class _Node:
    """One element name below a class's own element, or that element itself."""

    __slots__ = (
        "attributes", "close", "elements", "open", "required", "shape", "spec", "tag", "text",
        "what",
    )  # fmt: skip

    def __init__(self, tag: str, shape: str = "path") -> None:
        self.tag = tag
        self.shape = shape
        self.open = f"<{tag}"
        self.close = f"</{tag}>\n"
        self.attributes: dict[str, _Item] = {}
        self.text: _Item | None = None
        self.elements: dict[str, _Node] = {}
        self.required: list[str] = []
        self.spec: Spec | None = None
        self.what = ""  # the field an element-shaped spec fills


def _qualified(name: str) -> str:
    prefix, colon, rest = name.partition(":")
    return f"{{{NAMESPACES[prefix]}}}{rest}" if colon else name


class Codec:
    """Reads and writes one class."""

    __slots__ = ("after", "cls", "open_pair", "root")

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.after: Callable[[Any, int], None] | None = getattr(cls, "after_parse", None)
        self.open_pair: bool = getattr(cls, "xml_open_pair", False)
        self.root = _Node("")
        tail: tuple[str, ...] = getattr(cls, "xml_tail", ())
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in [*(n for n in fields if n not in tail), *(n for n in tail if n in fields)]:
            spec = fields[name].metadata.get("xml")
            if spec is not None:
                self._place(name, spec._replace(cls=cls) if spec.cls is SELF else spec)

    def _place(self, name: str, spec: Spec) -> None:
        path, _, attribute = spec.path.partition("@")
        steps = [] if path in ("", ".") else path.split("/")
        scalar = spec.shape in ("scalar", "size")
        node = self.root
        for depth, step in enumerate(steps):
            last = depth == len(steps) - 1
            shape = spec.shape if last and not scalar else "path"
            node = node.elements.setdefault(_qualified(step), _Node(step, shape))
        if attribute:
            node.attributes[attribute] = _Item(name, spec.kind, spec.when)
            if spec.required:
                node.required.append(attribute)
        elif scalar:
            unit = spec.unit if spec.shape == "size" else None
            node.text = _Item(name, spec.kind, spec.when, unit)
            if unit is not None:
                node.attributes["unit"] = _Item("", TEXT, None)
        else:
            node.spec, node.what = spec, name

    # reading

    def read(self, element: _Element, depth: int = 0) -> Any:
        limit_depth(element, depth)
        values: dict[str, Any] = {}
        _read_node(self.root, element, values, depth)
        result = self.cls(**values)
        if self.after is not None:
            self.after(result, line_of(element))
        return result

    # writing

    def write(self, tag: str, value: Any, out: list[str], pad: str, mode: Mode) -> None:
        """Append the element's lines. It is printed even when it has no content."""
        head, body = _write_node(self.root, value, pad, mode)
        if isinstance(body, str):
            out.append(f"{pad}<{tag}{head}>{body}</{tag}>\n")
        elif body or self.open_pair:
            out.append(f"{pad}<{tag}{head}>\n")
            out.extend(body)
            out.append(f"{pad}</{tag}>\n")
        else:
            out.append(f"{pad}<{tag}{head}/>\n")


_codecs: dict[type, Codec] = {}


def codec(cls: type) -> Codec:
    found = _codecs.get(cls)
    if found is None:
        found = _codecs[cls] = Codec(cls)
    return found


def _read_node(node: _Node, element: _Element, values: dict[str, Any], depth: int) -> None:
    attributes = node.attributes
    for name, text in attributes_of(element):
        item = attributes.get(name)
        if item is None:
            raise ConfigUnsupported(
                f"unknown attribute '{name.rpartition('}')[2]}' in <{local_name(element)}>"
                f" (line {line_of(element)})"
            )
        if not item.field:
            continue
        if item.field in values:
            raise twice(element)
        try:
            values[item.field] = item.kind.parse(text)
        except ValueError as why:
            raise bad_value(element, name, text, why) from None
    for name in node.required:
        if name not in element.attrib:
            raise XmlError(
                f"Missing required attribute '{name}' in element '{local_name(element)}'",
                domain=ErrorDomain.XML,
            )
    if node.text is not None:
        _read_text(node.text, element, values)
    elif element.text is not None and not element.text.isspace():
        raise ConfigUnsupported(
            f"unexpected text in <{local_name(element)}> (line {line_of(element)})"
        )
    for kid in element:
        if not isinstance(kid.tag, str):
            continue
        below = node.elements.get(kid.tag)
        if below is None:
            raise unknown_element(kid)
        if below.spec is None:
            limit_depth(kid, depth)
            _read_node(below, kid, values, depth + 1)
        else:
            _read_element(below, below.spec, kid, values, depth)


def _read_text(item: _Item, element: _Element, values: dict[str, Any]) -> None:
    text = element.text
    if text is None and item.kind is TEXT_OR_EMPTY:
        text = ""
    if text is None or (not text.strip() and item.kind is not TEXT_OR_EMPTY):
        return
    if item.field in values:
        raise twice(element)
    try:
        if item.unit is None:
            values[item.field] = item.kind.parse(text)
        else:
            values[item.field] = size_kib(text.strip(), element.get("unit"), item.unit)
    except ValueError as why:
        raise bad_value(element, "", text.strip(), why) from None


def _read_element(
    node: _Node, spec: Spec, kid: _Element, values: dict[str, Any], depth: int
) -> None:
    shape, name = spec.shape, node.what
    if shape == "children":
        values.setdefault(name, []).append(_read_class(spec.cls, kid, depth))
        return
    if shape == "texts":
        holder: dict[str, Any] = {}
        _read_text(_Item("it", spec.kind, None), kid, holder)
        values.setdefault(name, []).append(holder.get("it", ""))
        return
    if name in values:
        raise twice(kid)
    if shape == "flag":
        values[name] = True
    elif shape == "child":
        values[name] = _read_class(spec.cls, kid, depth)
    else:
        key, classes = spec.cls
        word = kid.get(key)
        if word is None:
            raise InternalError(
                f"No {key} specified for device {kid.tag}", domain=ErrorDomain.DOMAIN
            )
        cls = classes.get(word)
        if cls is None:
            raise bad_value(kid, key, word, UnknownWord(f"unknown {kid.tag} {key} '{word}'"))
        values[name] = codec(cls).read(kid, depth + 1)


def _read_class(cls: type, kid: _Element, depth: int) -> Any:
    if hasattr(cls, "read"):
        return cls.read(kid, depth)
    return codec(cls).read(kid, depth + 1)


def _write_node(node: _Node, value: Any, pad: str, mode: Mode) -> tuple[str, list[str] | str]:
    """The attributes as text, and the body: lines, or the element's own text."""
    head = ""
    for name, item in node.attributes.items():
        if not item.field:
            if node.text is not None and getattr(value, node.text.field) is not None:
                head += f" {name}='KiB'"
            continue
        found = getattr(value, item.field)
        if found is not None and (item.when is None or item.when(found, mode)):
            head += f" {name}='{escape(item.kind.format(found))}'"
    if node.text is not None:
        item = node.text
        found = getattr(value, item.field)
        if found is not None and (item.when is None or item.when(found, mode)):
            return head, escape(item.kind.format(found))
    body: list[str] = []
    if node.elements:
        deeper = pad + "  "
        for kid in node.elements.values():
            _write_element(kid, value, body, deeper, mode)
    return head, body


def _write_path(node: _Node, value: Any, out: list[str], pad: str, mode: Mode) -> None:
    head, body = _write_node(node, value, pad, mode)
    if isinstance(body, str):
        out.append(f"{pad}{node.open}{head}>{body}{node.close}")
    elif body:
        out.append(f"{pad}{node.open}{head}>\n")
        out.extend(body)
        out.append(f"{pad}{node.close}")
    elif head:
        out.append(f"{pad}{node.open}{head}/>\n")


def _write_element(node: _Node, value: Any, out: list[str], pad: str, mode: Mode) -> None:
    spec = node.spec
    if spec is None:
        _write_path(node, value, out, pad, mode)
        return
    found = getattr(value, node.what)
    if found is None or found is False or found == []:
        return
    if spec.when is not None and not spec.when(found, mode):
        return
    if spec.shape == "flag":
        out.append(f"{pad}{node.open}/>\n")
    elif spec.shape == "texts":
        out.extend(
            f"{pad}{node.open}>{escape(spec.kind.format(text))}{node.close}" for text in found
        )
    elif spec.shape == "children":
        for one in found:
            _write_class(node.tag, one, out, pad, mode)
    else:
        _write_class(node.tag, found, out, pad, mode)


def _write_class(tag: str, value: Any, out: list[str], pad: str, mode: Mode) -> None:
    if hasattr(value, "write"):
        value.write(tag, out, pad, mode)
    else:
        codec(type(value)).write(tag, value, out, pad, mode)
