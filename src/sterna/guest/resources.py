"""What a launch takes from the host: ports, sockets' places, taps, UEFI variables.

Everything taken is written into the live definition, and given back by the life's `cleanup` stack,
whichever way that life ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sterna.config import DomainDef
from sterna.config.model import Chardev, CharSource, Graphics, Interface, Listen
from sterna.errors import ConfigUnsupported, InternalError, SystemCallError
from sterna.guest.running import Running
from sterna.guest.surroundings import GuestSettings, Surroundings
from sterna.host import tap as taps
from sterna.host.firmware import installed_firmware
from sterna.host.ports import claim_port
from sterna.qemu.argv import TapFds
from sterna.qemu.firmware import resolve_firmware
from sterna.qemu.process import User
from sterna.qemu.qmp_client import listen

log = logging.getLogger("sterna.guest.resources")

NVRAM_MODE = 0o600


@dataclass(slots=True)
class Taken:
    """Descriptors that QEMU inherits; ours are closed once it has its own.

    taps: by interface alias. sockets: listening, by chardev id. files: open for writing, by
    chardev id, logs by "<chardev id>-log".
    """

    taps: dict[str, TapFds] = field(default_factory=dict)
    sockets: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    close: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


def take(
    surroundings: Surroundings,
    running: Running,
    taken: Taken,
    *,
    incoming: bool = False,
    reset_nvram: bool = False,
) -> None:
    """Take what the live definition asks for, into `taken` and the definition itself.

    Raises: ConfigUnsupported, SystemCallError, InternalError; what was taken is in `taken`.
    """
    live = running.definition
    for graphics in live.devices.graphics:
        _take_ports(graphics, surroundings, running)
    for channel in live.devices.channels:
        _place_channel(channel, running)
    for device in chardevs(live):
        _open_socket(device, taken)
        _open_files(device, taken, keep=incoming)
    if live.os is not None and (live.os.firmware or live.os.loader):
        resolve_firmware(live, installed_firmware(), str(surroundings.paths.nvram))
    if surroundings.settings.user is not None:
        _give_images(live, surroundings.settings.user)
    _take_nvram(live, surroundings, anew=reset_nvram)
    for interface in live.devices.interfaces:
        _take_tap(interface, taken)


# -- graphics ----------------------------------------------------------------------------------


WEBSOCKET_PORT_MIN = 5700


def _take_ports(graphics: Graphics, surroundings: Surroundings, running: Running) -> None:
    if graphics.type not in ("vnc", "spice") or graphics.socket:
        return
    settings = surroundings.settings
    if any(listen.type in ("none", "socket") for listen in graphics.listens):
        return
    address = _listen_address(graphics, settings)
    if graphics.port is None or graphics.port < 0 or graphics.autoport:
        graphics.port = _hold_port(surroundings, running, address, settings.vnc_port_min)
        graphics.autoport = True
    if graphics.websocket == -1:
        graphics.websocket = _hold_port(surroundings, running, address, WEBSOCKET_PORT_MIN)
        graphics.websocket_generated = "yes"


def _hold_port(surroundings: Surroundings, running: Running, address: str, first: int) -> int:
    """A free port that no other guest is given as long as this life lasts.

    Raises: InternalError if none is free; SystemCallError if that is no address of ours.
    """
    last = surroundings.settings.vnc_port_max
    claim = claim_port(address, first, last)
    if claim is None:
        raise InternalError(f"Unable to find an unused port in range 'vnc' ({first}-{last})")
    running.cleanup.callback(claim.release)
    return claim.port


def _listen_address(graphics: Graphics, settings: GuestSettings) -> str:
    """Where it listens; the host's setting fills what the definition leaves open."""
    asked = graphics.listen is not None
    graphics.listen = graphics.listen or settings.vnc_listen
    if not graphics.listens:
        graphics.listens = [Listen(type="address")]
    for place in graphics.listens:
        if place.type == "address":
            if place.address is None:
                place.address = graphics.listen
                place.from_config = None if asked else 1  # so that it is not asked of a peer
            return place.address
    return settings.vnc_listen


# -- channels ----------------------------------------------------------------------------------


def _place_channel(channel: Chardev, running: Running) -> None:
    """A unix channel without a path listens in the life's own directory.

    The last three parts of the path are libvirt's own: by them either side of a migration, and a
    definition made from the live XML, knows the path for one that nobody chose.
    """
    if channel.type != "unix" or channel.path:
        return
    path = running.run_dir / "channel/target" / (channel.target_name or channel.alias or "channel")
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    if not channel.sources:
        channel.sources = [CharSource(mode="bind")]
    channel.sources[0].mode = channel.sources[0].mode or "bind"
    channel.sources[0].path = str(path)


def _open_socket(device: Chardev, taken: Taken) -> None:
    """Bind the socket QEMU shall listen on: works with deep paths and an unprivileged QEMU."""
    source = device.source
    if device.type != "unix" or source is None or source.mode != "bind" or not source.path:
        return
    try:
        sock = listen(Path(source.path))
    except OSError as exc:
        raise SystemCallError(
            f"Failed to bind socket to {source.path}", errno=exc.errno or 0
        ) from exc
    taken.close.callback(sock.close)
    taken.sockets[f"char{device.alias}"] = sock.fileno()


def _open_files(device: Chardev, taken: Taken, *, keep: bool) -> None:
    """Open the file a device writes to, and its log.

    `keep` leaves what is in them: the guest's other half may still write there while it moves.
    """
    source = device.source
    if device.type == "file" and source is not None and source.path:
        anew = not (keep or source.append)
        taken.files[f"char{device.alias}"] = _open_file(source.path, taken, anew=anew)
    if device.log_file:
        anew = not (keep or device.log_append)
        taken.files[f"char{device.alias}-log"] = _open_file(device.log_file, taken, anew=anew)


def _open_file(path: str, taken: Taken, *, anew: bool) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
    try:
        fd = os.open(path, flags | (os.O_TRUNC if anew else 0), 0o600)
    except OSError as exc:
        raise SystemCallError(f"unable to open {path}", errno=exc.errno or 0) from exc
    taken.close.callback(os.close, fd)
    return fd


# -- images ------------------------------------------------------------------------------------


def _give_images(live: DomainDef, user: User) -> None:
    """Let an unprivileged QEMU open the image files it writes to.

    They stay its own afterwards: taking them back could take them from the guest's other half,
    which may run on another host of the same storage by then. Devices, and images that others may
    read or share, are left to the administrator.
    """
    for disk in live.devices.disks:
        if disk.type != "file" or disk.readonly or disk.shareable or not disk.path:
            continue
        try:
            if os.stat(disk.path).st_uid != user.uid:
                os.chown(disk.path, user.uid, user.gid)
        except FileNotFoundError:
            continue  # QEMU says so itself, by name
        except OSError as exc:
            raise SystemCallError(
                f"unable to set user and group to '{user.uid}:{user.gid}' on '{disk.path}'",
                errno=exc.errno or 0,
            ) from exc


# -- UEFI variables ----------------------------------------------------------------------------


def _take_nvram(live: DomainDef, surroundings: Surroundings, *, anew: bool) -> None:
    """Copy the template at the first start; it is kept until the guest is undefined."""
    os_ = live.os
    if os_ is None or os_.nvram is None or not os_.nvram.path or not os_.nvram.template:
        return
    path = Path(os_.nvram.path)
    if anew or not path.exists():
        copy_nvram(Path(os_.nvram.template), path, surroundings.settings.user)


def copy_nvram(template: Path, path: Path, user: User | None) -> None:
    """Make a guest's own copy of the firmware's variables, whole or not at all.

    Raises: ConfigUnsupported if the template can't be read; SystemCallError.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(template, part)
        part.chmod(NVRAM_MODE)
        if user is not None:
            os.chown(part, user.uid, user.gid)
        part.replace(path)
    except FileNotFoundError as exc:
        raise ConfigUnsupported(f"unable to read NVRAM template '{template}'") from exc
    except OSError as exc:
        raise SystemCallError(
            f"Unable to create NVRAM file '{path}'", errno=exc.errno or 0
        ) from exc
    finally:
        part.unlink(missing_ok=True)


# -- taps --------------------------------------------------------------------------------------


def _take_tap(interface: Interface, taken: Taken) -> None:
    if interface.type not in ("bridge", "ethernet"):
        return
    queues = (interface.driver.queues if interface.driver is not None else None) or 1
    vnet_hdr = (interface.model or "").startswith("virtio")
    existing = interface.type == "ethernet" and interface.target_managed is False
    tap = taps.open_tap(interface.target or "vnet%d", queues=queues, vnet_hdr=vnet_hdr)
    # QEMU's descriptors are what keeps the tap; ours must not outlive the launch. (L3)
    taken.close.callback(tap.close)
    taken.taps[interface.alias or ""] = TapFds(tuple(tap.fds))
    interface.target = tap.name
    if existing:
        return
    if interface.mtu is not None:
        taps.set_mtu(tap.name, interface.mtu)
    if interface.mac is not None:
        taps.set_mac(tap.name, taps.tap_mac(interface.mac))
    if interface.type == "bridge":
        bridge = interface.source.bridge if interface.source is not None else None
        if not bridge:
            raise ConfigUnsupported("interface of type 'bridge' without a bridge")
        taps.attach_to_bridge(bridge, tap.name)
    taps.set_up(tap.name, interface.link_state != "down" or interface.type == "bridge")


def read_back_ptys(live: DomainDef, reply: list[dict[str, str]]) -> None:
    """Write the terminals QEMU made into the live definition, from its `query-chardev`."""
    found = {item["label"]: item.get("filename", "") for item in reply}
    for device in chardevs(live):
        filename = found.get(f"char{device.alias}", "")
        if device.type == "pty" and filename.startswith("pty:"):
            set_pty(live, device, filename.removeprefix("pty:"))
    serials, consoles = live.devices.serials, live.devices.consoles
    # The first console of type serial is the first serial port under another name.
    same = serials and consoles and consoles[0].target_type in (None, "serial")
    if same and serials[0].type == "pty" and serials[0].path is not None:
        consoles[0].alias = serials[0].alias
        set_pty(live, consoles[0], serials[0].path)


def set_pty(live: DomainDef, device: Chardev, path: str) -> None:
    """Tell which terminal is behind a device. A console says it twice, for old tools."""
    if not device.sources:
        device.sources = [CharSource()]
    device.sources[0].path = path
    if device in live.devices.consoles:
        device.tty = path


def chardevs(live: DomainDef) -> Iterator[Chardev]:
    """Every serial and parallel port, console and channel."""
    devices = live.devices
    for some in (devices.serials, devices.parallels, devices.consoles, devices.channels):
        yield from some
