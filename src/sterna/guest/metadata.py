"""Elements that others keep in a definition's <metadata>, one for each namespace."""

from __future__ import annotations

import copy
from typing import Final

from lxml import etree

from sterna.config import DomainDef
from sterna.config.document import parse_xml
from sterna.config.element import limit_attributes
from sterna.config.model import Metadata
from sterna.errors import InvalidArg, XmlError

ELEMENT_CHARS_MAX: Final = 1 << 18
"""Read and laid out on the loop, where it takes 0.2 s at worst."""

_OPEN: Final = "<metadata>"
_CLOSE: Final = "</metadata>"


def get(definition: DomainDef, uri: str) -> str | None:
    """The element of a namespace, without the namespace, as libvirt 9.0 gives it (observed)."""
    for element in _elements(definition):
        if etree.QName(element).namespace == uri:
            plain = _without_namespace(element, uri)
            return etree.tostring(plain, encoding="unicode", pretty_print=True).rstrip("\n")
    return None


def put(definition: DomainDef, uri: str, key: str | None, text: str | None) -> None:
    """Replace the element of a namespace; None removes it. `key` is its prefix.

    Raises: XmlDetail, XmlError, InvalidArg (8).
    """
    kept = [e for e in _elements(definition) if etree.QName(e).namespace != uri]
    if text is not None:
        if not key:
            raise InvalidArg("key must be specified for a metadata element")
        if len(text) > ELEMENT_CHARS_MAX:
            raise XmlError(f"metadata element of more than {ELEMENT_CHARS_MAX} characters")
        given = parse_xml(text, "metadata_xml")
        for element in given.iter(etree.Element):
            limit_attributes(element)
        try:
            kept.append(_with_namespace(given, uri, key))
        except ValueError as exc:
            raise InvalidArg(f"metadata key or uri: {exc}") from exc
    definition.metadata = Metadata.of(kept) if kept else None


def _elements(definition: DomainDef) -> list[etree._Element]:
    if definition.metadata is None or not definition.metadata.xml:
        return []
    return list(parse_xml(_OPEN + definition.metadata.xml + _CLOSE))


def _without_namespace(element: etree._Element, uri: str) -> etree._Element:
    plain = copy.deepcopy(element)
    plain.tail = None
    for node in plain.iter(etree.Element):
        if etree.QName(node).namespace == uri:
            node.tag = etree.QName(node).localname
    etree.cleanup_namespaces(plain)
    return plain


def _with_namespace(given: etree._Element, uri: str, key: str) -> etree._Element:
    made = etree.Element(etree.QName(uri, etree.QName(given).localname), nsmap={key: uri})
    made.attrib.update(given.attrib)
    made.text = given.text
    for child in given:
        made.append(copy.deepcopy(child))
    for node in made.iter(etree.Element):
        if etree.QName(node).namespace is None:
            node.tag = etree.QName(uri, etree.QName(node).localname).text
    return made
