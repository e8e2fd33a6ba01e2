"""One definition in its several shapes: without its live state, for another host."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sterna.config.clone import clone
from sterna.config.implicit import arrange, is_i440fx
from sterna.config.model import (
    Audio,
    Chardev,
    Controller,
    Disk,
    DomainDef,
    Graphics,
    Input,
    PciAddress,
)
from sterna.config.model.address import USER_ALIAS
from sterna.config.model.interface import GENERATED_TAPS

# Where a daemon keeps the sockets of channels it names itself, whatever its root directory is.
_OWN_CHANNEL = re.compile(r"/channel/target/(domain-[^/]+/)?([^/]+)\Z")


IMPLIED_CONTROLLERS = frozenset({("pci", "pci-root"), ("usb", "piix3-uhci")})
DEFAULT_AUDIOS = (Audio(id=1, type="none"), Audio(id=1, type="spice"))


def strip_live(d: DomainDef) -> None:
    """Forget, in place, what only a running guest has: every definition is read this way.

    Aliases (but the user's own), pseudo terminals, generated tap names and socket paths, block
    node indexes, running block copies.
    """
    d.id = None
    d.original_cpu = None
    for device in d.all_devices():
        if device.alias is not None and not device.alias.startswith(USER_ALIAS):
            device.alias = None
        off = isinstance(device, Controller) and device.model == "none"
        if isinstance(device.address, PciAddress) and (device.address.is_empty or off):
            device.address = None
    for disk in d.devices.disks:
        _strip_disk(disk)
    for nic in d.devices.interfaces:
        if nic.target is not None and nic.target.startswith(GENERATED_TAPS):
            nic.target = None
        if nic.source is not None:
            nic.source.portid = None
    for chardev in _chardevs(d):
        _strip_chardev(chardev)
    for graphics in d.devices.graphics:
        _forget_port(graphics)
        graphics.websocket_generated = None
        for listen in graphics.listens:
            if listen.from_config:
                listen.address = listen.from_config = None
                graphics.listen = None


def _chardevs(d: DomainDef) -> Iterator[Chardev]:
    devices = d.devices
    for kind in (devices.serials, devices.parallels, devices.consoles, devices.channels):
        yield from kind


def _strip_disk(disk: Disk) -> None:
    disk.mirror = None
    if disk.source is not None:
        disk.source.index = None
    if disk.backing is not None and disk.backing.detected:
        disk.backing = None
    link = disk.backing
    while link is not None:
        link.index = None
        if link.source is not None:
            link.source.index = None
        link = link.backing


def _strip_chardev(one: Chardev) -> None:
    one.tty = None
    for source in one.sources:
        if source.tls_from_host:
            source.tls, source.tls_from_host = None, None
    one.target_state = None
    if one.type == "pty":
        one.sources = []
    if one.type == "unix" and one.target_type == "virtio" and one.path is not None:
        own = _OWN_CHANNEL.search(one.path)
        name = one.target_name or ""
        if own is not None and (own[2] == name or own[2].endswith(f".{name}")):
            one.sources = []


def inactive_view(d: DomainDef) -> DomainDef:
    """A running guest's text as a definition; `d` itself where nothing in it says that it runs.

    Unlike `strip_live` this keeps aliases and block node indexes, as libvirt does.
    """
    if not _has_live_state(d):
        return d
    d = clone(d)
    for chardev in _chardevs(d):
        if chardev.type == "pty":
            chardev.sources = []
    for disk in d.devices.disks:
        if disk.backing is not None and disk.backing.detected:
            disk.backing = None
    for graphics in d.devices.graphics:
        _forget_port(graphics)
    return d


def _has_live_state(d: DomainDef) -> bool:
    return (
        any(one.type == "pty" and one.sources for one in _chardevs(d))
        or any(disk.backing is not None and disk.backing.detected for disk in d.devices.disks)
        or any(graphics.autoport for graphics in d.devices.graphics)
    )


def _forget_port(graphics: Graphics) -> None:
    """A port that was chosen at start is no wish."""
    if graphics.websocket_generated == "yes":
        graphics.websocket, graphics.websocket_generated = -1, None
    if not graphics.autoport:
        return
    if graphics.type == "vnc":
        graphics.port = -1
    elif graphics.type == "spice":
        graphics.port = graphics.tls_port = None


def migratable(d: DomainDef) -> DomainDef:
    """A copy for another host, perhaps with an older libvirt.

    As libvirt's XML_MIGRATABLE: no live state, the processor as it was asked for (one that
    follows the host as it was resolved), and none of the devices every peer adds by itself and
    older ones did not know in XML.
    """
    asked = d.original_cpu
    d = clone(d)
    if asked is not None and asked.mode != "host-model":
        d.cpu = clone(asked)
        if d.cpu.mode == "custom":
            d.cpu.fallback = "forbid"
    strip_live(d)
    arrange(d)
    devices = d.devices
    devices.controllers = [c for c in devices.controllers if not _implied(c, d)]
    devices.inputs = [one for one in devices.inputs if one != Input(type="keyboard", bus="ps2")]
    devices.audios = [one for one in devices.audios if one not in DEFAULT_AUDIOS]
    d.seclabels = [label for label in d.seclabels if label.type != "dynamic"]
    for number, console in enumerate(devices.consoles):
        if console.target_type != "serial":
            console.target_port = str(number)
    return d


def _implied(controller: Controller, d: DomainDef) -> bool:
    """Whether every libvirt adds this controller to this machine by itself."""
    if controller.index != 0 or controller.alias is not None:
        return False
    if not is_i440fx(d):
        return False
    alone = len(d.devices.controllers_of(controller.type)) == 1
    return alone and (controller.type, controller.model) in IMPLIED_CONTROLLERS
