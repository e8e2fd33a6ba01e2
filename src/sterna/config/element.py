"""Elements of a document: names, lines, and the errors that speak of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sterna.config.values import UnknownWord
from sterna.errors import ConfigUnsupported, ErrorDomain, SternaError, XmlError

if TYPE_CHECKING:
    from lxml.etree import _Element

DEPTH_MAX = 64  # domain XML needs about ten; deeper input is an attack on the stack


def local_name(element: _Element) -> str:
    """The name without its namespace, as a person would look for it."""
    return str(element.tag).rpartition("}")[2]


def line_of(element: _Element) -> int:
    line = element.sourceline
    return line if isinstance(line, int) else 0


def unknown_element(element: _Element) -> ConfigUnsupported:
    parent = element.getparent()
    where = f" in <{local_name(parent)}>" if parent is not None else ""
    return ConfigUnsupported(
        f"unknown element <{local_name(element)}>{where} (line {line_of(element)})"
    )


def limit_depth(element: _Element, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise XmlError(f"elements nested deeper than {DEPTH_MAX} (line {line_of(element)})")


ATTRIBUTES_MAX = 256
"""No element has a tenth of it. lxml's time to list attributes grows with their square, and no
other thread runs meanwhile: 32,000 would take 2 s."""


def limit_attributes(element: _Element) -> None:
    """Raises XmlError for more attributes than anybody needs."""
    if len(element.attrib) > ATTRIBUTES_MAX:
        raise XmlError(
            f"more than {ATTRIBUTES_MAX} attributes in <{local_name(element)}>"
            f" (line {line_of(element)})"
        )


def attributes_of(element: _Element) -> list[tuple[str, str]]:
    """Names and texts. Raises as `limit_attributes`."""
    limit_attributes(element)
    return [(str(name), str(text)) for name, text in element.items()]


def bad_value(element: _Element, attribute: str, text: str, why: Exception) -> SternaError:
    tag = local_name(element)
    if isinstance(why, UnknownWord):
        return ConfigUnsupported(f"{why} (line {line_of(element)})", domain=ErrorDomain.DOMAIN)
    where = f"attribute '{attribute}' in element '{tag}'" if attribute else f"element '{tag}'"
    reason = f". {why}" if str(why) else "."
    return XmlError(f"Invalid value for {where}: '{text}'{reason} (line {line_of(element)})")


def twice(element: _Element) -> ConfigUnsupported:
    return ConfigUnsupported(
        f"element <{local_name(element)}> is given twice (line {line_of(element)})"
    )
