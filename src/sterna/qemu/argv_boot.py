"""Which device the firmware tries when: one numbering from two ways of saying it."""

from __future__ import annotations

from sterna.config.model import Disk, DomainDef, Hostdev, Interface, Redirdev


class BootOrder:
    """Boot indexes of devices.

    Either devices say `<boot order='N'/>` themselves, or `<os><boot dev=.../>` names kinds; then
    the first device of a kind gets the kind's place, counted from 1 (libvirt 9.0, observed).
    """

    def __init__(self, d: DomainDef) -> None:
        self._places: dict[int, int] = {}
        kinds = [boot.dev for boot in d.os.boot] if d.os is not None else []
        disks = d.devices.disks
        first = {
            "hd": next((disk for disk in disks if disk.device in ("disk", "lun")), None),
            "cdrom": next((disk for disk in disks if disk.device == "cdrom"), None),
            "fd": next((disk for disk in disks if disk.device == "floppy"), None),
            "network": next(iter(d.devices.interfaces), None),
        }
        for place, kind in enumerate(kinds, 1):
            device = first.get(kind or "")
            if device is not None:
                self._places.setdefault(id(device), place)

    def of(self, device: Disk | Interface | Hostdev | Redirdev) -> int | None:
        """A device's place, None if it is not booted from."""
        if device.boot_order is not None:
            return device.boot_order
        return self._places.get(id(device))
