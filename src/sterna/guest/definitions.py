"""Small questions to definitions, and their texts as the store keeps them."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from typing import Any, Final

from sterna.config import (
    DomainDef,
    EmulatorFacts,
    check,
    complete,
    format_domain,
)
from sterna.config.model import Chardev
from sterna.errors import NoName, XmlError

NAME_BYTES_MAX: Final = 200
"""Names become parts of file names (255 bytes at most): the log's, the save image's."""


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
    complete(definition, facts, new_uuid=uuid.uuid4, new_mac=new_mac)
    check(definition, facts)
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
