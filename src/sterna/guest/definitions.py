"""Small questions to definitions, and their texts as the store keeps them."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from sterna.config import (
    DomainDef,
    EmulatorFacts,
    check,
    complete,
    format_domain,
    parse_domain,
)
from sterna.config.model import Chardev
from sterna.errors import NoName, XmlError

NAME_BYTES_MAX: Final = 200
"""Names become parts of file names (255 bytes at most): the log's, the save image's."""

DEVICES_MAX: Final = 1024
"""Devices of one guest. Placing them takes time with their number squared, and no machine of ours
has room for as many."""


LONG_XML_CHARS: Final = 1 << 16
MANY_DEVICES: Final = 64
"""Beyond either, reading or completing can take longer than the loop may stand still."""


async def parsed(xml: str) -> DomainDef:
    """Read a definition; a long one beside the loop.

    Raises: XmlError, XmlDetail, ConfigUnsupported.
    """
    if len(xml) <= LONG_XML_CHARS:
        return parse_domain(xml)
    return await asyncio.to_thread(parse_domain, xml)


async def completed_beside(definition: DomainDef, facts: EmulatorFacts) -> DomainDef:
    """The same as `completed`, a big machine's beside the loop."""
    if devices_of(definition) <= MANY_DEVICES:
        return completed(definition, facts)
    return await asyncio.to_thread(completed, definition, facts)


def devices_of(definition: DomainDef) -> int:
    """How many devices it has."""
    kinds = (getattr(definition.devices, field.name) for field in fields(definition.devices))
    return sum(len(kind) for kind in kinds if isinstance(kind, list))


def check_size(definition: DomainDef) -> None:
    """Refuse a machine of more devices than can be.

    Raises: XmlError (27).
    """
    if devices_of(definition) > DEVICES_MAX:
        raise XmlError(f"more than {DEVICES_MAX} devices")


WORDS_BYTES_MAX: Final = 1 << 20
DEFINITION_BYTES_MAX: Final = 2 << 20
"""Together, and with what a start adds, below the 4 MiB that a document may have when it is read
again: a definition that nobody can read any more would be lost with the daemon's end."""


def check_words(definition: DomainDef) -> None:
    """Refuse more free text than a definition may hold.

    Raises: XmlError (27).
    """
    metadata = definition.metadata.xml if definition.metadata is not None else ""
    words = (definition.title or "") + (definition.description or "") + metadata
    if len(words.encode()) > WORDS_BYTES_MAX:
        raise XmlError(f"title, description and metadata of more than {WORDS_BYTES_MAX} bytes")


def check_length(definition: DomainDef) -> None:
    """Refuse a definition that would be too long to be read again.

    Raises: XmlError (27).
    """
    check_words(definition)
    if len(format_stored(definition).encode()) > DEFINITION_BYTES_MAX:
        raise XmlError(f"definition of more than {DEFINITION_BYTES_MAX} bytes")


def check_name(name: str) -> None:
    """Refuse a name no file can have.

    Raises: NoName (21), XmlError (27).
    """
    if not name:
        raise NoName
    if "/" in name:
        raise XmlError(f"name {name} cannot contain '/'")
    if name in (".", "..") or "\n" in name or "\0" in name:
        raise XmlError(f"invalid name {name!r}")
    if len(name.encode()) > NAME_BYTES_MAX:
        raise XmlError(f"name of more than {NAME_BYTES_MAX} bytes")


def completed(definition: DomainDef, facts: EmulatorFacts) -> DomainDef:
    """The definition with defaults, implicit devices and addresses, checked; without what only a
    running guest has.

    Raises: XmlError, ConfigUnsupported.
    """
    check_name(definition.name)
    check_size(definition)
    complete(definition, facts, new_uuid=uuid.uuid4, new_mac=new_mac)
    check(definition, facts)
    check_length(definition)
    return definition


def new_mac() -> str:
    """A random address in QEMU's own range, 52:54:00."""
    tail = secrets.token_bytes(3)
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)


def uuid_of(definition: DomainDef) -> uuid.UUID:
    """The uuid of a completed definition.

    Raises: XmlError if it has none.
    """
    if definition.uuid is None:
        raise XmlError("missing domain uuid")
    return definition.uuid


def format_live(definition: DomainDef, domain_id: int) -> str:
    """A live definition's text, for the status record: everything, secrets too."""
    return format_domain(definition, domain_id=domain_id, secure=True, status=True)


def format_stored(definition: DomainDef) -> str:
    """A persistent definition's text, for the store: secrets too."""
    return format_domain(definition, inactive=True, secure=True)


def channel_by_alias(definition: DomainDef, alias: str) -> Chardev | None:
    """The virtio-serial channel whose port QEMU calls `alias`."""
    return next((c for c in definition.devices.channels if c.alias == alias), None)


def disk_by_event(definition: DomainDef, data: Mapping[str, Any]) -> tuple[str, str] | None:
    """Source path and alias of the disk a QEMU event names by device, id or block node."""
    names = {data.get("device"), data.get("id"), data.get("node-name")} - {None, ""}
    for disk in definition.devices.disks:
        known = {disk.alias, f"drive-{disk.alias}"}
        if disk.source is not None and disk.source.index is not None:
            index = disk.source.index
            known |= {f"libvirt-{index}-format", f"libvirt-{index}-storage"}
        if names & known or any(
            str(n).startswith(f"/machine/peripheral/{disk.alias}/") for n in names
        ):
            return disk.path or "", disk.alias or ""
    return None


def vcpus_max(definition: DomainDef) -> int:
    return definition.vcpu or 1


def vcpus_now(definition: DomainDef) -> int:
    return definition.vcpu_current or vcpus_max(definition)


def memory_max_kib(definition: DomainDef) -> int:
    return definition.memory or 0


def memory_now_kib(definition: DomainDef) -> int:
    """The balloon's size; without one, or before it was ever set, all of it."""
    current = definition.current_memory
    return memory_max_kib(definition) if current is None else current
