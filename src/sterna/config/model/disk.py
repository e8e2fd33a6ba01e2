"""<disk> and what is below it."""

from __future__ import annotations

from dataclasses import dataclass

from sterna.config.codec import (
    SELF,
    Kept,
    at,
    child,
    children,
    flag,
    in_kib,
    kept,
    live_only,
    status_only,
)
from sterna.config.model.address import BootDevice, HostPciAddress
from sterna.config.values import INT, NAT, ON_OFF, YES_NO, one_of

DISK_TYPES = one_of("file", "block", "dir", "network", "volume", "nvme", "vhostuser", "vhostvdpa")


@dataclass(slots=True)
class Seclabel:
    """Security label of a domain or of one source."""

    type: str | None = at("@type", one_of("static", "dynamic", "none"))
    model: str | None = at("@model")
    relabel: bool | None = at("@relabel", YES_NO)
    labelskip: bool | None = at("@labelskip", YES_NO)
    label: str | None = at("label")
    imagelabel: str | None = at("imagelabel")
    baselabel: str | None = at("baselabel")


@dataclass(slots=True)
class Secret:
    type: str | None = at("@type")
    usage: str | None = at("@usage")
    uuid: str | None = at("@uuid")


@dataclass(slots=True)
class Auth:
    username: str | None = at("@username")
    secret: Secret | None = child("secret", Secret)


@dataclass(slots=True)
class Encryption:
    format: str | None = at("@format")
    engine: str | None = at("@engine")
    secret: Secret | None = child("secret", Secret)
    cipher: Kept | None = kept("cipher")
    ivgen: Kept | None = kept("ivgen")


@dataclass(slots=True)
class NetworkHost:
    name: str | None = at("@name")
    port: str | None = at("@port")
    transport: str | None = at("@transport")
    socket: str | None = at("@socket")


@dataclass(slots=True)
class Reconnect:
    enabled: bool | None = at("@enabled", YES_NO)
    timeout: int | None = at("@timeout", NAT)
    delay: int | None = at("@delay", NAT)


@dataclass(slots=True)
class DiskSource:
    """Where a disk's bytes are. Which fields count depends on the disk's `type`."""

    file: str | None = at("@file")
    dev: str | None = at("@dev")
    dir: str | None = at("@dir")
    protocol: str | None = at("@protocol")
    type: str | None = at("@type")
    managed: bool | None = at("@managed", YES_NO)
    namespace: int | None = at("@namespace", NAT)
    path: str | None = at("@path")
    name: str | None = at("@name")
    query: str | None = at("@query")
    tls: bool | None = at("@tls", YES_NO)
    tls_hostname: str | None = at("@tlsHostname")
    pool: str | None = at("@pool")
    volume: str | None = at("@volume")
    mode: str | None = at("@mode")
    startup_policy: str | None = at("@startupPolicy", one_of("mandatory", "requisite", "optional"))
    index: int | None = at("@index", NAT, when=live_only)
    hosts: list[NetworkHost] = children("host", NetworkHost)
    snapshot: str | None = at("snapshot@name")
    config: str | None = at("config@file")
    reconnect: Reconnect | None = child("reconnect", Reconnect)
    nvme_address: HostPciAddress | None = child("address", HostPciAddress)
    initiator: Kept | None = kept("initiator")
    seclabels: list[Seclabel] = children("seclabel", Seclabel)
    auth: Auth | None = child("auth", Auth)
    encryption: Encryption | None = child("encryption", Encryption)
    reservations: Kept | None = kept("reservations")
    slices: Kept | None = kept("slices")
    ssl: Kept | None = kept("ssl")
    cookies: Kept | None = kept("cookies")
    readahead: Kept | None = kept("readahead")
    timeout: Kept | None = kept("timeout")
    identity: Kept | None = kept("identity")
    knownhosts: Kept | None = kept("knownHosts")


@dataclass(slots=True)
class BackingStore:
    """A link of a backing chain; with no `type` it ends the chain."""

    type: str | None = at("@type", DISK_TYPES)
    index: int | None = at("@index", NAT, when=live_only)
    format: str | None = at("format@type")
    source: DiskSource | None = child("source", DiskSource)
    backing: BackingStore | None = child("backingStore", SELF)
    # Found by looking at the image, so not part of the definition.
    detected: bool | None = at("@detected", YES_NO, when=status_only)


@dataclass(slots=True)
class Mirror:
    """A running block copy's destination; only in a running guest."""

    type: str | None = at("@type")
    file: str | None = at("@file")
    format_attribute: str | None = at("@format")
    job: str | None = at("@job")
    ready: str | None = at("@ready")
    format: str | None = at("format@type")
    source: DiskSource | None = child("source", DiskSource)
    backing: BackingStore | None = child("backingStore", BackingStore)


@dataclass(slots=True)
class Iotune:
    """Throttling limits, in bytes or operations a second; bursts in seconds."""

    total_bytes_sec: int | None = at("total_bytes_sec", NAT)
    read_bytes_sec: int | None = at("read_bytes_sec", NAT)
    write_bytes_sec: int | None = at("write_bytes_sec", NAT)
    total_iops_sec: int | None = at("total_iops_sec", NAT)
    read_iops_sec: int | None = at("read_iops_sec", NAT)
    write_iops_sec: int | None = at("write_iops_sec", NAT)
    total_bytes_sec_max: int | None = at("total_bytes_sec_max", NAT)
    read_bytes_sec_max: int | None = at("read_bytes_sec_max", NAT)
    write_bytes_sec_max: int | None = at("write_bytes_sec_max", NAT)
    total_iops_sec_max: int | None = at("total_iops_sec_max", NAT)
    read_iops_sec_max: int | None = at("read_iops_sec_max", NAT)
    write_iops_sec_max: int | None = at("write_iops_sec_max", NAT)
    size_iops_sec: int | None = at("size_iops_sec", NAT)
    group_name: str | None = at("group_name")
    total_bytes_sec_max_length: int | None = at("total_bytes_sec_max_length", NAT)
    read_bytes_sec_max_length: int | None = at("read_bytes_sec_max_length", NAT)
    write_bytes_sec_max_length: int | None = at("write_bytes_sec_max_length", NAT)
    total_iops_sec_max_length: int | None = at("total_iops_sec_max_length", NAT)
    read_iops_sec_max_length: int | None = at("read_iops_sec_max_length", NAT)
    write_iops_sec_max_length: int | None = at("write_iops_sec_max_length", NAT)


@dataclass(slots=True)
class DiskDriver:
    """How QEMU opens the image."""

    name: str | None = at("@name")
    type: str | None = at("@type")
    cache: str | None = at(
        "@cache",
        one_of("default", "none", "writethrough", "writeback", "directsync", "unsafe"),
    )
    error_policy: str | None = at(
        "@error_policy", one_of("default", "stop", "report", "ignore", "enospace")
    )
    rerror_policy: str | None = at("@rerror_policy", one_of("default", "stop", "report", "ignore"))
    io: str | None = at("@io", one_of("default", "native", "threads", "io_uring"))
    ioeventfd: bool | None = at("@ioeventfd", ON_OFF)
    event_idx: bool | None = at("@event_idx", ON_OFF)
    copy_on_read: bool | None = at("@copy_on_read", ON_OFF)
    discard: str | None = at("@discard", one_of("default", "unmap", "ignore"))
    iothread: int | None = at("@iothread", NAT)
    detect_zeroes: str | None = at("@detect_zeroes", one_of("default", "off", "on", "unmap"))
    queues: int | None = at("@queues", NAT)
    queue_size: int | None = at("@queue_size", NAT)
    iommu: bool | None = at("@iommu", ON_OFF)
    ats: bool | None = at("@ats", ON_OFF)
    packed: bool | None = at("@packed", ON_OFF)
    page_per_vq: bool | None = at("@page_per_vq", ON_OFF)
    max_size: int | None = in_kib("metadata_cache/max_size", default_unit="bytes")


@dataclass(slots=True)
class Disk(BootDevice):
    """A block device of the guest.

    `type` says where the bytes are (file, block, network, ...), `device` what the guest sees
    (disk, cdrom, floppy, lun), `bus` the kind of controller.
    """

    type: str = at("@type", DISK_TYPES, "file")
    device: str = at("@device", one_of("disk", "cdrom", "floppy", "lun"), "disk")
    model: str | None = at(
        "@model", one_of("virtio", "virtio-transitional", "virtio-non-transitional")
    )
    rawio: bool | None = at("@rawio", YES_NO)
    sgio: str | None = at("@sgio", one_of("filtered", "unfiltered"))
    snapshot: str | None = at("@snapshot", one_of("no", "internal", "external"))
    driver: DiskDriver | None = child("driver", DiskDriver)
    auth: Auth | None = child("auth", Auth)
    source: DiskSource | None = child("source", DiskSource)
    backing: BackingStore | None = child("backingStore", BackingStore)
    geometry_cyls: int | None = at("geometry@cyls", NAT)
    geometry_heads: int | None = at("geometry@heads", NAT)
    geometry_secs: int | None = at("geometry@secs", NAT)
    geometry_trans: str | None = at("geometry@trans", one_of("auto", "none", "lba"))
    logical_block_size: int | None = at("blockio@logical_block_size", NAT)
    physical_block_size: int | None = at("blockio@physical_block_size", NAT)
    discard_granularity: int | None = at("blockio@discard_granularity", NAT)
    mirror: Mirror | None = child("mirror", Mirror, when=live_only)
    target: str = at("target@dev", default="")
    bus: str | None = at(
        "target@bus", one_of("ide", "fdc", "scsi", "virtio", "xen", "usb", "uml", "sata", "sd")
    )
    tray: str | None = at("target@tray", one_of("open", "closed"))
    removable: bool | None = at("target@removable", ON_OFF)
    rotation_rate: int | None = at("target@rotation_rate", INT)
    iotune: Iotune | None = child("iotune", Iotune)
    readonly: bool = flag("readonly")
    shareable: bool = flag("shareable")
    transient: bool = flag("transient")
    transient_shared: bool | None = at("transient@shareBacking", YES_NO)
    serial: str | None = at("serial")
    wwn: str | None = at("wwn")
    vendor: str | None = at("vendor")
    product: str | None = at("product")
    encryption: Encryption | None = child("encryption", Encryption)

    @property
    def path(self) -> str | None:
        """The file or block device behind it, when it has one on this host."""
        if self.source is None:
            return None
        return self.source.file if self.type == "file" else self.source.dev
