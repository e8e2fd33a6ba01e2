"""The four cookies that travel through the controller: libvirt's XML, with one element of ours.

Cookie 1 goes from Begin to Prepare, 2 from Prepare to Perform, 3 from Perform to Finish, 4 from
Finish to Confirm. Form, features and refusals are those of libvirt 9.0 (observed): text with a
trailing NUL, a receiver that refuses features it does not know and ignores elements it does not
know. So `<sterna id="…">` is invisible to a real libvirtd, and tells a Sterna which migration this
is (I3), that its source has given the guest away (`sent`), that a user paused it meanwhile (I19),
and what its destination decided.

A cookie comes from outside: it is validated completely, and bounded before it is parsed (I18).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Final
from uuid import UUID
from xml.sax.saxutils import escape, quoteattr

from lxml import etree

from sterna.errors import InternalError
from sterna.guest.jobstats import JobOperation, JobStats, JobType
from sterna.migration.params import PORT_MAX

COOKIE_BYTES_MAX: Final = 4 * 1024 * 1024
"""The protocol's own limit for a cookie."""
SIZE_MAX: Final = (1 << 63) - 1
EPOCH_DIGITS_MAX: Final = 18
"""An epoch fits a signed 64-bit integer of the store's."""


class Step(Enum):
    """Which call a cookie is read in, and the features that may be demanded there."""

    PREPARE = frozenset(
        {
            "lockstate",
            "nbd",
            "memory-hotplug",
            "cpu-hotplug",
            "cpu",
            "capabilities",
            "block-dirty-bitmaps",
        }
    )
    PERFORM = frozenset({"graphics", "nbd", "capabilities", "block-dirty-bitmaps"})
    FINISH = frozenset({"persistent", "network", "statistics", "nbd"})
    CONFIRM = frozenset({"statistics"})


FEATURES: Final = frozenset(
    {
        "graphics",
        "lockstate",
        "persistent",
        "network",
        "nbd",
        "statistics",
        "memory-hotplug",
        "cpu-hotplug",
        "cpu",
        "allowReboot",
        "capabilities",
        "block-dirty-bitmaps",
    }
)


@dataclass(frozen=True, slots=True)
class Times:
    """When the guest stopped and started, by the senders' clocks: ms since the epoch."""

    started: int = 0
    stopped: int = 0
    sent: int = 0
    delta: int | None = None


@dataclass(frozen=True, slots=True)
class Own:
    """Sterna's element.

    Attributes:
        id: the migration's.
        sent: the source has given the guest away.
        paused: somebody paused it meanwhile.
        decision: what the destination decided.
        epoch: the guest's at the sender; 0 where it knows none.
        asks: where the destination answers what it decided, `tcp://HOST:PORT`.
    """

    id: str
    sent: bool = False
    paused: bool = False
    decision: str | None = None
    epoch: int = 0
    asks: str | None = None


@dataclass(frozen=True, slots=True)
class DiskOffer:
    """One disk that is to be copied: its size in the guest, and what the copy may take (Sterna's
    own attribute, or the same), in bytes."""

    target: str
    capacity: int
    space: int


@dataclass(frozen=True, slots=True)
class Nbd:
    """Disks that are copied, and at the destination the port where they are received."""

    disks: tuple[DiskOffer, ...] = ()
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Cookie:
    """One cookie's content. `features` are demands on the receiver."""

    name: str
    uuid: UUID
    hostname: str
    host_uuid: UUID
    features: tuple[str, ...] = ()
    domain_xml: str | None = None
    cpu_xml: str | None = None
    capabilities: tuple[tuple[str, bool], ...] = ()
    """Name, and whether it is switched on without being asked for."""
    stats: JobStats | None = None
    times: Times | None = None
    own: Own | None = None
    nbd: Nbd | None = None


# -- writing ---------------------------------------------------------------------------------------


def format_cookie(cookie: Cookie) -> bytes:
    """The cookie as it travels, NUL included."""
    lines = [
        "<qemu-migration>",
        f"  <name>{escape(cookie.name)}</name>",
        f"  <uuid>{cookie.uuid}</uuid>",
        f"  <hostname>{escape(cookie.hostname)}</hostname>",
        f"  <hostuuid>{cookie.host_uuid}</hostuuid>",
    ]
    lines += [f"  <feature name='{name}'/>" for name in cookie.features]
    if cookie.domain_xml is not None:
        lines += _indented(cookie.domain_xml)
    if cookie.stats is not None:
        lines += _statistics(cookie.stats, cookie.times or Times())
    if cookie.nbd is not None:
        lines += _nbd(cookie.nbd)
    if cookie.cpu_xml is not None:
        lines += _indented(cookie.cpu_xml)
    if cookie.capabilities:
        lines.append("  <capabilities>")
        lines += [
            f"    <cap name='{name}' auto='{'yes' if auto else 'no'}'/>"
            for name, auto in cookie.capabilities
        ]
        lines.append("  </capabilities>")
    if cookie.own is not None:
        lines.append(f"  {_own(cookie.own)}")
    lines.append("</qemu-migration>\n")
    return "\n".join(lines).encode() + b"\0"


def _own(own: Own) -> str:
    words = [f"id={quoteattr(own.id)}"]
    words += ["sent='yes'"] if own.sent else []
    words += ["paused='yes'"] if own.paused else []
    words += [f"decision={quoteattr(own.decision)}"] if own.decision is not None else []
    words += [f"epoch='{own.epoch}'"] if own.epoch else []
    words += [f"asks={quoteattr(own.asks)}"] if own.asks is not None else []
    return f"<sterna {' '.join(words)}/>"


def _nbd(nbd: Nbd) -> Iterable[str]:
    yield "  <nbd>" if nbd.port is None else f"  <nbd port='{nbd.port}'>"
    for disk in nbd.disks:
        words = f"target={quoteattr(disk.target)} capacity='{disk.capacity}'"
        if disk.space != disk.capacity:
            words += f" space='{disk.space}'"
        yield f"    <disk {words}/>"
    yield "  </nbd>"


def _statistics(stats: JobStats, times: Times) -> Iterable[str]:
    yield "  <statistics>"
    for name in ("started", "stopped", "sent", "delta"):
        value = getattr(times, name)
        if value is not None:
            yield f"    <{name}>{value}</{name}>"
    for name, number in stats.params():
        if name not in _NOT_TOLD:
            yield f"    <{name}>{number}</{name}>"
    yield "  </statistics>"


_NOT_TOLD: Final = frozenset(
    {"operation", "data_total", "data_processed", "data_remaining", "errmsg"}
    | {"time_elapsed_net", "downtime_net"}
)
"""What the receiver computes or knows itself."""


def _indented(xml: str) -> Iterable[str]:
    return (f"  {line}" for line in xml.strip().splitlines())


# -- reading ---------------------------------------------------------------------------------------


def parse_cookie(data: bytes, step: Step, *, host_uuid: UUID) -> Cookie | None:
    """Read a cookie, or None if it is empty.

    Args:
        host_uuid: the reader's own; a guest does not migrate to where it is.

    Raises: InternalError (1), with libvirt's texts.
    """
    if not data:
        return None
    if len(data) > COOKIE_BYTES_MAX:
        raise InternalError(f"Migration cookie of more than {COOKIE_BYTES_MAX} bytes")
    if not data.endswith(b"\0"):
        raise InternalError("Migration cookie was not NULL terminated")
    root = _root(data[:-1])
    name = _text(root, "name")
    cookie = Cookie(
        name=name,
        uuid=_uuid(root, "uuid"),
        hostname=_text(root, "hostname"),
        host_uuid=_uuid(root, "hostuuid"),
        features=_features(root, step),
        domain_xml=_element(root, "domain"),
        cpu_xml=_element(root, "cpu"),
        capabilities=tuple(
            (cap.get("name", ""), cap.get("auto") == "yes")
            for cap in root.iterfind("capabilities/cap")
        ),
        own=_read_own(root),
        nbd=_read_nbd(root),
    )
    if cookie.host_uuid == host_uuid:
        raise InternalError(f"Attempt to migrate guest to the same host {host_uuid}")
    found = root.find("statistics")
    if found is not None:
        stats, times = _read_statistics(found)
        cookie = replace(cookie, stats=stats, times=times)
    return cookie


def require(cookie: Cookie | None) -> Cookie:
    """The cookie, where a step cannot do without. Raises: InternalError (1)."""
    if cookie is None:
        raise InternalError("migration cookie is missing")
    return cookie


def check_guest(cookie: Cookie, name: str, uuid: UUID) -> None:
    """Refuse a cookie of another guest. Raises: InternalError (1)."""
    if cookie.name != name:
        raise InternalError(f"Incoming cookie data had unexpected name {cookie.name} vs {name}")
    if cookie.uuid != uuid:
        raise InternalError(f"Incoming cookie data had unexpected UUID {cookie.uuid} vs {uuid}")


def _root(text: bytes) -> etree._Element:
    # Nothing in a cookie needs entities of its own.
    if b"<!DOCTYPE" in text:
        raise InternalError("(qemu_migration_cookie): a document type is not allowed")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, huge_tree=False, remove_comments=True
    )
    try:
        root = etree.fromstring(text, parser)
    except (etree.XMLSyntaxError, ValueError) as exc:
        raise InternalError(f"(qemu_migration_cookie): {exc}") from exc
    return root


def _text(root: etree._Element, name: str) -> str:
    text = root.findtext(name)
    if not text:
        raise InternalError(f"missing {name} element in migration data")
    return text


def _uuid(root: etree._Element, name: str) -> UUID:
    text = _text(root, name)
    try:
        return UUID(text)
    except ValueError:
        raise InternalError(f"malformed {name} element in migration data") from None


def _features(root: etree._Element, step: Step) -> tuple[str, ...]:
    names: list[str] = []
    for feature in root.iterfind("feature"):
        name = feature.get("name")
        if not name:
            raise InternalError("Missing feature name in migration cookie")
        if name not in FEATURES:
            raise InternalError(f"Unknown migration cookie feature {name}")
        if name not in step.value:
            raise InternalError(f"Unsupported migration cookie feature {name}")
        names.append(name)
    return tuple(names)


def _element(root: etree._Element, name: str) -> str | None:
    found = root.findall(name)
    if len(found) > 1:
        raise InternalError(f"Too many {name} elements in migration cookie")
    return etree.tostring(found[0], encoding="unicode", with_tail=False) if found else None


def _read_own(root: etree._Element) -> Own | None:
    found = root.find("sterna")
    if found is None:
        return None
    id = found.get("id", "")
    try:
        canonical = str(UUID(id)) == id  # the store and the guardian compare it as text
    except ValueError:
        canonical = False
    if not canonical:
        raise InternalError("malformed sterna element in migration data")
    epoch = found.get("epoch", "0")
    if not (epoch.isascii() and epoch.isdecimal() and len(epoch) <= EPOCH_DIGITS_MAX):
        raise InternalError("malformed sterna element in migration data")
    return Own(
        id,
        sent=found.get("sent") == "yes",
        paused=found.get("paused") == "yes",
        decision=found.get("decision"),
        epoch=int(epoch),
        asks=found.get("asks"),
    )


def _read_nbd(root: etree._Element) -> Nbd | None:
    found = root.find("nbd")
    if found is None:
        return None
    port = _number(found, "port", PORT_MAX) if found.get("port") else None
    disks: list[DiskOffer] = []
    for disk in found.iterfind("disk"):
        target = disk.get("target")
        if not target:
            raise InternalError("malformed nbd element in migration data")
        capacity = _number(disk, "capacity", SIZE_MAX)
        space = _number(disk, "space", SIZE_MAX) if disk.get("space") else capacity
        disks.append(DiskOffer(target, capacity, space))
    return Nbd(tuple(disks), port or None)


def _number(element: etree._Element, name: str, most: int) -> int:
    text = element.get(name, "")
    if not (text.isascii() and text.isdecimal()) or len(text) > 20 or int(text) > most:
        raise InternalError("malformed nbd element in migration data")
    return int(text)


_TIMES: Final = frozenset(field.name for field in fields(Times))
_STATS: Final = frozenset(field.name for field in fields(JobStats)) - _NOT_TOLD - {"type"}


def _read_statistics(element: etree._Element) -> tuple[JobStats, Times]:
    times: dict[str, int] = {}
    stats: dict[str, int] = {}
    for child in element:
        if not isinstance(child.tag, str) or child.tag not in _TIMES | _STATS:
            continue
        text = child.text or ""
        # A number of ours is at most 64 bits, 20 digits; anything else is not one.
        if not (text.lstrip("-").isascii() and text.lstrip("-").isdecimal()) or len(text) > 20:
            raise InternalError(f"malformed {child.tag} in migration statistics")
        (times if child.tag in _TIMES else stats)[child.tag] = int(text)
    read = JobStats(JobType.COMPLETED, JobOperation.MIGRATION_OUT, **stats)  # type: ignore[arg-type]  # integers by field name
    total = {
        "data_total": read.memory_total + read.disk_total,
        "data_processed": read.memory_processed + read.disk_processed,
        "data_remaining": read.memory_remaining + read.disk_remaining,
    }
    return replace(read, **total), Times(**times)  # type: ignore[arg-type]  # integers by field name
