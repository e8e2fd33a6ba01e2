"""USB ports. Hubs are added where the controllers' own ports do not suffice."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sterna.config.model import Device, DomainDef, Hub, UsbAddress
from sterna.errors import XmlError

HUB_PORTS = 8
_PORT = re.compile(r"[1-9][0-9]{0,2}\Z")
DEPTH_MAX = 4  # dots and numbers QEMU accepts: 1.2.3.4
PORTS = {
    "piix3-uhci": 2, "piix4-uhci": 2, "ehci": 6, "ich9-ehci1": 6, "ich9-uhci1": 2,
    "ich9-uhci2": 2, "ich9-uhci3": 2, "vt82c686b-uhci": 2, "pci-ohci": 3, "nec-xhci": 4,
    "qemu-xhci": 4,
}  # fmt: skip
SIZEABLE = frozenset({"nec-xhci", "qemu-xhci"})
COMPANIONS = frozenset({"ich9-uhci1", "ich9-uhci2", "ich9-uhci3"})


class _Ports:
    """A controller's or hub's ports: number -> the hub on it, True for a device, None free."""

    __slots__ = ("path", "ports")

    def __init__(self, count: int, path: str) -> None:
        self.ports: dict[int, _Ports | bool | None] = dict.fromkeys(range(1, count + 1))
        self.path = path

    def free(self) -> Iterator[tuple[_Ports, int]]:
        """Free places in libvirt's order: this level first, then through the hubs."""
        for number, user in self.ports.items():
            if user is None:
                yield self, number
        for user in self.ports.values():
            if isinstance(user, _Ports):
                yield from user.free()

    def name(self, number: int) -> str:
        return f"{self.path}.{number}" if self.path else str(number)


def usb_devices(d: DomainDef) -> list[Device]:
    """Devices on USB in the order in which libvirt gives them ports (observed)."""
    devices = d.devices
    found: list[Device] = []
    found += [h for h in devices.hostdevs if h.mode == "subsystem" and h.type == "usb"]
    found += [disk for disk in devices.disks if disk.bus == "usb"]
    found += [c for c in devices.controllers if c.type == "ccid"]
    found += [i for i in devices.inputs if i.bus == "usb"]
    found += [s for s in devices.serials if s.target_type == "usb-serial"]
    found += [s for s in devices.sounds if s.model == "usb"]
    found += [r for r in devices.redirdevs if r.bus == "usb"]
    return found


def assign_usb(d: DomainDef) -> None:
    """Give every USB device a bus and port, adding hubs where ports run out."""
    buses: dict[int, _Ports] = {}
    for controller in d.devices.controllers_of("usb"):
        count = PORTS.get(controller.model or "", 0)
        if controller.model in SIZEABLE and controller.ports:
            count = controller.ports
        index = controller.index or 0
        if count and (index not in buses or controller.model not in COMPANIONS):
            buses[index] = _Ports(count, "")
    if not buses:
        return
    users = usb_devices(d)
    for hub in sorted(_placed(list(d.devices.hubs)), key=_dots):
        _reserve(buses, hub, hub=True)
    for user in _placed(users):
        _reserve(buses, user, hub=False)
    waiting_hubs = [h for h in d.devices.hubs if _port(h) is None]
    waiting = [u for u in users if _port(u) is None]
    free = sum(1 for bus in buses.values() for _ in bus.free())
    missing = len(waiting) + len(waiting_hubs) - free - len(waiting_hubs) * HUB_PORTS
    while missing > 0:
        hub = Hub(type="usb")
        d.devices.hubs.append(hub)
        waiting_hubs.append(hub)
        missing -= HUB_PORTS - 1
    for device in (*waiting_hubs, *waiting):
        _assign(buses, device)


def _port(device: Device) -> str | None:
    return device.address.port if isinstance(device.address, UsbAddress) else None


def _dots(device: Device) -> int:
    return (_port(device) or "").count(".")


def _placed(devices: list[Device]) -> list[Device]:
    return [device for device in devices if _port(device) is not None]


def _numbers(port: str) -> list[int]:
    parts = port.split(".")
    if len(parts) > DEPTH_MAX or not all(_PORT.match(part) for part in parts):
        raise XmlError(f"Cannot parse <address> 'port' attribute: '{port}'")
    return [int(part) for part in parts]


def _reserve(buses: dict[int, _Ports], device: Device, *, hub: bool) -> None:
    address = device.address
    if not isinstance(address, UsbAddress) or address.port is None:
        return
    level = buses.get(address.bus)
    if level is None:
        raise XmlError(f"Missing USB bus {address.bus}")
    *above, last = _numbers(address.port)
    for number in above:
        below = level.ports.get(number)
        if not isinstance(below, _Ports):
            raise XmlError(
                f"there is no hub at port {number} in USB address"
                f" bus: {address.bus} port: {address.port}"
            )
        level = below
    if last not in level.ports:
        raise XmlError(f"requested USB port {address.port} not present on USB bus {address.bus}")
    if level.ports[last] is not None:
        raise XmlError(f"Duplicate USB address bus {address.bus} port {address.port}")
    level.ports[last] = _Ports(HUB_PORTS, address.port) if hub else True


def _assign(buses: dict[int, _Ports], device: Device) -> None:
    wanted = device.address.bus if isinstance(device.address, UsbAddress) else None
    for index, bus in sorted(buses.items()):
        if wanted is not None and wanted != index:
            continue
        for level, number in bus.free():
            name = level.name(number)
            is_hub = isinstance(device, Hub)
            level.ports[number] = _Ports(HUB_PORTS, name) if is_hub else True
            device.address = UsbAddress(bus=index, port=name)
            return
    raise XmlError("No free USB ports")
