"""Devices and controllers a definition does not name but the machine has or needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sterna.config.addresses.drive import SCSI_UNITS
from sterna.config.addresses.names import target_index
from sterna.config.addresses.pci import MODEL_NAMES, ROOTS
from sterna.config.clone import clone
from sterna.config.default_devices import complete_video, default_audio
from sterna.config.model import (
    CcidAddress,
    Chardev,
    Controller,
    Device,
    DomainDef,
    DriveAddress,
    Input,
    Memballoon,
    Video,
    VirtioSerialAddress,
)
from sterna.errors import ConfigUnsupported, ErrorDomain, InternalError, XmlError

USB_DEFAULT = "piix3-uhci"
SCSI_DEFAULT = "lsilogic"
USB_MASTER = "ich9-ehci1"
USB_COMPANIONS = {"ich9-uhci1": 0, "ich9-uhci2": 2, "ich9-uhci3": 4}  # the port each starts at
CONTROLLER_MODELS = {
    "usb": set(USB_COMPANIONS)
    | {"piix3-uhci", "piix4-uhci", "ehci", "ich9-ehci1", "vt82c686b-uhci", "pci-ohci",
       "nec-xhci", "qemu-xhci", "none"},
    "scsi": frozenset({"auto", "buslogic", "lsilogic", "lsisas1068", "vmpvscsi", "ibmvscsi",
                       "virtio-scsi", "lsisas1078", "virtio-transitional",
                       "virtio-non-transitional", "am53c974", "dc390"}),
    "ide": frozenset({"piix3", "piix4", "ich6"}),
    "sata": frozenset(),
    "fdc": frozenset(),
    "ccid": frozenset(),
    "isa": frozenset(),
    "virtio-serial": frozenset({"virtio", "virtio-transitional", "virtio-non-transitional"}),
}  # fmt: skip
CONTROLLERS_MAX = 255  # keeps one absurd address from adding millions of controllers

Item = TypeVar("Item")


def is_q35(d: DomainDef) -> bool:
    machine = (d.os.machine if d.os is not None else None) or ""
    return machine.startswith(("pc-q35", "q35"))


def is_i440fx(d: DomainDef) -> bool:
    machine = (d.os.machine if d.os is not None else None) or ""
    return machine == "pc" or machine.startswith(("pc-i440fx", "pc-0.", "pc-1."))


def arrange(d: DomainDef) -> None:
    """Put disks and controllers in the order in which libvirt keeps them while reading.

    Disks of one bus stand together, by target index; the bus is the one written in the text
    ("none" is a bus too). Controllers of one type stand together, by index.
    """
    d.devices.disks = _arranged(
        d.devices.disks, lambda one: one.bus, lambda one: target_index(one.target)
    )
    d.devices.controllers = _arranged(d.devices.controllers, lambda one: one.type, _index)


def _index(controller: Controller) -> int:
    return -1 if controller.index is None else controller.index


def _arranged(
    items: list[Item], group_of: Callable[[Item], object], rank_of: Callable[[Item], int]
) -> list[Item]:
    """Each before the first of its group that ranks higher, else after the last of its group."""
    groups: dict[object, tuple[list[Item], list[int]]] = {}
    for item in items:
        members, ranks = groups.setdefault(group_of(item), ([], []))
        rank = rank_of(item)
        at = next((i for i, other in enumerate(ranks) if 0 <= rank < other), len(ranks))
        members.insert(at, item)
        ranks.insert(at, rank)
    return [item for members, _ in groups.values() for item in members]


def number_controllers(d: DomainDef) -> None:
    """A controller without index gets the lowest free one of its type; models get defaults."""
    for controller in d.devices.controllers:
        allowed = CONTROLLER_MODELS.get(controller.type)
        if controller.model is not None and allowed is not None and controller.model not in allowed:
            raise ConfigUnsupported(
                f"Unknown model type '{controller.model}'", domain=ErrorDomain.DOMAIN
            )
    used: dict[str, set[int]] = {}
    before: Controller | None = None  # the USB controller before this one
    for controller in d.devices.controllers:
        if controller.index is not None and controller.index < 0:
            controller.index = None  # libvirt writes -1 for "any"
        if controller.index is not None:
            used.setdefault(controller.type, set()).add(controller.index)
    for controller in d.devices.controllers:
        taken = used.setdefault(controller.type, set())
        companion = controller.type == "usb" and controller.model in USB_COMPANIONS
        if companion and controller.index is None and before is not None:
            controller.index = before.index
        if companion and controller.master_startport is None:
            controller.master_startport = USB_COMPANIONS[controller.model or ""]
        if controller.type == "usb":
            before = controller if companion or controller.model == USB_MASTER else None
        if controller.index is None:
            index = 0
            while index in taken:
                index += 1
            taken.add(index)
            controller.index = index
        if controller.type == "usb" and controller.model is None:
            controller.model = USB_DEFAULT
        if controller.type == "scsi" and controller.model in (None, "auto"):
            controller.model = SCSI_DEFAULT


def refuse_double_indexes(d: DomainDef) -> None:
    """USB is looked at later: the companions of one EHCI controller share its index."""
    seen: set[tuple[str, int | None]] = set()
    for controller in d.devices.controllers:
        if controller.type == "usb":
            continue
        key = (controller.type, controller.index)
        if key in seen:
            raise XmlError(
                f"Multiple '{controller.type}' controllers with index '{controller.index}'"
            )
        seen.add(key)


def _has(d: DomainDef, kind: str, index: int | None = None) -> bool:
    return any(
        c.type == kind and (index is None or c.index == index) for c in d.devices.controllers
    )


def _add(d: DomainDef, kind: str, index: int, model: str | None = None) -> None:
    if not _has(d, kind, index):
        d.devices.controllers.append(Controller(type=kind, index=index, model=model))


def add_chipset_controllers(d: DomainDef) -> None:
    """The controllers each machine type has on board."""
    q35, i440fx = is_q35(d), is_i440fx(d)
    if not (q35 or i440fx):
        return
    if not _has(d, "usb", 0):
        _add(d, "usb", 0, "qemu-xhci" if q35 else USB_DEFAULT)
    if q35:
        _add(d, "sata", 0)
    root = "pcie-root" if q35 else "pci-root"
    for controller in d.devices.controllers_of("pci"):
        if controller.model is None and controller.index != 0:
            raise InternalError("PCI controller model was not set correctly")
        if controller.model not in MODEL_NAMES and controller.model not in (None, *ROOTS):
            raise ConfigUnsupported(
                f"Unknown model type '{controller.model}'", domain=ErrorDomain.DOMAIN
            )
        if controller.model in ROOTS and controller.index != 0:
            raise XmlError("pci-root and pcie-root controllers should have index 0")
        if controller.index == 0 and controller.model != root:
            raise XmlError(
                f"The PCI controller with index='0' must be model='{root}' for this machine type,"
                f" but model='{controller.model or '(null)'}' was found instead"
            )
    _add(d, "pci", 0, root)


def place_scsi_hostdevs(d: DomainDef) -> None:
    """SCSI devices of the host take the first free units, on the first controllers."""
    scsi: list[Device] = [disk for disk in d.devices.disks if disk.bus == "scsi"]
    scsi += [hostdev for hostdev in d.devices.hostdevs if hostdev.type == "scsi"]
    used = {one.address.place for one in scsi if isinstance(one.address, DriveAddress)}
    for hostdev in d.devices.hostdevs:
        if hostdev.mode != "subsystem" or hostdev.type != "scsi" or hostdev.address is not None:
            continue
        number = 0
        while (number // SCSI_UNITS, 0, 0, number % SCSI_UNITS) in used:
            number += 1
        address = DriveAddress(controller=number // SCSI_UNITS, unit=number % SCSI_UNITS)
        used.add(address.place)
        hostdev.address = address
        for index in range(address.controller + 1):
            _add(d, "scsi", index, SCSI_DEFAULT)


def add_consoles(d: DomainDef) -> None:
    """The first console and the first serial port are two views of one device."""
    devices = d.devices
    serial = devices.serials[0] if devices.serials else None
    first = devices.consoles[0] if devices.consoles else None
    if first is not None and first.target_type == "serial":
        if serial is None:
            serial = clone(first)
            serial.target_type = serial.target_model = "isa-serial"
            serial.target_port = "0"
            serial.tty = None
            devices.serials.append(serial)
        first = devices.consoles[0]
    elif serial is not None and serial.target_type == "isa-serial":
        first = Chardev(target_type="serial")
        devices.consoles.insert(0, first)
    else:
        return
    mirror_serial(first, serial)


def mirror_serial(console: Chardev, serial: Chardev) -> None:
    """Make the console the serial port's twin: same host end, same port and alias."""
    console.type = serial.type
    console.sources = clone(serial.sources)
    console.protocol = serial.protocol
    console.log_file, console.log_append = serial.log_file, serial.log_append
    console.target_port = serial.target_port
    console.alias = serial.alias
    console.tty = serial.path if serial.type == "pty" else None


def add_implicit_devices(d: DomainDef) -> None:
    """PS/2 mouse and keyboard, a video card where there is a display, audio, the balloon."""
    devices = d.devices
    if not (is_q35(d) or is_i440fx(d)):
        return
    for kind in ("mouse", "keyboard"):
        if not any(one.type == kind and one.bus == "ps2" for one in devices.inputs):
            devices.inputs.append(Input(type=kind, bus="ps2"))
    if devices.graphics and not devices.videos:
        devices.videos.append(Video())
        complete_video(devices.videos[0], first=True)
    if not devices.audios:
        audio = default_audio(d)
        if audio is not None:
            devices.audios.append(audio)
    if devices.memballoon is None:
        devices.memballoon = Memballoon(model="virtio")


def add_drive_controllers(d: DomainDef) -> None:
    """Controllers that disks, channels and smartcards refer to, in libvirt's order."""
    devices = d.devices
    for kind, model in (("scsi", SCSI_DEFAULT), ("fdc", None), ("ide", None), ("sata", None)):
        highest = -1
        for disk in devices.disks:
            if disk.bus == kind and isinstance(disk.address, DriveAddress):
                highest = max(highest, disk.address.controller)
        for hostdev in devices.hostdevs if kind == "scsi" else ():
            if hostdev.type == "scsi" and isinstance(hostdev.address, DriveAddress):
                highest = max(highest, hostdev.address.controller)
        if highest > CONTROLLERS_MAX:
            raise XmlError(f"{kind} controller {highest} is out of range")
        for index in range(highest + 1):
            _add(d, kind, index, model)
    for kind in ("ide", "fdc"):
        if len(devices.controllers_of(kind)) > 1:
            name = kind.upper() if kind == "ide" else kind
            raise InternalError(f"Only 1 {name} controller is supported")
    asked: set[int] = set()
    for channel in devices.channels:
        if channel.target_type == "virtio":
            place = channel.address
            asked.add(place.controller if isinstance(place, VirtioSerialAddress) else 0)
    if any(console.target_type == "virtio" for console in devices.consoles):
        asked.add(0)
    for index in sorted(asked):
        _add(d, "virtio-serial", index)
    if devices.smartcards:
        _add(d, "ccid", 0)
    for slot, smartcard in enumerate(devices.smartcards):
        if smartcard.address is None:
            smartcard.address = CcidAddress(controller=0, slot=slot)
