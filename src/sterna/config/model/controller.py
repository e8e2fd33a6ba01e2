"""<controller>: the buses devices sit on."""

from __future__ import annotations

from dataclasses import dataclass

from sterna.config.codec import at, child, in_kib
from sterna.config.model.address import Device
from sterna.config.values import HEX1, INT, NAT, ON_OFF, one_of

CONTROLLER_TYPES = one_of(
    "ide", "fdc", "scsi", "sata", "virtio-serial", "ccid", "usb", "pci", "xenbus", "isa"
)


MODEL_NAMES = one_of(
    "pci-bridge", "i82801b11-bridge", "ioh3420", "pcie-root-port", "x3130-upstream",
    "xio3130-downstream", "pcie-pci-bridge", "pxb", "pxb-pcie", "spapr-pci-host-bridge",
)  # fmt: skip


@dataclass(slots=True)
class ControllerDriver:
    queues: int | None = at("@queues", NAT)
    cmd_per_lun: int | None = at("@cmd_per_lun", NAT)
    max_sectors: int | None = at("@max_sectors", NAT)
    ioeventfd: bool | None = at("@ioeventfd", ON_OFF)
    iothread: int | None = at("@iothread", NAT)
    iommu: bool | None = at("@iommu", ON_OFF)
    ats: bool | None = at("@ats", ON_OFF)
    packed: bool | None = at("@packed", ON_OFF)
    page_per_vq: bool | None = at("@page_per_vq", ON_OFF)


@dataclass(slots=True)
class Controller(Device):
    """A controller; `index` is unique within its `type`.

    For type pci the target fields are what the guest sees: chassis and port of a root port,
    bus number of an expander. `model_name` is QEMU's device.
    """

    type: str = at("@type", CONTROLLER_TYPES, "ide")
    index: int | None = at("@index", INT)
    model: str | None = at("@model")
    ports: int | None = at("@ports", NAT)
    vectors: int | None = at("@vectors", NAT)
    max_grant_frames: int | None = at("@maxGrantFrames", NAT)
    max_event_channels: int | None = at("@maxEventChannels", NAT)
    model_name: str | None = at("model@name", MODEL_NAMES)
    chassis_nr: int | None = at("target@chassisNr", INT)
    chassis: int | None = at("target@chassis", INT)
    port: int | None = at("target@port", HEX1)
    bus_nr: int | None = at("target@busNr", INT)
    target_index: int | None = at("target@index", NAT)
    hotplug: bool | None = at("target@hotplug", ON_OFF)
    node: int | None = at("target/node", NAT)
    pcihole64: int | None = in_kib("pcihole64")
    master_startport: int | None = at("master@startport", NAT)
    driver: ControllerDriver | None = child("driver", ControllerDriver)


@dataclass(slots=True)
class Hub(Device):
    type: str = at("@type", one_of("usb"), "")


@dataclass(slots=True)
class IommuDriver:
    intremap: bool | None = at("@intremap", ON_OFF)
    caching_mode: bool | None = at("@caching_mode", ON_OFF)
    eim: bool | None = at("@eim", ON_OFF)
    iotlb: bool | None = at("@iotlb", ON_OFF)
    aw_bits: int | None = at("@aw_bits", NAT)


@dataclass(slots=True)
class Iommu(Device):
    model: str = at("@model", one_of("intel", "smmuv3", "virtio"), "intel")
    driver: IommuDriver | None = child("driver", IommuDriver)
