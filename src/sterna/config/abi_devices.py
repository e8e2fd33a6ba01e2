"""Devices of two definitions, side by side, as the guest sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sterna.config.model import (
    CcidAddress,
    Controller,
    Device,
    Devices,
    Disk,
    DriveAddress,
    Input,
    Memballoon,
    PciAddress,
    VirtioSerialAddress,
)
from sterna.config.values import size_bytes
from sterna.errors import ConfigUnsupported, ErrorDomain

Get = Callable[[Any], object]


class Kind(NamedTuple):
    """One list of devices: its name in the count's sentence, and what must be equal."""

    list: str
    counted: str
    fields: tuple[tuple[str, Get], ...] = ()


def _attribute(name: str) -> Get:
    return lambda device: getattr(device, name)


def _model(name: str) -> Get:
    return lambda device: getattr(device.model, name) if device.model is not None else None


def _number(name: str) -> Get:
    """libvirt prints -1 for what was not given."""
    return lambda device: -1 if getattr(device, name) is None else getattr(device, name)


KINDS: tuple[Kind, ...] = (
    Kind("disks", "disk", (("disk", _attribute("target")),)),
    Kind("controllers", "controller", (
        ("controller type", _attribute("type")),
        ("controller index", _attribute("index")),
        ("controller model", _attribute("model")),
        ("controller ports", _number("ports")),
        ("controller vectors", _number("vectors")),
        ("PCI controller chassis", _number("chassis")),
        ("PCI controller port", _number("port")),
    )),
    Kind("filesystems", "filesystem", (("guest filesystem target", _attribute("target")),)),
    Kind("interfaces", "net card", (
        ("network card mac", _attribute("mac")),
        ("network card model", _attribute("model")),
        ("network card MTU", _number("mtu")),
    )),
    Kind("inputs", "input device", (
        ("input device type", _attribute("type")),
        ("input device bus", _attribute("bus")),
        ("input model", _attribute("model")),
    )),
    Kind("sounds", "sound card", (("sound card model", _attribute("model")),)),
    Kind("videos", "video card", (
        ("video card model", _model("type")),
        ("video card ram", _model("ram")),
        ("video card vram", _model("vram")),
        ("video card vgamem", _model("vgamem")),
        ("video card heads", _model("heads")),
    )),
    Kind("hostdevs", "host device", (
        ("host device mode", _attribute("mode")),
        ("host device subsystem", _attribute("type")),
    )),
    Kind("smartcards", "smartcard"),
    Kind("serials", "serial port", (
        ("serial type", _attribute("target_type")),
        ("serial port", _attribute("target_port")),
    )),
    Kind("parallels", "parallel port", (("parallel port", _attribute("target_port")),)),
    Kind("channels", "channel", (
        ("channel type", _attribute("target_type")),
        ("channel name", _attribute("target_name")),
    )),
    Kind("consoles", "console", (("console type", _attribute("target_type")),)),
    Kind("hubs", "hub device", (("hub device type", _attribute("type")),)),
    Kind("redirdevs", "redirected devices", (("redirected device bus", _attribute("bus")),)),
    Kind("watchdogs", "watchdog", (("watchdog model", _attribute("model")),)),
    Kind("rngs", "RNG device", (("RNG model", _attribute("model")),)),
    Kind("panics", "panic device", (("panic model", _attribute("model")),)),
    Kind("shmems", "shared memory device"),
    Kind("tpms", "TPM device", (("TPM device model", _attribute("model")),)),
    Kind("memories", "memory device", (
        ("memory device model", _attribute("model")),
        ("memory device size", _attribute("size")),
        ("memory device targetNode", _attribute("node")),
    )),
    Kind("cryptos", "crypto device", (("crypto device model", _attribute("model")),)),
)  # fmt: skip

QUOTED = frozenset({"RNG model", "panic model", "memory device model", "memory device size"})


def _differ(text: str) -> ConfigUnsupported:
    return ConfigUnsupported(text, domain=ErrorDomain.DOMAIN)


def check_device_lists(source: Devices, target: Devices) -> None:
    for kind in KINDS:
        ours: Sequence[Device] = in_order(getattr(source, kind.list))
        theirs: Sequence[Device] = in_order(getattr(target, kind.list))
        if len(ours) != len(theirs):
            raise _differ(
                f"Target domain {kind.counted} count {len(theirs)} does not match"
                f" source {len(ours)}"
            )
        for mine, other in zip(ours, theirs, strict=True):
            _fields(kind, mine, other)
            if isinstance(mine, Disk) and isinstance(other, Disk):
                _disk(mine, other)
            if kind.list == "shmems":
                _shmem(mine, other)
            check_address(mine, other)
    for name, single in (("vsock", "vsock"), ("iommu", "IOMMU"), ("nvram", "NVRAM")):
        mine_one, other_one = getattr(source, name), getattr(target, name)
        if (mine_one is None) != (other_one is None):
            raise _differ(f"Target domain {single} device count does not match source")
        if mine_one is not None:
            check_address(mine_one, other_one)
    _balloon(source.memballoon, target.memballoon)


def in_order(devices: Sequence[Device]) -> Sequence[Device]:
    """The order of controllers, and of the PS/2 mouse and keyboard among the input devices, says
    nothing: what every libvirt adds by itself is left out on the way and comes back elsewhere."""

    def rank(device: Device) -> tuple[object, ...]:
        if isinstance(device, Controller):
            return (device.type, device.index or 0)
        if isinstance(device, Input) and device.bus == "ps2":
            return (1, device.type)
        return (0, "")

    mixed = devices and isinstance(devices[0], Controller | Input)
    return sorted(devices, key=rank) if mixed else devices


def _fields(kind: Kind, mine: Device, other: Device) -> None:
    for what, get in kind.fields:
        source, target = get(mine), get(other)
        if source != target:
            if what in QUOTED:
                raise _differ(f"Target {what} '{target}' does not match source '{source}'")
            raise _differ(f"Target {what} {target} does not match source {source}")


def _disk(mine: Disk, other: Disk) -> None:
    for what in ("device", "bus", "serial", "wwn", "vendor", "product"):
        source, target = getattr(mine, what), getattr(other, what)
        if source != target:
            raise _differ(f"Target disk {what} {target} does not match source {source}")
    if mine.readonly != other.readonly or mine.model != other.model:
        raise _differ("Target disk access mode does not match source")


def _shmem(mine: Any, other: Any) -> None:
    sizes = [
        size_bytes(one.size_text, one.size_unit, "M") if one.size_text else 0
        for one in (mine, other)
    ]
    if sizes[0] != sizes[1]:
        raise _differ(
            f"Target shared memory size '{sizes[1]}' does not match source size '{sizes[0]}'"
        )


def _balloon(mine: Memballoon | None, other: Memballoon | None) -> None:
    models = [one.model if one is not None else "none" for one in (mine, other)]
    if models[0] != models[1]:
        raise _differ(f"Target balloon model {models[1]} does not match source {models[0]}")
    if mine is None or other is None:
        return
    for name, field in (("autodeflate", "autodeflate"), ("freePageReporting",
                                                        "free_page_reporting")):  # fmt: skip
        words = [_switch(getattr(one, field)) for one in (mine, other)]
        if words[0] != words[1]:
            raise _differ(
                f"Target balloon {name} attribute value '{words[1]}' does not match"
                f" source '{words[0]}'"
            )
    check_address(mine, other)


def _switch(value: bool | None) -> str:
    return "default" if value is None else "on" if value else "off"


def check_address(mine: Device, other: Device) -> None:
    """Same place on the same kind of bus, where both have one."""
    ours, theirs = mine.address, other.address
    kinds = [address.type if address is not None else "none" for address in (ours, theirs)]
    if kinds[0] != kinds[1]:
        raise _differ(f"Target device address type {kinds[1]} does not match source {kinds[0]}")
    if isinstance(ours, PciAddress) and isinstance(theirs, PciAddress):
        if ours.place != theirs.place:
            raise _differ(f"Target device PCI address {theirs}does not match source {ours}")
        if mine.acpi_index != other.acpi_index:
            raise _differ(
                f"Target ACPI index '{other.acpi_index or 0}' does not match"
                f" source '{mine.acpi_index or 0}'"
            )
        return
    places = [_short_place(ours), _short_place(theirs)]
    if places[0] != places[1]:
        raise _differ(
            f"Target device {NAMES[kinds[0]]} address {places[1]} does not match source {places[0]}"
        )


NAMES = {"drive": "drive", "virtio-serial": "virtio serial", "ccid": "ccid"}


def _short_place(address: object) -> str:
    """Numbers of the kinds that libvirt compares; empty for others."""
    match address:
        case DriveAddress():
            return f"{address.controller}:{address.bus}:{address.unit}"
        case VirtioSerialAddress():
            return f"{address.controller}:{address.bus}:{address.port}"
        case CcidAddress():
            return f"{address.controller}:{address.slot}"
        case _:
            return ""
