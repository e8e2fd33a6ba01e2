"""Aliases: the names devices have inside QEMU while the guest runs. (libvirt 9.0, observed.)"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sterna.config.addresses.names import target_index
from sterna.config.implicit import is_i440fx, is_q35, mirror_serial
from sterna.config.model import (
    Controller,
    Device,
    DimmAddress,
    Disk,
    DomainDef,
    DriveAddress,
)

_NUMBER = re.compile(r"[0-9]{1,9}\Z")


def assign_aliases(d: DomainDef) -> None:
    """Name every device that has no alias yet, in place. The user's own (ua-...) stay."""
    devices = d.devices
    models = {c.index: c.model for c in devices.controllers_of("scsi")}
    for disk in devices.disks:
        disk.alias = disk.alias or disk_alias(disk, models)
    for nic in devices.interfaces:
        prefix = "hostdev" if nic.type == "hostdev" else "net"
        others: Sequence[Device] = devices.interfaces
        if prefix == "hostdev":
            others = (*devices.interfaces, *devices.hostdevs)
        nic.alias = nic.alias or next_alias(prefix, others)
    for filesystem in devices.filesystems:
        filesystem.alias = filesystem.alias or next_alias("fs", devices.filesystems)
    _number("sound", devices.sounds)
    for hostdev in devices.hostdevs:
        hostdev.alias = hostdev.alias or next_alias(
            "hostdev", (*devices.interfaces, *devices.hostdevs)
        )
    _number("redir", devices.redirdevs)
    _number("video", devices.videos)
    for controller in devices.controllers:
        controller.alias = controller.alias or controller_alias(controller, d)
    _number("input", devices.inputs)
    _number("parallel", devices.parallels)
    _number("serial", devices.serials)
    _number("channel", devices.channels)
    _consoles(d)
    _number("hub", devices.hubs)
    _number("shmem", devices.shmems)
    _number("smartcard", devices.smartcards)
    _number("watchdog", devices.watchdogs)
    if devices.memballoon is not None and devices.memballoon.model != "none":
        devices.memballoon.alias = devices.memballoon.alias or "balloon0"
    for rng in devices.rngs:
        rng.alias = rng.alias or next_alias("rng", devices.rngs)
    _number("tpm", devices.tpms)
    for memory in devices.memories:
        if memory.alias is None:
            memory.alias = _memory_alias(memory.model, memory.address, devices.memories)
    for single, name in ((devices.vsock, "vsock0"), (devices.iommu, "iommu0")):
        if single is not None:
            single.alias = single.alias or name
    _number("crypto", devices.cryptos)


def _number(prefix: str, devices: Sequence[Device]) -> None:
    for number, device in enumerate(devices):
        if device.alias is None:
            device.alias = f"{prefix}{number}"


def next_alias(prefix: str, devices: Sequence[Device]) -> str:
    """One above the highest number this prefix has among these devices (also for hot-plugging)."""
    highest = -1
    for device in devices:
        if device.alias is not None and device.alias.startswith(prefix):
            rest = device.alias.removeprefix(prefix)
            if _NUMBER.match(rest):
                highest = max(highest, int(rest))
    return f"{prefix}{highest + 1}"


def disk_alias(disk: Disk, scsi_models: dict[int | None, str | None]) -> str:
    """By place for drives on ide, sata, scsi and fdc; by the target's index for others."""
    place = disk.address
    if not isinstance(place, DriveAddress):
        return f"{disk.bus}-disk{target_index(disk.target)}"
    if disk.bus == "scsi" and scsi_models.get(place.controller) != "lsilogic":
        return f"scsi{place.controller}-{place.bus}-{place.target}-{place.unit}"
    return f"{disk.bus}{place.controller}-{place.bus}-{place.unit}"


def controller_alias(controller: Controller, d: DomainDef) -> str:
    """The machine's own controllers have QEMU's fixed names."""
    kind, index = controller.type, controller.index or 0
    if kind == "pci":
        return "pcie.0" if controller.model == "pcie-root" else f"pci.{index}"
    if index == 0:
        if kind == "usb":
            return "usb"  # its companions too: QEMU knows the bus by the first one
        if (kind == "ide" and is_i440fx(d)) or (kind == "sata" and is_q35(d)):
            return "ide"
    return f"{kind}{index}"


def _consoles(d: DomainDef) -> None:
    """The first console is the first serial port by another name."""
    devices = d.devices
    for number, console in enumerate(devices.consoles):
        if number == 0 and console.target_type == "serial" and devices.serials:
            mirror_serial(console, devices.serials[0])
        elif console.alias is None:
            console.alias = f"console{number}"


def _memory_alias(model: str, address: object, others: Sequence[Device]) -> str:
    if isinstance(address, DimmAddress) and address.slot is not None:
        return f"{model}{address.slot}"
    return next_alias(model.replace("-", ""), others)
