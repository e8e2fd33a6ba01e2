"""PCI addresses, in libvirt's order: places asked for, the chipset's own, then one by one.

A dry run first finds how many buses are needed and those controllers are added; the real run then
places everything, controllers before endpoints. (libvirt 9.0, observed.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sterna.config.addresses.pci_chipset import reserve_chipset
from sterna.config.addresses.pci_rules import (
    BUS_RULES,
    CONTROLLER_PLUG,
    PciBuses,
    Plug,
)
from sterna.config.model import (
    Controller,
    Device,
    DomainDef,
    Hostdev,
    PciAddress,
)
from sterna.errors import ConfigUnsupported, ErrorDomain, XmlError

ROOTS = frozenset({"pci-root", "pcie-root"})
USB_COMPANION_FUNCTION = {"ich9-ehci1": 7, "ich9-uhci1": 0, "ich9-uhci2": 1, "ich9-uhci3": 2}
EXPRESS_USB = frozenset({"nec-xhci", "qemu-xhci"})
# Cards libvirt knows as conventional; any name it does not know is taken for an Express one.
CONVENTIONAL_NICS = frozenset({
    "rtl8139", "e1000", "vmxnet", "vmxnet2", "vmxnet3", "vlance", "netfront", "am79c970a",
    "am79c973", "82540em", "82545em", "82543gc", "virtio-transitional",
})  # fmt: skip
OFF_PCI = frozenset({"pci", "fdc", "ccid", "isa", "xenbus"})
PCI_INDEX_MAX = 255  # a bus number is one byte

MODEL_NAMES = {
    "pci-bridge": "pci-bridge",
    "dmi-to-pci-bridge": "i82801b11-bridge",
    "pcie-root-port": "pcie-root-port",
    "pcie-switch-upstream-port": "x3130-upstream",
    "pcie-switch-downstream-port": "xio3130-downstream",
    "pcie-to-pci-bridge": "pcie-pci-bridge",
    "pci-expander-bus": "pxb",
    "pcie-expander-bus": "pxb-pcie",
}


def assign_pci(d: DomainDef) -> None:
    """Give every PCI device its address; adds the pci controllers that this needs."""
    controllers = d.devices.controllers_of("pci")
    if not controllers:
        return
    _fill_index_gaps(d)
    highest = max(c.index or 0 for c in d.devices.controllers_of("pci"))
    dry = _buses(d, grow=True)
    had_room = _run(d, dry, dry=True)
    if dry.express:
        if highest == 0 and len(dry.buses) > 1:
            dry.next_place(Plug.PCIE)  # one free port, so that something can be hot-plugged
    elif had_room:
        dry.next_place(Plug.PCI_BRIDGE)
    for index, bus in enumerate(dry.buses):
        if index > highest:
            d.devices.controllers.append(Controller(type="pci", index=index, model=bus.model))
    for controller in d.devices.controllers_of("pci"):
        controller.model_name = controller.model_name or MODEL_NAMES.get(controller.model or "")
    _run(d, _buses(d, grow=False), dry=False)
    for controller in d.devices.controllers_of("pci"):
        _check_order(controller)
    _set_multifunction(d)
    for controller in d.devices.controllers_of("pci"):
        _set_target(d, controller)


def _check_order(controller: Controller) -> None:
    index, address = controller.index or 0, controller.address
    bridge = controller.model == "pci-bridge"
    if bridge and isinstance(address, PciAddress) and address.bus >= index:
        raise ConfigUnsupported(
            f"PCI controller at index {index} (0x{index:02x}) has bus='0x{address.bus:02x}',"
            " but index must be larger than bus"
        )


def pci_devices(d: DomainDef) -> Iterator[tuple[Device, PciAddress]]:
    """Every device that has a PCI address, with it."""
    for device in d.all_devices():
        if isinstance(device.address, PciAddress):
            yield device, device.address


def _fill_index_gaps(d: DomainDef) -> None:
    """Indexes of pci controllers are bus numbers: none may be missing."""
    controllers = d.devices.controllers_of("pci")
    root = next((c for c in controllers if c.index == 0), None)
    filler = "pcie-root-port" if root is not None and root.model == "pcie-root" else "pci-bridge"
    used = {c.index or 0 for c in controllers}
    if max(used) > PCI_INDEX_MAX:
        raise XmlError(f"PCI controller index {max(used)} too high, maximum is {PCI_INDEX_MAX}")
    for index in range(max(used)):
        if index not in used:
            d.devices.controllers.append(Controller(type="pci", index=index, model=filler))


def _buses(d: DomainDef, *, grow: bool) -> PciBuses:
    controllers = sorted(d.devices.controllers_of("pci"), key=lambda c: c.index or 0)
    models: list[str] = []
    for controller in controllers:
        if controller.model not in BUS_RULES:
            raise ConfigUnsupported(
                f"Unknown model type '{controller.model}'", domain=ErrorDomain.DOMAIN
            )
        models.append(controller.model)
    return PciBuses(models, grow=grow)


class _Placer:
    """Places devices; in a dry run it forgets what it gave them."""

    def __init__(self, buses: PciBuses, *, dry: bool) -> None:
        self.buses = buses
        self.dry = dry
        self.planned: dict[int, PciAddress] = {}  # companions need to see a dry run's places

    def has_place(self, device: Device) -> bool:
        return device.address is not None or id(device) in self.planned

    def place_of(self, device: Device) -> PciAddress | None:
        if isinstance(device.address, PciAddress):
            return device.address
        return self.planned.get(id(device))

    def give(self, device: Device, address: PciAddress) -> None:
        if self.dry:
            self.planned[id(device)] = address
        else:
            device.address = address

    def fixed(self, device: Device, address: PciAddress) -> None:
        """A place the chipset prescribes."""
        self.buses.reserve(address.bus, address.slot, address.function, Plug.PCI)
        self.give(device, address)

    def next(self, device: Device, plug: Plug) -> None:
        if not self.has_place(device):
            bus, slot, function = self.buses.next_place(plug)
            self.give(device, PciAddress(bus=bus, slot=slot, function=function))


def _run(d: DomainDef, buses: PciBuses, *, dry: bool) -> bool:
    """Place everything. Returns whether any slot was free before the first unasked placement."""
    placer = _Placer(buses, dry=dry)
    wanted = list(_wanted(d, express=buses.express))
    plugs = {id(device): plug for device, plug in wanted}
    for device, address in pci_devices(d):
        if address.domain != 0:
            raise XmlError(f"Invalid PCI address {address}. Only PCI domain 0 is available")
        plug = plugs.get(id(device), Plug.PCI)
        address.bus = buses.reserve(address.bus, address.slot, address.function, plug)
    reserve_chipset(d, buses, placer.fixed, placer.has_place, placer.next)
    had_room = any(bus.free_place(Plug.PCI) for bus in buses.buses)
    for device, plug in wanted:
        if isinstance(device, Controller) and _is_companion(device):
            _place_companion(d, device, placer)
        else:
            placer.next(device, plug)
    return had_room


def _wanted(d: DomainDef, *, express: bool) -> Iterator[tuple[Device, Plug]]:
    """Every device that sits on PCI, and as what, in the order in which they are placed."""
    modern = Plug.PCIE if express else Plug.PCI

    def virtio(model: str | None) -> Plug:
        return Plug.PCI if model == "virtio-transitional" else modern

    devices = d.devices
    for controller in devices.controllers:
        if controller.type == "pci" and controller.model not in ROOTS:
            yield controller, _controller_plug(controller)
    for filesystem in devices.filesystems:
        yield filesystem, virtio(filesystem.model)
    for nic in devices.interfaces:
        if nic.model != "usb-net":
            yield nic, Plug.PCI if nic.model in CONVENTIONAL_NICS else modern
    for sound in devices.sounds:
        if sound.model not in ("sb16", "pcspk", "usb"):
            yield sound, Plug.PCI
    for controller in devices.controllers:
        if controller.type not in OFF_PCI and controller.model != "none":
            yield controller, _bus_controller_plug(controller, virtio)
    for disk in devices.disks:
        if disk.bus == "virtio":
            yield disk, virtio(disk.model)
    for hostdev in devices.hostdevs:
        if _is_pci(hostdev):
            yield hostdev, modern
    yield from _wanted_rest(d, virtio)


def _wanted_rest(
    d: DomainDef, virtio: Callable[[str | None], Plug]
) -> Iterator[tuple[Device, Plug]]:
    devices = d.devices
    if devices.memballoon is not None and devices.memballoon.model.startswith("virtio"):
        yield devices.memballoon, virtio(devices.memballoon.model)
    for rng in devices.rngs:
        yield rng, virtio(rng.model)
    for watchdog in devices.watchdogs:
        if watchdog.model == "i6300esb":
            yield watchdog, Plug.PCI
    for video in devices.videos:
        kind = video.model.type if video.model is not None else None
        if kind not in (None, "none", "ramfb", "default"):
            yield video, virtio(None) if kind in ("virtio", "bochs") else Plug.PCI
    for shmem in devices.shmems:
        yield shmem, Plug.PCI
    for one in devices.inputs:
        if one.bus == "virtio":
            yield one, virtio(one.model)
    for serial in devices.serials:
        if serial.target_type == "pci-serial":
            yield serial, Plug.PCI
    for memory in devices.memories:
        if memory.model in ("virtio-pmem", "virtio-mem"):
            yield memory, virtio(None)
    if devices.iommu is not None and devices.iommu.model == "virtio":
        yield devices.iommu, Plug.INTEGRATED
    if devices.vsock is not None:
        yield devices.vsock, virtio(devices.vsock.model)
    for crypto in devices.cryptos:
        yield crypto, virtio(None)


def _is_pci(hostdev: Hostdev) -> bool:
    return hostdev.mode == "subsystem" and (
        hostdev.type in ("pci", "scsi_host")
        or (hostdev.type == "mdev" and hostdev.model in (None, "vfio-pci"))
    )


def _controller_plug(controller: Controller) -> Plug:
    return CONTROLLER_PLUG.get(controller.model or "", Plug.PCI)


def _bus_controller_plug(controller: Controller, virtio: Callable[[str | None], Plug]) -> Plug:
    if controller.type == "usb":
        return virtio(None) if controller.model in EXPRESS_USB else Plug.PCI
    if controller.type == "virtio-serial" or (controller.model or "").startswith("virtio"):
        return virtio(controller.model)
    return Plug.PCI


def _is_companion(controller: Controller) -> bool:
    return controller.type == "usb" and controller.model in USB_COMPANION_FUNCTION


def _place_companion(d: DomainDef, controller: Controller, placer: _Placer) -> None:
    """An EHCI controller and its three companions share one slot."""
    if placer.has_place(controller):
        return
    function = USB_COMPANION_FUNCTION[controller.model or ""]
    for other in d.devices.controllers_of("usb"):
        place = placer.place_of(other)
        if (
            other.index == controller.index
            and other.model in USB_COMPANION_FUNCTION
            and place is not None
        ):
            placer.buses.reserve(place.bus, place.slot, function, Plug.PCI)
            break
    else:
        bus, slot, first = placer.buses.next_place(Plug.PCI)
        if first != function:
            placer.buses.buses[bus].take(slot, function)
            placer.buses.buses[bus].slots[slot].functions &= ~(1 << first)
        place = PciAddress(bus=bus, slot=slot)
    multi = True if function == 0 else None
    placer.give(
        controller,
        PciAddress(bus=place.bus, slot=place.slot, function=function, multifunction=multi),
    )


def _set_multifunction(d: DomainDef) -> None:
    """Function 0 of a slot with several functions must say so."""
    used: dict[tuple[int, int], int] = {}
    for _, address in pci_devices(d):
        key = (address.bus, address.slot)
        used[key] = used.get(key, 0) | 1 << address.function
    for _, address in pci_devices(d):
        several = used[(address.bus, address.slot)] & ~1
        if address.function == 0 and address.multifunction is None and several:
            address.multifunction = True


def _set_target(d: DomainDef, controller: Controller) -> None:
    """What the guest sees of a port or bridge: chassis and port numbers."""
    address = controller.address
    index = controller.index or 0
    match controller.model:
        case "pci-bridge":
            if controller.chassis_nr is None:
                controller.chassis_nr = index
        case "pcie-root-port" | "pcie-switch-downstream-port":
            if controller.chassis is None:
                controller.chassis = index
            if controller.port is None and isinstance(address, PciAddress):
                root = controller.model == "pcie-root-port"
                port = (address.slot << 3) + address.function
                controller.port = port if root else address.slot
        case "pci-expander-bus" | "pcie-expander-bus":
            if controller.bus_nr is None:
                controller.bus_nr = _expander_bus_number(d, controller)
        case _:
            pass


def _expander_bus_number(d: DomainDef, controller: Controller) -> int:
    """Far above what the firmware enumerates, leaving room for each expander's own buses."""
    lowest = 256
    for other in d.devices.controllers_of("pci"):
        if other.bus_nr is not None:
            lowest = min(lowest, other.bus_nr)
    below = sum(
        1
        for other in d.devices.controllers_of("pci")
        if isinstance(other.address, PciAddress) and other.address.bus == controller.index
    )
    number = lowest - max(below, 1) - 1
    if number < 1:
        raise XmlError("No more room for expander buses")
    return number
