"""Drive addresses: a disk's place on its controller follows from its target's index."""

from __future__ import annotations

from sterna.config.addresses.names import target_index
from sterna.config.model import Disk, DomainDef, DriveAddress

SATA_PORTS = 6
SCSI_UNITS = 7  # a narrow bus has 8 places, one is the controller's own
DRIVE_BUSES = frozenset({"ide", "sata", "scsi", "fdc"})


def default_address(bus: str, index: int) -> DriveAddress | None:
    """Place of the disk with this target index; None for a bus without drive addresses."""
    match bus:
        case "ide":
            return DriveAddress(controller=index // 4, bus=index % 4 // 2, unit=index % 2)
        case "sata":
            return DriveAddress(controller=index // SATA_PORTS, unit=index % SATA_PORTS)
        case "fdc":
            return DriveAddress(controller=index // 2, unit=index % 2)
        case "scsi":
            return DriveAddress(controller=index // SCSI_UNITS, unit=index % SCSI_UNITS)
        case _:
            return None


def assign_drives(d: DomainDef) -> None:
    """Give every disk without address its place; two names can't share one."""
    for disk in d.devices.disks:
        if disk.address is None and disk.bus in DRIVE_BUSES:
            disk.address = default_address(disk.bus, _index(disk))


def _index(disk: Disk) -> int:
    return max(target_index(disk.target), 0)
