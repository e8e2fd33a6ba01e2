"""Places that the chipset of pc (PIIX3) and q35 (ICH9) prescribes."""

from __future__ import annotations

from collections.abc import Callable

from sterna.config.addresses.pci_rules import FUNCTIONS, PciBuses, Plug
from sterna.config.model import Controller, Device, DomainDef, PciAddress, Video
from sterna.errors import InternalError, XmlError

Fix = Callable[[Device, PciAddress], None]
HasPlace = Callable[[Device], bool]
Next = Callable[[Device, Plug], None]

ICH9_SLOT = 0x1F
ICH9_SOUND_SLOT = 0x1B
ICH9_USB_SLOTS = (0x1D, 0x1A)
DMI_BRIDGE_SLOT = 0x1E
ICH9_USB = {"ich9-ehci1": 7, "ich9-uhci1": 0, "ich9-uhci2": 1, "ich9-uhci3": 2}


def reserve_chipset(
    d: DomainDef, buses: PciBuses, fix: Fix, has_place: HasPlace, place_next: Next
) -> None:
    """Take what belongs to the chipset, and place the devices that are part of it.

    The first video device sits at slot 2 (pc) or 1 (q35), elsewhere if something else is there.
    """
    if buses.express:
        _reserve_ich9(d, buses, fix, has_place)
        _place_primary_video(d, buses, 1, fix, has_place)
        _place_ich9_sound(d, buses, fix, has_place)
    elif buses.buses and buses.buses[0].model == "pci-root":
        _reserve_piix3(d, buses, fix, has_place)
        _place_primary_video(d, buses, 2, fix, has_place)
        for video in d.devices.videos[:1]:
            if _is_pci(video):
                place_next(video, Plug.PCI)


def _must_be(device: Device, what: str, slot: int, function: int) -> None:
    place = device.address
    wrong = isinstance(place, PciAddress) and place.place != (0, 0, slot, function)
    if wrong or (place is not None and not isinstance(place, PciAddress)):
        raise InternalError(f"{what} must have PCI address 0:0:{slot:x}.{function}")


def _reserve_piix3(d: DomainDef, buses: PciBuses, fix: Fix, has_place: HasPlace) -> None:
    for controller in d.devices.controllers:
        if controller.index != 0:
            continue
        if controller.type == "ide":
            _must_be(controller, "Primary IDE controller", 1, 1)
            if not has_place(controller):
                fix(controller, PciAddress(slot=1, function=1))
        elif controller.type == "usb" and controller.model == "piix3-uhci":
            _must_be(controller, "PIIX3 USB controller at index 0", 1, 2)
            if not has_place(controller):
                fix(controller, PciAddress(slot=1, function=2))
    root = buses.buses[0]
    if root.functions(1) & 1:
        raise XmlError("Attempted double use of PCI Address 0000:00:01.0")
    for function in range(FUNCTIONS):
        root.take(1, function)


def _reserve_ich9(d: DomainDef, buses: PciBuses, fix: Fix, has_place: HasPlace) -> None:
    root = buses.buses[0]
    for controller in d.devices.controllers:
        if controller.type == "sata" and controller.index == 0:
            _must_be(controller, "Primary SATA controller", ICH9_SLOT, 2)
            if not has_place(controller):
                fix(controller, PciAddress(slot=ICH9_SLOT, function=2))
        elif controller.type == "usb" and controller.model in ICH9_USB:
            _place_ich9_usb(d, controller, buses, fix, has_place)
        elif (
            controller.model == "dmi-to-pci-bridge"
            and not has_place(controller)
            and not root.functions(DMI_BRIDGE_SLOT)
        ):
            fix(controller, PciAddress(slot=DMI_BRIDGE_SLOT))
    for function in (0, 3):
        if root.functions(ICH9_SLOT) >> function & 1:
            raise XmlError(f"Attempted double use of PCI Address 0000:00:{ICH9_SLOT:x}.{function}")
        root.take(ICH9_SLOT, function)


def _place_ich9_sound(d: DomainDef, buses: PciBuses, fix: Fix, has_place: HasPlace) -> None:
    root = buses.buses[0]
    for sound in d.devices.sounds:
        if sound.model == "ich9" and not has_place(sound):
            if not root.functions(ICH9_SOUND_SLOT):
                fix(sound, PciAddress(slot=ICH9_SOUND_SLOT))
            break


def _place_ich9_usb(
    d: DomainDef, controller: Controller, buses: PciBuses, fix: Fix, has_place: HasPlace
) -> None:
    """The first set of EHCI and companions sits at 1d, the second at 1a."""
    if has_place(controller):
        return
    sets = sorted({c.index or 0 for c in d.devices.controllers_of("usb") if c.model in ICH9_USB})
    number = sets.index(controller.index or 0)
    if number < len(ICH9_USB_SLOTS):
        slot = ICH9_USB_SLOTS[number]
        function = ICH9_USB[controller.model or ""]
        if not buses.buses[0].functions(slot) >> function & 1:
            multi = True if function == 0 else None
            fix(controller, PciAddress(slot=slot, function=function, multifunction=multi))


def _place_primary_video(
    d: DomainDef, buses: PciBuses, slot: int, fix: Fix, has_place: HasPlace
) -> None:
    video: Video | None = d.devices.videos[0] if d.devices.videos else None
    if video is None or not _is_pci(video):
        return
    if not has_place(video) and not buses.buses[0].functions(slot):
        fix(video, PciAddress(slot=slot))


def _is_pci(video: Video) -> bool:
    return video.model is not None and video.model.type not in (None, "none", "ramfb", "default")
