"""What the two sides tell each other through cookies, taken from guests and given to them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from uuid import UUID

from lxml import etree

from sterna.config import DomainDef, format_domain, parse_domain
from sterna.errors import InternalError
from sterna.guest.actor import Guest
from sterna.migration.answers import Host
from sterna.migration.cookie import Cookie, Own
from sterna.migration.core.words import Proof
from sterna.migration.outgoing import Outgoing
from sterna.migration.ownership import Owners
from sterna.migration.params import Request


def now_ms() -> int:
    """Milliseconds since the epoch, as cookies count."""
    return time.time_ns() // 1_000_000


def basic_cookie(host: Host, name: str, guest: UUID, id: str, owners: Owners) -> Cookie:
    """What every cookie of this host says: of which guest, from whom, in which migration."""
    own = Own(id, epoch=owners.epoch(guest))
    return Cookie(name, guest, host.name, host.uuid, own=own)


def capabilities(names: Iterable[str], automatic: str) -> tuple[tuple[str, bool], ...]:
    """QEMU's capabilities as a cookie lists them."""
    return tuple((name, name == automatic) for name in names)


def cpu_xml(live: DomainDef) -> str | None:
    """The guest's CPU in full, for cookie 1; None if the definition leaves it to QEMU."""
    if live.cpu is None:
        return None
    root = etree.fromstring(format_domain(live, migratable=True).encode())
    found = root.find("cpu")
    return None if found is None else etree.tostring(found, encoding="unicode", with_tail=False)


def use_cpu(definition: DomainDef, cookie: Cookie) -> None:
    """Build the CPU that the guest has at its source, where the definition names it by its host.

    Raises: InternalError (1) if the cookie's is none.
    """
    own = definition.cpu
    if cookie.cpu_xml is None or own is None or own.mode not in ("host-model", "maximum"):
        return
    wrapped = f"<domain type='qemu'><name>cpu</name><memory>1</memory>{cookie.cpu_xml}</domain>"
    cpu = parse_domain(wrapped).cpu
    if cpu is None:
        raise InternalError("migration cookie has no usable CPU")
    cpu.topology = cpu.topology or own.topology
    definition.cpu = cpu


def persistent_xml(guest: Guest, request: Request) -> str:
    """What the destination shall write down as the guest's definition."""
    if request.persistent_xml is not None:
        return format_domain(parse_domain(request.persistent_xml), inactive=True, secure=True)
    return format_domain(guest.definition or guest.current, inactive=True, secure=True)


def proof(outgoing: Outgoing, cookie: Cookie | None) -> Proof:
    """What the cookie at Confirm says of the destination's decision (I20)."""
    own = cookie.own if cookie is not None else None
    if own is not None and own.id == outgoing.id and own.decision == "committed":
        return Proof.COMMITTED
    return Proof.FOREIGN if outgoing.foreign else Proof.NONE
