"""Defaults of each device. (libvirt 9.0, observed.)"""

from __future__ import annotations

from collections.abc import Callable

from sterna.config.addresses.names import BUS_OF_PREFIX, split_target
from sterna.config.model import (
    Audio,
    Bandwidth,
    Chardev,
    CharSource,
    Disk,
    DiskDriver,
    DomainDef,
    Graphics,
    Interface,
    Listen,
    Video,
    VideoModel,
)
from sterna.errors import (
    ConfigUnsupported,
    ErrorDomain,
    InternalError,
    NoSource,
    NoTarget,
    XmlError,
)

EJECTABLE = frozenset({"cdrom", "floppy"})
VRAM_KIB = 16384
QXL_RAM_KIB = 65536
WITHOUT_VRAM = frozenset({"virtio", "none", "ramfb", "gop"})
PORTS_OF_PROTOCOL = {"iscsi": "3260", "nbd": "10809", "ssh": "22", "https": "443", "http": "80",
                     "ftp": "21", "ftps": "990", "tftp": "69", "sheepdog": "7000",
                     "gluster": "24007", "vxhs": "9999"}  # fmt: skip
DEFAULT_INPUT_BUS = {
    "mouse": "ps2", "keyboard": "ps2", "tablet": "usb", "passthrough": "virtio",
}  # fmt: skip
CHARDEV_TARGETS = {
    "serials": frozenset({"isa-serial", "usb-serial", "pci-serial", "isa-debug"}),
    "consoles": frozenset({"serial", "virtio"}),
    "channels": frozenset({"virtio", "guestfwd"}),
}
AUDIO_OF_DISPLAY: dict[str, str | None] = {"vnc": "none", "spice": "spice", "sdl": None}
_NO_PATH = "Missing source path attribute for char device"
_NO_HOST = "Missing source host attribute for char device"
_NO_SERVICE = "Missing source service attribute for char device"
VIDEO_DEFAULT = "cirrus"


def complete_devices(d: DomainDef, new_mac: Callable[[], str]) -> None:
    for disk in d.devices.disks:
        _disk(disk)
    for nic in d.devices.interfaces:
        _interface(nic, new_mac)
    _chardevs(d)
    for graphics in d.devices.graphics:
        _graphics(graphics)
    d.devices.videos.sort(key=lambda one: not (one.model is not None and one.model.primary))
    for number, video in enumerate(d.devices.videos):
        complete_video(video, first=number == 0)
    _small(d)


def _disk(disk: Disk) -> None:
    if not disk.target:
        raise NoTarget(disk.path or "")
    found = split_target(disk.target)
    if found is None:
        raise XmlError(f"Unknown disk name '{disk.target}' and no address specified")
    if disk.source is not None and disk.source == type(disk.source)():
        disk.source = None
    if disk.source is None and disk.device not in EJECTABLE:
        raise NoSource(disk.target)
    if disk.bus is None:
        disk.bus = "fdc" if disk.device == "floppy" else BUS_OF_PREFIX[found[0]]
    if disk.device == "cdrom":
        disk.readonly = True
    if disk.tray == "closed":
        disk.tray = None
    if disk.driver is None:
        disk.driver = DiskDriver()
    disk.driver.name = disk.driver.name or "qemu"
    disk.driver.queues = disk.driver.queues or None
    if disk.driver.type is None and disk.type != "volume":
        disk.driver.type = "raw"
    if disk.source is not None and disk.source.protocol is not None:
        for host in disk.source.hosts:
            if host.port is None and host.transport != "unix":
                host.port = PORTS_OF_PROTOCOL.get(disk.source.protocol)
    if disk.type == "vhostuser" and disk.snapshot is None:
        disk.snapshot = "no"


def _interface(nic: Interface, new_mac: Callable[[], str]) -> None:
    if nic.mac is None:
        nic.mac = new_mac()
    if nic.model is None and nic.type != "hostdev":
        nic.model = "virtio" if nic.type == "vdpa" else "rtl8139"
    if nic.type == "direct" and nic.source is not None and nic.source.mode is None:
        nic.source.mode = "vepa"
    if nic.filterref is not None and nic.filterref.filter is None:
        nic.filterref = None
    if nic.bandwidth is not None and nic.bandwidth == Bandwidth():
        nic.bandwidth = None


def _chardevs(d: DomainDef) -> None:
    devices = d.devices
    for kind in (devices.serials, devices.parallels):
        _number_ports(kind)
    for number, console in enumerate(devices.consoles):
        console.target_port = str(number)  # what was written is not looked at
    for name, words in CHARDEV_TARGETS.items():
        for one in getattr(devices, name):
            if one.target_type is not None and one.target_type not in words:
                raise ConfigUnsupported(
                    f"unknown target type '{one.target_type}' specified for character device",
                    domain=ErrorDomain.DOMAIN,
                )
    for serial in devices.serials:
        if serial.target_type is None:
            serial.target_type = "isa-serial"
        if serial.target_model is None:
            debug = serial.target_type == "isa-debug"
            serial.target_model = "isa-debugcon" if debug else serial.target_type
    for console in devices.consoles:
        if console.target_type is None:
            console.target_type = "serial"
    for channel in devices.channels:
        if channel.target_type is None:
            raise XmlError("target type must be specified for channel device")
    twin = devices.consoles[:1] if devices.serials else []
    if twin and twin[0].target_type == "serial":
        twin[0].sources = []  # it will get the serial port's
    consoles = [one for one in devices.consoles if one not in twin or one.target_type != "serial"]
    for one in (*devices.serials, *devices.parallels, *consoles, *devices.channels):
        if len(one.sources) > 1 and one.type != "udp":
            raise XmlError("only one source element is allowed for character device")
        _source(one)
    for redirected in devices.redirdevs:
        if redirected.type == "tcp" and redirected.protocol is None:
            redirected.protocol = "raw"
    for smartcard in devices.smartcards:
        if smartcard.type == "tcp" and smartcard.protocol is None:
            smartcard.protocol = "raw"


def _number_ports(kind: list[Chardev]) -> None:
    """A device without port gets one above the highest so far.

    ISA ports are numbered first and for themselves: their number is COM1, COM2, ... (libvirt
    9.0, observed: before a pci-serial that stands in front of them).
    """
    isa = [one for one in kind if one.target_type == "isa-serial"]
    _number_from(-1, isa)
    first = max((int(one.target_port or 0) for one in isa), default=-1)
    _number_from(first, [one for one in kind if one.target_type != "isa-serial"])


def _number_from(highest: int, kind: list[Chardev]) -> None:
    for one in kind:
        if one.target_port is not None and not _is_port(one.target_port):
            raise XmlError(
                f"Invalid value for attribute 'port' in element 'target': '{one.target_port}'."
            )
        if one.target_port is None:
            one.target_port = str(highest + 1)
        highest = max(highest, int(one.target_port))


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _source(one: Chardev) -> None:
    if one.type == "tcp" and one.protocol is None:
        one.protocol = "raw"
    for source in one.sources:
        if one.type in ("unix", "tcp") and source.mode is None:
            source.mode = "connect"
    if one.type in ("null", "vc", "stdio", "spicevmc"):
        one.sources = []
    elif one.type == "unix" and one.target_type == "virtio" and one.path is None:
        one.sources = []  # the daemon chooses a path when the guest starts
    elif one.type in ("file", "dev", "pipe", "unix") and (one.path is None):
        raise InternalError(_NO_PATH, domain=ErrorDomain.DOMAIN)
    elif one.type == "tcp":
        _tcp_source(one.source)
    elif one.type == "udp" and not any(source.service for source in one.sources):
        raise InternalError(_NO_SERVICE, domain=ErrorDomain.DOMAIN)


def _tcp_source(source: CharSource | None) -> None:
    if source is None or source.host is None:
        raise InternalError(_NO_HOST, domain=ErrorDomain.DOMAIN)
    if source.service is None:
        raise InternalError(_NO_SERVICE, domain=ErrorDomain.DOMAIN)


def _graphics(graphics: Graphics) -> None:
    if graphics.type in ("vnc", "spice", "rdp"):
        _listens(graphics)
    if graphics.type == "vnc":
        _vnc_ports(graphics)
    elif graphics.type == "spice":
        _spice_ports(graphics)


def _listens(graphics: Graphics) -> None:
    if not graphics.listens:
        if graphics.socket is not None:
            graphics.listens = [Listen(type="socket", socket=graphics.socket)]
        elif graphics.type == "spice" and not (
            graphics.autoport or graphics.port or graphics.tls_port
        ):
            graphics.listens = [Listen(type="none")]
            graphics.listen = None
        else:
            graphics.listens = [Listen(type="address", address=graphics.listen)]
    for listen in graphics.listens:
        if listen.type == "network" and listen.network is None:
            raise XmlError("'network' attribute is required for listen type 'network'")
    first = graphics.listens[0]
    if first.type == "address":
        if graphics.listen is not None and first.address not in (None, graphics.listen):
            raise ConfigUnsupported(
                f"graphics 'listen' attribute '{graphics.listen}' must match 'address' attribute"
                f" of first listen element (found '{first.address}')"
            )
        first.address = first.address or graphics.listen
        graphics.listen = first.address
    elif first.type == "socket" and first.socket is not None and graphics.type == "vnc":
        graphics.socket = first.socket


def _vnc_ports(graphics: Graphics) -> None:
    if graphics.listens[0].type in ("socket", "none"):
        graphics.port = graphics.autoport = None
        return
    if not graphics.autoport and (
        graphics.port == 0 or (graphics.autoport is False and graphics.port in (None, -1))
    ):
        graphics.port, graphics.autoport = None, False
    elif graphics.port in (None, -1) or graphics.autoport:
        graphics.port = -1
        graphics.autoport = True
    else:
        graphics.autoport = False


def _spice_ports(graphics: Graphics) -> None:
    if graphics.listens[0].type in ("socket", "none"):
        graphics.port = graphics.tls_port = graphics.autoport = None
        return
    if graphics.port == -1 and graphics.tls_port == -1:
        graphics.autoport = True
    if graphics.autoport:
        graphics.port = graphics.tls_port = None
    else:
        graphics.autoport = False


def complete_video(video: Video, *, first: bool) -> None:
    """Sizes are rounded up to a power of two, as QEMU does."""
    if video.model is None:
        video.model = VideoModel()
    model = video.model
    if model.type is None or model.type == "default":
        model.type = VIDEO_DEFAULT
    if model.type == "none":
        video.model = VideoModel(type="none")
        return
    if model.type not in WITHOUT_VRAM:
        model.vram = _power_of_two(model.vram or (QXL_RAM_KIB if model.type == "qxl" else VRAM_KIB))
    if model.type == "qxl":
        model.ram = _power_of_two(model.ram or QXL_RAM_KIB)
        model.vgamem = _power_of_two(model.vgamem or VRAM_KIB)
    model.heads = model.heads or 1
    if first and model.primary is None:
        model.primary = True


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()


def _demand(d: DomainDef) -> None:
    """What each of these must say; each refusal in libvirt's own way."""
    devices = d.devices
    for sound in devices.sounds:
        if sound.model is None:
            raise XmlError(
                "Missing required attribute 'model' in element 'sound'", domain=ErrorDomain.XML
            )
    internal: str | None = None
    if any(not one.type for one in devices.inputs):
        internal = "missing input device type"
    elif any(not watchdog.model for watchdog in devices.watchdogs):
        internal = "watchdog must contain model name"
    elif any(not hub.type for hub in devices.hubs):
        internal = "missing hub device type"
    if internal is not None:
        raise InternalError(internal, domain=ErrorDomain.DOMAIN)
    if any(not redirected.type for redirected in devices.redirdevs):
        raise InternalError("missing type in redirdev", domain=ErrorDomain.DOMAIN)
    if any(not rng.model for rng in devices.rngs):
        raise XmlError("missing RNG device model")
    if any(rng.backend is None for rng in devices.rngs):
        raise XmlError("only one RNG backend is supported")
    if any(rng.backend is not None and not rng.backend.model for rng in devices.rngs):
        raise XmlError("missing RNG device backend model")
    if any(not hostdev.type for hostdev in devices.hostdevs):
        raise XmlError("missing source address type")
    if any(not shmem.name for shmem in devices.shmems):
        raise XmlError("shmem element must contain 'name' attribute")
    if any(tpm.backend is None for tpm in devices.tpms):
        raise XmlError("missing TPM device backend")
    if any(filesystem.source is None for filesystem in devices.filesystems):
        raise NoSource
    for filesystem in devices.filesystems:
        if filesystem.target is None and filesystem.source is not None:
            raise NoTarget(filesystem.source.dir or "")


def _small(d: DomainDef) -> None:
    _demand(d)
    devices = d.devices
    for watchdog in devices.watchdogs:
        watchdog.action = watchdog.action or "reset"
    for panic in devices.panics:
        if panic.model in (None, "default"):
            panic.model = "isa"
    if devices.memballoon is not None and devices.memballoon.stats_period == 0:
        devices.memballoon.stats_period = None
    for filesystem in devices.filesystems:
        if filesystem.type == "mount":
            filesystem.accessmode = filesystem.accessmode or "passthrough"
    for hostdev in devices.hostdevs:
        if hostdev.managed is None and hostdev.mode == "subsystem":
            hostdev.managed = False
    for one in devices.inputs:
        if one.bus == "none":
            one.bus = None
        elif one.bus is None:
            one.bus = DEFAULT_INPUT_BUS.get(one.type)
    for tpm in devices.tpms:
        if tpm.model is None:
            tpm.model = "tpm-tis"
    if devices.vsock is not None:
        devices.vsock.model = devices.vsock.model or "virtio"
        if devices.vsock.cid_auto is None and devices.vsock.cid is None:
            devices.vsock.cid_auto = True
        elif devices.vsock.cid_auto is None:
            devices.vsock.cid_auto = False
    for rng in devices.rngs:
        backend = rng.backend
        if backend is not None and backend.model == "random" and backend.path is None:
            backend.path = "/dev/random"
    ids = [audio.id for audio in devices.audios]
    for number in ids:
        if ids.count(number) > 1:
            raise XmlError(f"audio ID {number} is used multiple times")


def default_audio(d: DomainDef) -> Audio | None:
    """The backend of a guest that names none; None where a display brings its own."""
    if not d.devices.graphics:
        return Audio(id=1, type="none")
    found: str | None = None
    for graphics in d.devices.graphics:  # the last display that says something decides
        found = AUDIO_OF_DISPLAY.get(graphics.type, found)
    return Audio(id=1, type=found) if found is not None else None
