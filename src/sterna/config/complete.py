"""What libvirt adds to a definition between reading and keeping it.

Defaults of the domain and of each device, implicit devices and controllers, addresses: in
libvirt's order, since addresses depend on it. Completing a completed definition changes nothing.
"""

from __future__ import annotations

import uuid as uuidlib
from collections.abc import Callable

from sterna.config.addresses.drive import assign_drives
from sterna.config.addresses.memory import assign_memory_slots
from sterna.config.addresses.pci import assign_pci
from sterna.config.addresses.usb import assign_usb
from sterna.config.addresses.virtio_serial import assign_virtio_serial
from sterna.config.caps import EmulatorFacts
from sterna.config.default_devices import complete_devices
from sterna.config.default_domain import complete_domain
from sterna.config.implicit import (
    add_chipset_controllers,
    add_consoles,
    add_drive_controllers,
    add_implicit_devices,
    arrange,
    number_controllers,
    place_scsi_hostdevs,
    refuse_double_indexes,
)
from sterna.config.model import DomainDef
from sterna.config.variants import strip_live


def complete(
    d: DomainDef,
    facts: EmulatorFacts,
    *,
    new_uuid: Callable[[], uuidlib.UUID],
    new_mac: Callable[[], str],
) -> None:
    """Fill in, in place, everything the definition left open.

    Args:
        facts: the emulator that will run it (machine names, path).
        new_uuid, new_mac: called once for each that is missing, so that this stays pure.

    Raises XmlError and ConfigUnsupported, in libvirt's words where they were seen.
    """
    strip_live(d)
    arrange(d)
    complete_domain(d, facts, new_uuid)
    complete_devices(d, new_mac)
    number_controllers(d)
    refuse_double_indexes(d)
    assign_drives(d)
    place_scsi_hostdevs(d)
    add_chipset_controllers(d)
    add_consoles(d)
    add_implicit_devices(d)
    add_drive_controllers(d)
    assign_virtio_serial(d)
    assign_pci(d)
    assign_usb(d)
    assign_memory_slots(d)
