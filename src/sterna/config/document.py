"""Text of a domain <-> DomainDef."""

from __future__ import annotations

from lxml import etree

from sterna.config.codec import NAMESPACES, Mode, codec
from sterna.config.element import line_of
from sterna.config.model.domain import DomainDef
from sterna.config.variants import inactive_view
from sterna.config.variants import migratable as to_migratable
from sterna.errors import XmlDetail, XmlError

XML_BYTES_MAX = 4 * 1024 * 1024  # the wire's longest string; real domains have some ten kB

ELEMENTS_MAX = 32_768  # a machine of a thousand devices has some ten thousand
LINE_SHOWN_MAX = 4096  # of a line in an error's text


def parse_xml(xml: str, what: str = "domain_definition") -> etree._Element:
    """The root element of a document.

    Raises XmlDetail (35) with the place when it is not well-formed. Entities and the network are
    never touched; a document type declaration with entities is refused by depth and size limits
    of libxml2 and because unresolved entities are unknown content.
    """
    data = xml.encode("utf-8", "surrogatepass")
    if len(data) > XML_BYTES_MAX:
        raise XmlError(f"document of {len(data)} bytes exceeds the limit of {XML_BYTES_MAX}")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        remove_blank_text=True,
        strip_cdata=False,
        encoding="utf-8",
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as why:
        raise XmlDetail(_not_well_formed(data, why, what)) from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise XmlError(f"a document type declaration is not accepted (line {line_of(root)})")
    return root


def _not_well_formed(data: bytes, why: Exception, what: str) -> str:
    """As libvirt says it: (what):line: reason, the line, and a caret."""
    line, column = getattr(why, "position", (0, 0))
    reason = str(getattr(why, "msg", why)).split(", line ")[0]
    lines = data.decode("utf-8", "replace").split("\n")
    text = (lines[line - 1][:LINE_SHOWN_MAX] if 0 < line <= len(lines) else "") or "(null)"
    caret = "-" * max(min(column - 1, LINE_SHOWN_MAX), 0) + "^"
    return f"({what}):{line}: {reason}\n{text}\n{caret}"


def parse_domain(xml: str) -> DomainDef:
    """The definition a text describes.

    Raises XmlDetail (not well-formed), XmlError (missing or bad values), ConfigUnsupported
    (content nobody here knows, by name and line).
    """
    root = parse_xml(xml)
    if root.tag != "domain":
        raise XmlError(
            f"expecting root element of 'domain', not '{root.tag}' (line {line_of(root)})"
        )
    if sum(1 for _ in root.iter()) > ELEMENTS_MAX:
        raise XmlError(f"more than {ELEMENTS_MAX} elements in <domain>")
    found: DomainDef = codec(DomainDef).read(root)
    return found


def format_domain(
    d: DomainDef,
    *,
    domain_id: int | None = None,
    inactive: bool = False,
    secure: bool = False,
    migratable: bool = False,
    status: bool = False,
) -> str:
    """The text of a definition, as libvirt 9.0 prints it.

    Args:
        domain_id: printed in the root element, for a running guest.
        inactive: without what exists only while it runs.
        secure: with passwords.
        migratable: for another host, perhaps an older libvirt: without what was added by itself.
        status: for our own record of a running guest; reads back exactly as it was.
    """
    if migratable:
        d = to_migratable(d)
        inactive = True
    elif inactive:
        d = inactive_view(d)
    mode = Mode(inactive=inactive, secure=secure, status=status)
    out: list[str] = []
    codec(DomainDef).write("domain", d, out, "", mode)
    head = f"<domain type='{d.type}'"
    if domain_id is not None and not inactive:
        head += f" id='{domain_id}'"
    if d.uses_qemu_namespace:
        head += f" xmlns:qemu='{NAMESPACES['qemu']}'"
    out[0] = head + ">\n"
    return "".join(out)
