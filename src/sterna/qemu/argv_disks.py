"""Disks: the block nodes behind them and the devices the guest sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sterna.config.model import (
    BackingStore,
    Disk,
    DiskDriver,
    DiskSource,
    DomainDef,
    DriveAddress,
)
from sterna.errors import ConfigUnsupported
from sterna.qemu.argv_block import source_node
from sterna.qemu.argv_boot import BootOrder
from sterna.qemu.argv_build import Build, dumps, refuse, virtio_driver, virtio_options

_CACHES: dict[str, tuple[bool, bool, bool]] = {
    # host page cache bypassed, flushes ignored, guest sees a write cache
    "none": (True, False, True),
    "writeback": (False, False, True),
    "writethrough": (False, False, False),
    "directsync": (True, False, False),
    "unsafe": (False, True, True),
}

_BACKABLE = ("qcow2", "qcow", "qed", "vmdk")
"""Formats that may name a backing file themselves: with them, "no backing file" must be said."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One image of a disk's chain."""

    index: int
    type: str
    format: str
    source: DiskSource
    ends_chain: bool

    @property
    def node(self) -> str:
        return f"libvirt-{self.index}-format"


def assign_node_indexes(d: DomainDef) -> None:
    """Number the images of a definition that is about to run, as libvirt does.

    Top images first, the last disk's before the others', then backing images, again from the
    last disk on; a drive without a medium takes a number too. The numbers make QEMU's node
    names, and appear in XML as `index`.
    """
    for disk, indexes in zip(d.devices.disks, _numbering(d), strict=True):
        for image, index in zip(_images(disk), indexes, strict=True):
            if image is not None:
                image.index = index


def _images(disk: Disk) -> list[DiskSource | BackingStore | None]:
    images: list[DiskSource | BackingStore | None] = [disk.source]
    backing = disk.backing
    while backing is not None and backing.type is not None:
        images.append(backing)
        backing = backing.backing
    return images


def _numbering(d: DomainDef) -> list[list[int]]:
    """For each disk the numbers of its images, top first."""
    disks = d.devices.disks
    numbers = [[len(disks) - position] for position in range(len(disks))]
    next_index = len(disks) + 1
    for position in reversed(range(len(disks))):
        backing = len(_images(disks[position])) - 1
        numbers[position] += range(next_index, next_index + backing)
        next_index += backing
    return numbers


def layers(build: Build, disk: Disk) -> list[Layer]:
    """A disk's images, top first; empty for a drive without a medium."""
    if disk.source is None or not has_medium(disk):
        return []
    fallback = _numbering(build.d)[build.d.devices.disks.index(disk)]
    image_format = disk.driver.type if disk.driver is not None and disk.driver.type else "raw"
    result = []
    kind, source, backing = disk.type, disk.source, disk.backing
    index = source.index if source.index is not None else fallback[0]
    for depth in range(len(fallback)):
        ends = backing is not None and backing.type is None
        result.append(Layer(index, kind, image_format, source, ends))
        if backing is None or backing.type is None:
            break
        if backing.source is None or backing.format is None:
            raise refuse(f"a backing image of '{disk.target}' without source or format")
        kind, image_format, source = backing.type, backing.format, backing.source
        index = backing.index if backing.index is not None else fallback[depth + 1]
        backing = backing.backing
    return result


def has_medium(disk: Disk) -> bool:
    source = disk.source
    if source is None:
        return False
    if disk.type == "file":
        return source.file is not None
    return source.dev is not None if disk.type == "block" else True


def disks(build: Build, order: BootOrder) -> None:
    _floppy_controller(build, order)
    for disk in build.d.devices.disks:
        _refuse(disk)
        chain = layers(build, disk)
        for layer in reversed(chain):
            _layer(build, disk, layer, chain)
        node = chain[0].node if chain else None
        if node is not None and disk.driver is not None and disk.driver.copy_on_read:
            node = f"libvirt-CoR-{disk.target}"
            build.opt(
                "-blockdev",
                dumps(
                    {
                        "driver": "copy-on-read",
                        "node-name": node,
                        "file": chain[0].node,
                        "discard": "unmap",
                    }
                ),
            )
        build.device(_device(build, disk, node, order))
        if node is not None:
            _throttle(build, disk)


def _refuse(disk: Disk) -> None:
    """Name what is understood in XML but has no arguments here."""
    unsupported = {
        "<auth>": disk.auth or (disk.source and disk.source.auth),
        "<encryption>": disk.encryption or (disk.source and disk.source.encryption),
        "<transient>": disk.transient,
        "rawio": disk.rawio,
        "sgio='unfiltered'": disk.sgio == "unfiltered",
        "<mirror>": disk.mirror and disk.mirror.job is None,
        "<reservations>": disk.source and disk.source.reservations,
        "<slices>": disk.source and disk.source.slices,
        "an internal <snapshot> of the image": disk.source and disk.source.snapshot,
    }
    for what, present in unsupported.items():
        if present:
            raise refuse(f"{what} of disk '{disk.target}'")


def cache_mode(disk: Disk) -> tuple[bool, bool, bool] | None:
    """How the caches are set, None where QEMU's own default stays.

    A disk that several guests share never goes through this host's page cache (libvirt 9.0,
    observed).
    """
    mode = disk.driver.cache if disk.driver is not None else None
    if mode in (None, "default"):
        if disk.shareable and not disk.readonly:
            return _CACHES["none"]
        return None
    return _CACHES[mode or ""]


def _layer(build: Build, disk: Disk, layer: Layer, chain: list[Layer]) -> None:
    driver = disk.driver or DiskDriver()
    top = layer is chain[0]
    cache = cache_mode(disk)
    cache_json = {"direct": cache[0], "no-flush": cache[1]} if cache is not None else None
    storage: dict[str, Any] = source_node(layer.type, layer.source)
    if driver.io not in (None, "default") and layer.type in ("file", "block"):
        storage["aio"] = driver.io
    storage["node-name"] = f"libvirt-{layer.index}-storage"
    if cache_json:
        storage["cache"] = cache_json
    storage["auto-read-only"] = True
    storage["discard"] = "unmap"
    build.opt("-blockdev", dumps(storage))
    node: dict[str, Any] = {
        "node-name": layer.node,
        "read-only": not top or disk.readonly or disk.device == "cdrom",
    }
    if driver.discard not in (None, "default"):
        node["discard"] = driver.discard
    if top and driver.detect_zeroes not in (None, "default"):
        node["detect-zeroes"] = driver.detect_zeroes
        if driver.detect_zeroes == "unmap" and driver.discard != "unmap":
            node["detect-zeroes"] = "on"
    if cache_json:
        node["cache"] = cache_json
    node["driver"] = layer.format
    if top and driver.max_size is not None:
        if layer.format != "qcow2":
            raise refuse(f"<metadata_cache> of a disk in format '{layer.format}'")
        node["cache-size"] = driver.max_size * 1024
    node["file"] = storage["node-name"]
    if layer is not chain[-1]:
        node["backing"] = chain[chain.index(layer) + 1].node
    elif layer.ends_chain and layer.format in _BACKABLE:
        node["backing"] = None
    build.opt("-blockdev", dumps(node))


def _floppy_controller(build: Build, order: BootOrder) -> None:
    """i440fx has the controller built in, q35 gets it as a device. The drives' boot order is
    the controller's property on both."""
    floppies = [disk for disk in build.d.devices.disks if disk.bus == "fdc"]
    boot = {
        f"bootindex{'AB'[_drive(disk).unit]}": index
        for disk in floppies
        if (index := order.of(disk)) is not None
    }
    if build.is_q35 and (floppies or build.d.devices.controllers_of("fdc")):
        build.device({"driver": "isa-fdc", **boot})
    else:
        for name, index in boot.items():
            build.opt("-global", f"isa-fdc.{name}={index}")


def _drive(disk: Disk) -> DriveAddress:
    if not isinstance(disk.address, DriveAddress):
        raise refuse(f"disk '{disk.target}' without a drive address")
    return disk.address


def _device(build: Build, disk: Disk, node: str | None, order: BootOrder) -> dict[str, Any]:
    match disk.bus:
        case "virtio":
            properties = _virtio_blk(build, disk)
        case "ide" | "sata":
            properties = _ide(build, disk)
        case "scsi":
            properties = _scsi(build, disk)
        case "fdc":
            properties = {"driver": "floppy", "unit": _drive(disk).unit}
        case "usb":
            properties = {"driver": "usb-storage"} | build.usb(disk)
        case _:
            raise refuse(f"disk bus '{disk.bus}'")
    if disk.bus != "virtio" and disk.driver is not None:
        for name in ("ioeventfd", "event_idx", "iothread", "queues", "queue_size"):
            if getattr(disk.driver, name) is not None:
                raise refuse(f"driver attribute '{name}' of disk '{disk.target}'")
    if disk.shareable:
        properties["share-rw"] = True
    if node is not None:
        properties["drive"] = node
    properties["id"] = build.alias(disk)
    index = order.of(disk)
    if index is not None and disk.bus != "fdc":
        properties["bootindex"] = index
    _details(disk, properties, medium=node is not None)
    return properties


def _virtio_blk(build: Build, disk: Disk) -> dict[str, Any]:
    if disk.device == "cdrom":
        raise ConfigUnsupported("disk device='cdrom' is not supported for bus='virtio'")
    if disk.device == "lun":
        raise refuse("device='lun' on a virtio disk")
    driver = disk.driver or DiskDriver()
    properties: dict[str, Any] = {"driver": virtio_driver("virtio-blk", disk.model)}
    if driver.iothread is not None:
        properties["iothread"] = f"iothread{driver.iothread}"
    properties |= virtio_options(driver)
    for field, name in (
        ("ioeventfd", "ioeventfd"),
        ("event_idx", "event_idx"),
        ("queues", "num-queues"),
        ("queue_size", "queue-size"),
    ):
        if getattr(driver, field) is not None:
            properties[name] = getattr(driver, field)
    return properties | build.pci(disk)


def _ide(build: Build, disk: Disk) -> dict[str, Any]:
    address = _drive(disk)
    if disk.device == "lun":
        raise refuse(f"device='lun' on bus='{disk.bus}'")
    properties: dict[str, Any] = {"driver": "ide-cd" if disk.device == "cdrom" else "ide-hd"}
    if disk.bus == "ide":
        return properties | {"bus": f"ide.{address.bus}", "unit": address.unit}
    if build.is_q35 and address.controller == 0:
        return properties | {"bus": f"ide.{address.unit}"}
    alias = build.alias(build.controller("sata", address.controller))
    return properties | {"bus": f"{alias}.{address.unit}"}


def _scsi(build: Build, disk: Disk) -> dict[str, Any]:
    address = _drive(disk)
    controller = build.controller("scsi", address.controller)
    driver = {"cdrom": "scsi-cd", "lun": "scsi-block"}.get(disk.device, "scsi-hd")
    properties: dict[str, Any] = {"driver": driver, "bus": f"{build.alias(controller)}.0"}
    if (controller.model or "lsilogic") in ("lsilogic", "am53c974", "dc390"):
        # One initiator, no logical units: the unit is the SCSI id.
        if address.target:
            raise ConfigUnsupported("target must be 0 for controller model 'lsilogic'")
        properties["scsi-id"] = address.unit
    elif controller.model in ("lsisas1068", "lsisas1078"):
        properties |= {"channel": 0, "scsi-id": address.target, "lun": address.unit}
    else:
        properties |= {
            "channel": address.bus,
            "scsi-id": address.target,
            "lun": address.unit,
        }
    if disk.device != "lun":
        properties["device_id"] = disk.serial or f"drive-{build.alias(disk)}"
    return properties


def _details(disk: Disk, properties: dict[str, Any], *, medium: bool) -> None:
    """Properties that disks of several buses share."""
    for field, name in (
        ("logical_block_size", "logical_block_size"),
        ("physical_block_size", "physical_block_size"),
        ("discard_granularity", "discard_granularity"),
        ("geometry_cyls", "cyls"),
        ("geometry_heads", "heads"),
        ("geometry_secs", "secs"),
        ("geometry_trans", "bios-chs-trans"),
    ):
        if getattr(disk, field) is not None:
            properties[name] = getattr(disk, field)
    if disk.wwn is not None:
        try:
            properties["wwn"] = int(disk.wwn, 16)
        except ValueError:
            raise ConfigUnsupported(f"malformed wwn: {disk.wwn}") from None
    for field in ("rotation_rate", "vendor", "product"):
        if getattr(disk, field) is not None:
            properties[field] = getattr(disk, field)
    if disk.bus == "usb":
        properties["removable"] = bool(disk.removable)
    cache = cache_mode(disk)
    if cache is not None and medium and disk.device != "lun":
        properties["write-cache"] = "on" if cache[2] else "off"
    if disk.serial is not None:
        properties["serial"] = disk.serial
    _error_policy(disk, properties)


def _error_policy(disk: Disk, properties: dict[str, Any]) -> None:
    if disk.driver is None:
        return
    write, read = disk.driver.error_policy, disk.driver.rerror_policy
    if write in (None, "default"):
        write = None
    if read in (None, "default"):
        # "No space" cannot happen when reading: QEMU's own default stays then.
        read = None if write == "enospace" else write
    if write is not None:
        properties["werror"] = "enospc" if write == "enospace" else write
    if read is not None:
        properties["rerror"] = read


def block_device(disk: Disk) -> str:
    """What QMP's block commands call a disk: QEMU's `qdev` in query-block (7.2, observed).

    The block device is a child of the device of the same name for virtio and USB.
    """
    match disk.bus:
        case "virtio":
            return f"/machine/peripheral/{disk.alias}/virtio-backend"
        case "usb":
            return f"/machine/peripheral/{disk.alias}/{disk.alias}.0/legacy[0]"
        case _:
            return disk.alias or ""


def _throttle(build: Build, disk: Disk) -> None:
    """I/O limits. With -blockdev they belong to the device, and are set over QMP."""
    limits = disk.iotune
    if limits is None:
        return
    arguments: dict[str, Any] = {"id": block_device(disk)}
    for word, field in (("bps", "bytes"), ("iops", "iops")):
        for kind, suffix in (("total", ""), ("read", "_rd"), ("write", "_wr")):
            arguments[word + suffix] = getattr(limits, f"{kind}_{field}_sec") or 0
            most = getattr(limits, f"{kind}_{field}_sec_max")
            if most is not None:
                arguments[f"{word}{suffix}_max"] = most
            length = getattr(limits, f"{kind}_{field}_sec_max_length")
            if length is not None:
                arguments[f"{word}{suffix}_max_length"] = length
    if limits.size_iops_sec is not None:
        arguments["iops_size"] = limits.size_iops_sec
    arguments["group"] = limits.group_name or f"drive-{build.alias(disk)}"
    build.qmp("block_set_io_throttle", **arguments)
