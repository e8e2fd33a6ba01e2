"""Refusals about devices."""

from __future__ import annotations

import re
import string

from sterna.config.addresses.pci import MODEL_NAMES
from sterna.config.caps import EmulatorFacts
from sterna.config.implicit import USB_COMPANIONS, is_q35
from sterna.config.model import (
    Disk,
    DomainDef,
    DriveAddress,
    Interface,
)
from sterna.errors import ConfigUnsupported, ErrorDomain, InternalError, XmlDetail, XmlError

SOURCE_NEEDED = frozenset({"bridge", "network", "direct", "hostdev", "vhostuser", "vdpa"})
SOCKET_NICS = frozenset({"server", "client", "mcast", "udp"})
EJECTABLE = frozenset({"cdrom", "floppy"})
SERIAL_MODELS = frozenset({"isa-serial", "usb-serial", "pci-serial", "isa-debugcon"})
PORT_MAX = 255
VRAM_KIB_MIN = 1024
FORMATS = frozenset({
    "raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vpc", "vhdx", "bochs", "cloop", "dmg", "fat",
    "luks", "iso", "cow", "ploop", "dir",
})  # fmt: skip
SAFE_SERIAL = frozenset(string.ascii_letters + string.digits + "-_ .+")
WWN = re.compile(r"(0x)?[0-9a-fA-F]{16}\Z")
ROTATING = frozenset({"scsi", "ide", "sata"})
DEVICE_OF_NIC = {
    "virtio": "virtio-net-pci", "rtl8139": "rtl8139", "e1000": "e1000", "e1000e": "e1000e",
    "pcnet": "pcnet", "ne2k_pci": "ne2k_pci", "vmxnet3": "vmxnet3", "i82559er": "i82559er",
    "igb": "igb",
}  # fmt: skip
DEVICE_OF_VIDEO = {
    "vga": "VGA", "cirrus": "cirrus-vga", "qxl": "qxl-vga", "vmvga": "vmware-svga",
    "bochs": "bochs-display", "ramfb": "ramfb",
}  # fmt: skip
VIDEO_OF_X86 = frozenset({*DEVICE_OF_VIDEO, "virtio", "none"})
MAC_GROUP_BIT = 1


def check_devices(d: DomainDef, facts: EmulatorFacts) -> None:
    _disks(d)
    for nic in d.devices.interfaces:
        _interface(nic, facts)
    _usb(d)
    _single(d)
    _controllers(d)
    _video(d, facts)
    _chardevs(d)
    _others(d)


def _disks(d: DomainDef) -> None:
    targets: dict[str, Disk] = {}
    places: dict[tuple[str | None, tuple[int, int, int, int]], Disk] = {}
    for disk in d.devices.disks:
        if disk.target in targets:
            first = targets[disk.target]
            raise XmlError(
                f"target '{disk.target}' duplicated for disk sources"
                f" '{_source_name(first)}' and '{_source_name(disk)}'"
            )
        targets[disk.target] = disk
        if isinstance(disk.address, DriveAddress):
            if disk.bus == "sata" and disk.address.bus != 0:
                raise ConfigUnsupported("bus must be 0 for sata controller")
            key = (disk.bus, disk.address.place)
            if key in places:
                controller, bus, target, unit = disk.address.place
                raise ConfigUnsupported(
                    "Found duplicate drive address for disk with target name"
                    f" '{places[key].target}' controller='{controller}' bus='{bus}'"
                    f" target='{target}' unit='{unit}'",
                    domain=ErrorDomain.DOMAIN,
                )
            places[key] = disk
        _disk(disk)


def _source_name(disk: Disk) -> str:
    return disk.path or (disk.source.name if disk.source is not None else None) or "(null)"


def _disk(disk: Disk) -> None:
    if disk.device in EJECTABLE and disk.bus == "virtio":
        raise ConfigUnsupported(f"disk type of '{disk.target}' does not support ejectable media")
    if disk.device == "floppy" and disk.bus != "fdc":
        raise ConfigUnsupported(
            f"Invalid bus type '{disk.bus}' for floppy disk", domain=ErrorDomain.DOMAIN
        )
    if (disk.bus == "fdc") != disk.target.startswith("fd"):
        raise InternalError(f"Invalid harddisk device name: {disk.target}")
    if disk.geometry_trans is not None and disk.bus != "ide":
        raise ConfigUnsupported(
            f"CHS translation mode can only be set for 'ide' bus not '{disk.bus}'"
        )
    if disk.type == "dir" and (disk.driver is None or disk.driver.type != "fat"):
        raise ConfigUnsupported("storage type 'dir' requires use of storage format 'fat'")
    driver = disk.driver
    if driver is not None and driver.name not in (None, "qemu"):
        raise ConfigUnsupported(f"unsupported driver name '{driver.name}' for disk '{disk.target}'")
    if driver is not None and driver.type is not None and driver.type not in FORMATS:
        raise ConfigUnsupported(f"unknown driver format value '{driver.type}'")
    shared = disk.shareable and disk.device != "lun"
    if shared and driver is not None and driver.type not in (None, "raw"):
        raise ConfigUnsupported(
            f"shared access for disk '{disk.target}' requires use of supported storage format"
        )
    if disk.rotation_rate is not None and disk.bus not in ROTATING:
        raise InternalError("rotation rate is only valid for SCSI/IDE/SATA bus")
    if disk.device == "lun":
        if disk.bus not in ("scsi", "virtio"):
            raise ConfigUnsupported(f"disk device='lun' is not supported for bus='{disk.bus}'")
        if disk.type not in ("block", "network", "volume"):
            raise ConfigUnsupported(
                "disk device='lun' is only valid for block type disk source",
                domain=ErrorDomain.DOMAIN,
            )
    elif disk.sgio is not None or disk.rawio is not None:
        name = "sgio" if disk.sgio is not None else "rawio"
        raise ConfigUnsupported(
            f"{name} can be used only with device='lun'", domain=ErrorDomain.DOMAIN
        )
    if disk.removable is not None and disk.bus not in ("usb", "scsi"):
        raise ConfigUnsupported("removable is only valid for usb or scsi disks")
    if disk.transient and disk.readonly:
        raise ConfigUnsupported(f"transient disk '{disk.target}' must not be read-only")
    if disk.serial is not None and not SAFE_SERIAL.issuperset(disk.serial):
        raise InternalError(f"driver serial '{disk.serial}' contains unsafe characters")
    if disk.wwn is not None and not WWN.match(disk.wwn):
        raise InternalError(f"Malformed wwn: {disk.wwn}")
    for name in ("vendor", "product"):
        text: str | None = getattr(disk, name)
        if text is not None and not all(" " <= c <= "~" for c in text):
            raise XmlError(f"disk {name} is not printable string")


def _interface(nic: Interface, facts: EmulatorFacts) -> None:
    if nic.type in SOURCE_NEEDED and nic.source is None:
        raise XmlError(f"interface type='{nic.type}' requires a 'source' element")
    source = nic.source
    needed = {
        "bridge": ("bridge", source.bridge if source else None),
        "network": ("network", source.network if source else None),
        "direct": ("dev", source.dev if source else None),
        "vdpa": ("dev", source.dev if source else None),
    }.get(nic.type)
    if needed is not None and not needed[1]:
        raise _missing_attribute(needed[0])
    if nic.type in SOCKET_NICS:
        if source is None or source.port is None:
            raise _missing_attribute("port")
        if source.address is None and nic.type != "server":
            raise _missing_attribute("address")
    if nic.mac is not None and int(nic.mac[:2], 16) & MAC_GROUP_BIT:
        raise XmlError(f"expected unicast mac address, found multicast '{nic.mac}'")
    if nic.mtu is not None and nic.type == "user":
        raise ConfigUnsupported(f"setting MTU on interface type {nic.type} is not supported yet")
    device = DEVICE_OF_NIC.get(nic.model or "")
    if device is not None and not facts.has(device):
        raise ConfigUnsupported(f"network card '{nic.model}' is not supported by {facts.binary}")
    if nic.isolated and nic.virtualport is not None and nic.virtualport.type == "openvswitch":
        raise ConfigUnsupported(
            f"interface {nic.mac} - <port isolated='yes'/> is not supported for network interfaces"
            " with virtualport type='openvswitch'",
            domain=ErrorDomain.DOMAIN,
        )


def _missing_attribute(name: str) -> XmlError:
    return XmlError(
        f"Missing required attribute '{name}' in element 'source'", domain=ErrorDomain.XML
    )


def _usb(d: DomainDef) -> None:
    controllers = d.devices.controllers_of("usb")
    if not any(c.model == "none" for c in controllers):
        return
    if len(controllers) > 1:
        raise XmlError(
            "Can't add another USB controller: USB is disabled for this domain",
        )
    if any(one.bus == "usb" for one in d.devices.inputs):
        raise ConfigUnsupported(
            "Can't add USB input device. USB bus is disabled", domain=ErrorDomain.DOMAIN
        )
    if (
        any(disk.bus == "usb" for disk in d.devices.disks)
        or d.devices.hubs
        or any(h.type == "usb" for h in d.devices.hostdevs)
    ):
        raise ConfigUnsupported(
            "Device configuration is not compatible: Domain has USB devices but USB is disabled",
            domain=ErrorDomain.DOMAIN,
        )


def _single(d: DomainDef) -> None:
    if len(d.devices.watchdogs) > 1:
        raise InternalError("only a single watchdog device is supported", domain=ErrorDomain.DOMAIN)
    models = [panic.model for panic in d.devices.panics]
    for model in ("isa", "hyperv"):
        if models.count(model) > 1:
            raise XmlError(f"Multiple panic devices with model '{model}'")
    if d.devices.nvram is not None:
        raise ConfigUnsupported("nvram device is only supported for PPC64")
    if len(d.devices.smartcards) > 1:
        raise ConfigUnsupported("this QEMU binary lacks multiple smartcard support")


def _controllers(d: DomainDef) -> None:
    usb = d.devices.controllers_of("usb")
    masters = [one.index for one in usb if one.model not in USB_COMPANIONS]
    if usb and not masters:
        raise XmlDetail("No master USB controller specified")
    for index in masters:
        if masters.count(index) > 1:
            raise XmlError(f"Duplicate USB controllers with index {index}")
    if is_q35(d) and d.devices.controllers_of("ide"):
        raise ConfigUnsupported(
            "IDE controllers are unsupported for this QEMU binary or machine type"
        )
    for controller in d.devices.controllers_of("pci"):
        if controller.port is not None and controller.port > PORT_MAX:
            raise ConfigUnsupported(
                f"PCI controller port '{controller.port}' out of range - must be 0-{PORT_MAX}"
            )
        names = {MODEL_NAMES.get(controller.model or ""), controller.model_name}
        if controller.model == "pcie-root-port":
            names.discard("ioh3420")  # the older kind
        if len(names - {None}) > 1:
            raise ConfigUnsupported(
                "Option 'modelName' has invalid value for PCI controller with index"
                f" '{controller.index}', model '{controller.model}' and modelName"
                f" '{controller.model_name}'"
            )


def _video(d: DomainDef, facts: EmulatorFacts) -> None:
    videos = d.devices.videos
    for number, video in enumerate(videos):
        kind = video.model.type if video.model is not None else None
        if kind not in VIDEO_OF_X86:
            raise ConfigUnsupported(f"domain configuration does not support video model '{kind}'")
        vram = video.model.vram if video.model is not None else None
        if kind != "qxl" and vram is not None and vram < VRAM_KIB_MIN:
            raise ConfigUnsupported("value for 'vram' must be at least 1 MiB (1024 KiB)")
        device = DEVICE_OF_VIDEO.get(kind or "")
        if device is not None and not facts.has(device):
            raise ConfigUnsupported(f"domain configuration does not support video model '{kind}'")
        if number > 0 and kind not in ("qxl", "virtio", "bochs"):
            raise ConfigUnsupported(f"video type '{kind}' is only valid as primary video device")
        if kind == "none" and len(videos) > 1:
            raise ConfigUnsupported(
                "a 'none' video type must be the only video device defined for the domain"
            )
    kinds = {graphics.type for graphics in d.devices.graphics}
    if "spice" not in kinds and any(audio.type == "spice" for audio in d.devices.audios):
        raise ConfigUnsupported("Spice audio is not supported without spice graphics")
    for graphics in d.devices.graphics:
        if graphics.type in ("rdp", "desktop"):
            raise ConfigUnsupported(f"{graphics.type} graphics are not supported with this QEMU")
    primary = [video for video in videos if video.model is not None and video.model.primary]
    if len(primary) > 1:
        raise ConfigUnsupported("Only one primary video device is supported")


def _chardevs(d: DomainDef) -> None:
    for console in d.devices.consoles[1:]:
        if console.target_type == "serial":
            raise ConfigUnsupported("Only the first console can be a serial port")
    for serial in d.devices.serials:
        if serial.target_model not in SERIAL_MODELS:
            raise ConfigUnsupported(
                f"unknown target model '{serial.target_model}' specified for character device",
                domain=ErrorDomain.DOMAIN,
            )
        if serial.target_model == "isa-debugcon" and serial.target_type != "isa-debug":
            raise ConfigUnsupported("Target model 'isa-debugcon' requires target type 'isa-debug'")


def _others(d: DomainDef) -> None:
    for filesystem in d.devices.filesystems:
        modes = filesystem.fmode is not None or filesystem.dmode is not None
        if modes and filesystem.accessmode != "mapped":
            raise ConfigUnsupported("fmode and dmode must be used with accessmode=mapped")
    for memory in d.devices.memories:
        if memory.uuid is not None and memory.model == "nvdimm":
            raise ConfigUnsupported(
                "UUID is not supported for NVDIMM device", domain=ErrorDomain.DOMAIN
            )
    for hostdev in d.devices.hostdevs:
        if hostdev.source is not None and hostdev.source.write_filtering is not None:
            raise ConfigUnsupported(
                "Write filtering of PCI device configuration space is not supported by qemu"
            )
    for one in d.devices.inputs:
        if one.bus == "ps2" and one.type not in ("mouse", "keyboard"):
            raise InternalError(
                f"ps2 bus does not support {one.type} input device", domain=ErrorDomain.DOMAIN
            )
    acpi = d.features is not None and d.features.acpi
    if d.devices.iommu is not None and d.devices.iommu.model == "intel" and not is_q35(d):
        raise ConfigUnsupported("IOMMU device: 'intel' is only supported with Q35 machines")
    if d.devices.iommu is not None and d.devices.iommu.model == "virtio" and not acpi:
        raise ConfigUnsupported("IOMMU device: 'virtio' requires ACPI")
