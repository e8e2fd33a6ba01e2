"""Controllers, hubs and the IOMMU: the buses everything else sits on."""

from __future__ import annotations

from typing import Any

from sterna.config.model import Controller, Iommu, PciAddress
from sterna.qemu.argv_build import (
    Build,
    on_off,
    refuse,
    virtio_driver,
    virtio_options,
    without_none,
)

_ORDER = ("pci", "usb", "scsi", "ide", "sata", "virtio-serial")
"""libvirt's order of kinds on the command line. Smartcard
readers come later, after the hubs they may sit on (9.0, observed)."""

_USB_DRIVERS = {
    "piix3-uhci": "piix3-usb-uhci",
    "piix4-uhci": "piix4-usb-uhci",
    "ehci": "usb-ehci",
    "ich9-ehci1": "ich9-usb-ehci1",
    "ich9-uhci1": "ich9-usb-uhci1",
    "ich9-uhci2": "ich9-usb-uhci2",
    "ich9-uhci3": "ich9-usb-uhci3",
    "vt82c686b-uhci": "vt82c686b-usb-uhci",
    "pci-ohci": "pci-ohci",
    "nec-xhci": "nec-usb-xhci",
    "qemu-xhci": "qemu-xhci",
}

_SCSI_DRIVERS = {
    "lsilogic": "lsi",
    "lsisas1068": "mptsas1068",
    "lsisas1078": "megasas",
    "am53c974": "am53c974",
    "dc390": "dc-390",
}

_VIRTIO_SCSI = {
    "virtio-scsi": "virtio",
    "virtio-transitional": "virtio-transitional",
    "virtio-non-transitional": "virtio-non-transitional",
}


def controllers(build: Build) -> None:
    for kind in _ORDER:
        _controllers_of(build, kind)
    for controller in build.d.devices.controllers:
        if controller.type not in (*_ORDER, "fdc", "ccid"):
            raise refuse(f"controller type '{controller.type}'")


def _controllers_of(build: Build, kind: str) -> None:
    controllers = build.d.devices.controllers_of(kind)
    if kind != "usb":  # several of one index are one controller, its companions after it
        controllers.sort(key=lambda controller: controller.index or 0)
    for controller in controllers:
        _controller(build, controller)


def _controller(build: Build, controller: Controller) -> None:
    match controller.type:
        case "pci":
            properties = _pci(build, controller)
        case "usb":
            properties = _usb(build, controller)
        case "scsi":
            properties = _scsi(build, controller)
        case "ide":
            if not (build.is_i440fx or build.machine_type == "isapc") or controller.index:
                raise refuse("an IDE controller beside the machine's own")
            return
        case "sata":
            if build.is_q35 and not controller.index:
                return  # the chipset's own
            properties = {"driver": "ahci", "id": build.alias(controller)} | build.pci(controller)
        case "virtio-serial":
            properties = _virtio_serial(build, controller)
        case _:
            properties = {"driver": "usb-ccid", "id": build.alias(controller)}
            properties |= build.usb(controller)
    if properties:
        _check(build, properties)
        build.device(properties)


def _check(build: Build, properties: dict[str, Any]) -> None:
    if not build.has_device(properties["driver"]):
        raise refuse(f"controller device '{properties['driver']}' in this QEMU binary")


def _pci(build: Build, controller: Controller) -> dict[str, Any]:
    model = controller.model
    if model in ("pci-root", "pcie-root"):
        if controller.index:
            raise refuse("more than one PCI root on this machine")
        _pci_hole(build, controller)
        return {}
    properties: dict[str, Any] = {}
    name = controller.model_name
    match model:
        case "pci-bridge":
            properties = {"driver": name or "pci-bridge", "chassis_nr": controller.chassis_nr}
        case "pci-expander-bus":
            properties = {"driver": name or "pxb", "bus_nr": controller.bus_nr}
        case "pcie-expander-bus":
            properties = {"driver": name or "pxb-pcie", "bus_nr": controller.bus_nr}
        case "dmi-to-pci-bridge":
            properties = {"driver": name or "i82801b11-bridge"}
        case "pcie-to-pci-bridge":
            properties = {"driver": name or "pcie-pci-bridge"}
        case "pcie-switch-upstream-port":
            properties = {"driver": name or "x3130-upstream"}
        case "pcie-root-port" | "pcie-switch-downstream-port":
            default = "pcie-root-port" if model == "pcie-root-port" else "xio3130-downstream"
            properties = {
                "driver": name or default,
                "port": controller.port,
                "chassis": controller.chassis,
            }
        case _:
            raise refuse(f"PCI controller model '{model}'")
    if model in ("pci-expander-bus", "pcie-expander-bus") and controller.node is not None:
        properties["numa_node"] = controller.node
    properties["id"] = build.alias(controller)
    if controller.hotplug is not None:
        properties["hotplug"] = controller.hotplug
    return without_none(**properties) | build.pci(controller)


def _pci_hole(build: Build, controller: Controller) -> None:
    if controller.pcihole64 is None:
        return
    host = "q35-pcihost" if build.is_q35 else "i440FX-pcihost"
    build.opt("-global", f"{host}.pci-hole64-size={controller.pcihole64}K")


def _usb(build: Build, controller: Controller) -> dict[str, Any]:
    if controller.model == "none":
        return {}
    driver = _USB_DRIVERS.get(controller.model or "")
    if driver is None:
        raise refuse(f"USB controller model '{controller.model}'")
    properties: dict[str, Any] = {"driver": driver}
    if controller.ports is not None:
        if controller.model not in ("nec-xhci", "qemu-xhci"):
            raise refuse(f"ports of USB controller model '{controller.model}'")
        properties |= {"p2": controller.ports, "p3": controller.ports}
    if controller.master_startport is not None:
        master = f"{build.alias(controller)}.0"
        properties |= {"masterbus": master, "firstport": controller.master_startport}
    else:
        properties["id"] = build.alias(controller)
    return properties | build.pci(controller)


def _scsi(build: Build, controller: Controller) -> dict[str, Any]:
    model, driver = controller.model or "lsilogic", controller.driver
    properties: dict[str, Any]
    if model in _VIRTIO_SCSI:
        properties = {"driver": virtio_driver("virtio-scsi", _VIRTIO_SCSI[model])}
        if driver is not None and driver.iothread is not None:
            properties["iothread"] = f"iothread{driver.iothread}"
        properties |= virtio_options(driver)
        properties["id"] = build.alias(controller)
        if driver is not None:
            properties |= without_none(
                num_queues=driver.queues,
                cmd_per_lun=driver.cmd_per_lun,
                max_sectors=driver.max_sectors,
                ioeventfd=driver.ioeventfd,
            )
    elif model in _SCSI_DRIVERS:
        if driver is not None and driver != type(driver)():
            raise refuse(f"<driver> of SCSI controller model '{model}'")
        properties = {"driver": _SCSI_DRIVERS[model], "id": build.alias(controller)}
    else:
        raise refuse(f"SCSI controller model '{model}'")
    return properties | build.pci(controller)


def _virtio_serial(build: Build, controller: Controller) -> dict[str, Any]:
    properties: dict[str, Any] = {"driver": virtio_driver("virtio-serial", controller.model)}
    properties |= virtio_options(controller.driver)
    properties["id"] = build.alias(controller)
    properties |= without_none(max_ports=controller.ports, vectors=controller.vectors)
    return properties | build.pci(controller)


def hubs(build: Build) -> None:
    """Append USB hubs, then the smartcard readers."""
    for hub in build.d.devices.hubs:
        build.device({"driver": "usb-hub", "id": build.alias(hub)} | build.usb(hub))
    _controllers_of(build, "ccid")


def iommu(build: Build) -> None:
    device = build.d.devices.iommu
    if device is None:
        return
    if device.model == "intel":
        if not build.is_q35:
            raise refuse("an Intel IOMMU on a machine other than q35")
        build.device(_intel_iommu(device))
    elif device.model == "virtio":
        properties: dict[str, Any] = {"driver": "virtio-iommu", "id": "iommu0"}
        if not isinstance(device.address, PciAddress):
            raise refuse("a virtio IOMMU without a PCI address")
        build.device(properties | build.pci(device))
    else:
        raise refuse(f"IOMMU model '{device.model}'")


def _intel_iommu(device: Iommu) -> dict[str, Any]:
    properties: dict[str, Any] = {"driver": "intel-iommu", "id": "iommu0"}
    driver = device.driver
    if driver is None:
        return properties
    if driver.intremap is not None:
        properties["intremap"] = on_off(driver.intremap)
    if driver.caching_mode is not None:
        properties["caching-mode"] = driver.caching_mode
    if driver.eim is not None:
        properties["eim"] = on_off(driver.eim)
    if driver.iotlb is not None:
        properties["device-iotlb"] = driver.iotlb
    if driver.aw_bits is not None:
        properties["aw-bits"] = driver.aw_bits
    return properties
