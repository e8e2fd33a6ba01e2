"""Slots of memory modules."""

from __future__ import annotations

from sterna.config.model import DimmAddress, DomainDef
from sterna.errors import XmlError

IN_SLOTS = frozenset({"dimm", "nvdimm"})


def assign_memory_slots(d: DomainDef) -> None:
    """DIMMs and NVDIMMs without a slot get the lowest free one."""
    modules = [m for m in d.devices.memories if m.model in IN_SLOTS]
    taken: set[int] = set()
    for module in modules:
        if isinstance(module.address, DimmAddress) and module.address.slot is not None:
            if module.address.slot in taken:
                raise XmlError(
                    f"memory device slot '{module.address.slot}' is already being used"
                    " by another memory device"
                )
            taken.add(module.address.slot)
    for module in modules:
        address = module.address
        if address is None:
            module.address = address = DimmAddress()
        if isinstance(address, DimmAddress) and address.slot is None:
            slot = 0
            while slot in taken:
                slot += 1
            taken.add(slot)
            address.slot = slot
