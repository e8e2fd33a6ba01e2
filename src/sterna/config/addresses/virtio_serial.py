"""Ports of virtio-serial controllers. Port 0 of a controller belongs to consoles (QEMU docs)."""

from __future__ import annotations

from sterna.config.model import Chardev, Controller, DomainDef, VirtioSerialAddress
from sterna.errors import XmlError

PORTS_DEFAULT = 31


def assign_virtio_serial(d: DomainDef) -> None:
    """Channels get a controller and a port; consoles none, QEMU places them itself."""
    controllers = d.devices.controllers_of("virtio-serial")
    ports: dict[int, set[int]] = {}
    for controller in controllers:
        ports[controller.index or 0] = set()
    users = [c for c in d.devices.channels if c.target_type == "virtio"]
    for user in users:
        _claim(user, ports)
    limits = {c.index or 0: c.ports or PORTS_DEFAULT for c in controllers}
    for user in users:
        _assign(user, d, ports, limits)


def _claim(user: Chardev, ports: dict[int, set[int]]) -> None:
    place = user.address
    if isinstance(place, VirtioSerialAddress) and place.port is not None:
        taken = ports.setdefault(place.controller, set())
        if place.port in taken:
            raise XmlError(
                f"virtio serial port {place.port} on controller {place.controller}"
                " is already occupied"
            )
        taken.add(place.port)


def _assign(
    user: Chardev, d: DomainDef, ports: dict[int, set[int]], limits: dict[int, int]
) -> None:
    place = user.address
    if isinstance(place, VirtioSerialAddress) and place.port is not None:
        return
    if place is not None and not isinstance(place, VirtioSerialAddress):
        return
    candidates = [place.controller] if place is not None else sorted(ports)
    for index in candidates:
        taken = ports.setdefault(index, set())
        for port in range(1, limits.get(index, PORTS_DEFAULT)):
            if port not in taken:
                taken.add(port)
                user.address = VirtioSerialAddress(controller=index, port=port)
                return
    if place is not None:
        raise XmlError(f"Unable to find a free virtio-serial port on controller {place.controller}")
    index = max(ports, default=-1) + 1
    d.devices.controllers.append(Controller(type="virtio-serial", index=index))
    ports[index] = {1}
    limits[index] = PORTS_DEFAULT
    user.address = VirtioSerialAddress(controller=index, port=1)
