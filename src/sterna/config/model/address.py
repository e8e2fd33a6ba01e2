"""Where a device sits: the <address> element's kinds, and what every device has.

Orders and widths are libvirt 9.0's output, observed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sterna.config.codec import at, variants
from sterna.config.values import ANY_BASE, HEX1, HEX2, HEX4, NAT, ON_OFF, YES_NO
from sterna.errors import XmlError

DOMAIN_MAX, BUS_MAX, SLOT_MAX, FUNCTION_MAX = 0xFFFF, 0xFF, 0x1F, 7


@dataclass(slots=True)
class PciAddress:
    """A slot of the guest's PCI hierarchy; `bus` is the index of a pci controller."""

    type: str = at("@type", default="pci")
    domain: int = at("@domain", HEX4, 0)
    bus: int = at("@bus", HEX2, 0)
    slot: int = at("@slot", HEX2, 0)
    function: int = at("@function", HEX1, 0)
    multifunction: bool | None = at("@multifunction", ON_OFF)

    def after_parse(self, _line: int) -> None:
        if self.domain > DOMAIN_MAX:
            raise XmlError(f"Invalid PCI address domain='{self.domain:#x}', must be <= 0xFFFF")
        if self.bus > BUS_MAX:
            raise XmlError(f"Invalid PCI address bus='{self.bus:#x}', must be <= 0xFF")
        if self.slot > SLOT_MAX:
            raise XmlError(f"Invalid PCI address slot='{self.slot:#x}', must be <= 0x1F")
        if self.function > FUNCTION_MAX:
            raise XmlError(f"Invalid PCI address function={self.function:#x}, must be <= 7")

    @property
    def place(self) -> tuple[int, int, int, int]:
        return (self.domain, self.bus, self.slot, self.function)

    @property
    def is_empty(self) -> bool:
        """Slot 0 of the root bus is libvirt's way to say: none was given."""
        return not (self.domain or self.bus or self.slot)

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.slot:02x}.{self.function:x}"


@dataclass(slots=True)
class DriveAddress:
    """A disk's place on an ide, sata, scsi or fdc controller."""

    type: str = at("@type", default="drive")
    controller: int = at("@controller", NAT, 0)
    bus: int = at("@bus", NAT, 0)
    target: int = at("@target", NAT, 0)
    unit: int = at("@unit", NAT, 0)

    @property
    def place(self) -> tuple[int, int, int, int]:
        return (self.controller, self.bus, self.target, self.unit)


@dataclass(slots=True)
class VirtioSerialAddress:
    type: str = at("@type", default="virtio-serial")
    controller: int = at("@controller", NAT, 0)
    bus: int = at("@bus", NAT, 0)
    port: int | None = at("@port", NAT)


@dataclass(slots=True)
class CcidAddress:
    type: str = at("@type", default="ccid")
    controller: int = at("@controller", NAT, 0)
    slot: int = at("@slot", NAT, 0)


@dataclass(slots=True)
class UsbAddress:
    """`port` is dotted where hubs are between ("1.2"); None until it is assigned."""

    type: str = at("@type", default="usb")
    bus: int = at("@bus", NAT, 0)
    port: str | None = at("@port")


@dataclass(slots=True)
class IsaAddress:
    type: str = at("@type", default="isa")
    iobase: int | None = at("@iobase", HEX1)
    irq: int | None = at("@irq", HEX1)


@dataclass(slots=True)
class DimmAddress:
    type: str = at("@type", default="dimm")
    slot: int | None = at("@slot", NAT)
    base: int | None = at("@base", HEX1)


@dataclass(slots=True)
class VirtioMmioAddress:
    type: str = at("@type", default="virtio-mmio")


@dataclass(slots=True)
class CcwAddress:
    type: str = at("@type", default="ccw")
    cssid: int | None = at("@cssid", HEX1)
    ssid: int | None = at("@ssid", HEX1)
    devno: int | None = at("@devno", HEX4)


@dataclass(slots=True)
class SpaprVioAddress:
    type: str = at("@type", default="spapr-vio")
    reg: int | None = at("@reg", ANY_BASE)


@dataclass(slots=True)
class UnassignedAddress:
    """The device is described but not given to the guest."""

    type: str = at("@type", default="unassigned")


Address = (
    PciAddress
    | DriveAddress
    | VirtioSerialAddress
    | CcidAddress
    | UsbAddress
    | IsaAddress
    | DimmAddress
    | VirtioMmioAddress
    | CcwAddress
    | SpaprVioAddress
    | UnassignedAddress
)

ADDRESSES: dict[str, type] = {
    "pci": PciAddress,
    "drive": DriveAddress,
    "virtio-serial": VirtioSerialAddress,
    "ccid": CcidAddress,
    "usb": UsbAddress,
    "isa": IsaAddress,
    "dimm": DimmAddress,
    "virtio-mmio": VirtioMmioAddress,
    "ccw": CcwAddress,
    "spapr-vio": SpaprVioAddress,
    "unassigned": UnassignedAddress,
}

USER_ALIAS = "ua-"


@dataclass(slots=True)
class Device:
    """What every device has. `alias` is its id in QEMU; `address` where it sits."""

    xml_tail: ClassVar[tuple[str, ...]] = (
        "boot_order",
        "boot_loadparm",
        "alias",
        "master_startport",
        "rom_bar",
        "rom_enabled",
        "rom_file",
        "acpi_index",
        "address",
    )

    alias: str | None = at("alias@name")
    acpi_index: int | None = at("acpi@index", NAT)
    address: Address | None = variants("address", "type", ADDRESSES)


@dataclass(slots=True)
class BootDevice(Device):
    """A device the firmware can boot from, or with an option ROM."""

    boot_order: int | None = at("boot@order", NAT, required=True)
    boot_loadparm: str | None = at("boot@loadparm")
    rom_bar: bool | None = at("rom@bar", ON_OFF)
    rom_enabled: bool | None = at("rom@enabled", YES_NO)
    rom_file: str | None = at("rom@file")


@dataclass(slots=True)
class HostPciAddress:
    """A PCI device of the host (no `type` attribute, or type='pci')."""

    type: str | None = at("@type")
    domain: int = at("@domain", HEX4, 0)
    bus: int = at("@bus", HEX2, 0)
    slot: int = at("@slot", HEX2, 0)
    function: int = at("@function", HEX1, 0)
