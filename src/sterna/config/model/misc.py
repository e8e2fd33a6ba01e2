"""Watchdog, balloon, panic, tpm, shmem, vsock, filesystem, hostdev, memory devices and the like."""

from __future__ import annotations

import uuid as uuidlib
from dataclasses import dataclass
from typing import ClassVar

from sterna.config.codec import Kept, at, child, children, flag, in_kib, kept, live_only
from sterna.config.model.address import BootDevice, Device
from sterna.config.model.chardev import VirtioDriver
from sterna.config.values import (
    HEX1,
    HEX2,
    HEX4,
    NAT,
    ON_OFF,
    UUID,
    YES_NO,
    one_of,
    parse_any_base,
    size_bytes,
)
from sterna.errors import XmlError

VIRTIO_MODELS = ("virtio", "virtio-transitional", "virtio-non-transitional")


@dataclass(slots=True)
class Watchdog(Device):
    model: str = at(
        "@model",
        one_of("i6300esb", "ib700", "diag288", "itco", unknown="unknown watchdog model '{}'"),
        "",
    )
    action: str | None = at(
        "@action",
        one_of(
            "reset",
            "shutdown",
            "poweroff",
            "pause",
            "dump",
            "none",
            "inject-nmi",
            unknown="unknown watchdog action '{}'",
        ),
    )


@dataclass(slots=True)
class Memballoon(Device):
    xml_tail: ClassVar[tuple[str, ...]] = (*Device.xml_tail, "driver")

    model: str = at("@model", one_of(*VIRTIO_MODELS, "xen", "none"), "virtio", required=True)
    autodeflate: bool | None = at("@autodeflate", ON_OFF)
    free_page_reporting: bool | None = at("@freePageReporting", ON_OFF)
    stats_period: int | None = at("stats@period", NAT)
    driver: VirtioDriver | None = child("driver", VirtioDriver)


@dataclass(slots=True)
class Panic(Device):
    model: str | None = at(
        "@model",
        one_of("default", "pseries", "isa", "hyperv", "s390", unknown="unknown panic model '{}'"),
    )


@dataclass(slots=True)
class TpmBackend:
    type: str = at("@type", one_of("passthrough", "emulator", "external"), "passthrough")
    version: str | None = at("@version", one_of("default", "1.2", "2.0"))
    persistent_state: bool | None = at("@persistent_state", YES_NO)
    device_path: str | None = at("device@path")
    source: Kept | None = kept("source")
    encryption_secret: str | None = at("encryption@secret")
    active_pcr_banks: Kept | None = kept("active_pcr_banks")


@dataclass(slots=True)
class Tpm(Device):
    model: str | None = at(
        "@model", one_of("tpm-tis", "tpm-crb", "tpm-spapr", "spapr-tpm-proxy", "tpm-tis-device")
    )
    backend: TpmBackend | None = child("backend", TpmBackend)


@dataclass(slots=True)
class Shmem(Device):
    name: str = at("@name", default="")
    role: str | None = at("@role", one_of("master", "peer"))
    model: str | None = at("model@type", one_of("ivshmem", "ivshmem-plain", "ivshmem-doorbell"))
    size_text: str | None = at("size")
    size_unit: str | None = at("size@unit")
    server: str | None = at("server@path")
    msi_enabled: bool | None = at("msi@enabled", ON_OFF)
    msi_vectors: int | None = at("msi@vectors", NAT)
    msi_ioeventfd: bool | None = at("msi@ioeventfd", ON_OFF)

    def after_parse(self, line: int) -> None:
        try:
            size_bytes(self.size_text or "0", self.size_unit, "M")
        except ValueError as why:
            raise XmlError(
                f"Invalid value for element 'size': '{self.size_text}'. {why} (line {line})"
            ) from None


@dataclass(slots=True)
class Vsock(Device):
    model: str | None = at("@model", one_of(*VIRTIO_MODELS))
    cid_auto: bool | None = at("cid@auto", YES_NO)
    cid: int | None = at("cid@address", NAT)
    driver: VirtioDriver | None = child("driver", VirtioDriver)


@dataclass(slots=True)
class FilesystemDriver:
    type: str | None = at("@type")
    format: str | None = at("@format")
    name: str | None = at("@name")
    wrpolicy: str | None = at("@wrpolicy", one_of("default", "immediate"))
    queue: int | None = at("@queue", NAT)
    iommu: bool | None = at("@iommu", ON_OFF)
    ats: bool | None = at("@ats", ON_OFF)
    packed: bool | None = at("@packed", ON_OFF)
    page_per_vq: bool | None = at("@page_per_vq", ON_OFF)


@dataclass(slots=True)
class FilesystemSource:
    dir: str | None = at("@dir")
    file: str | None = at("@file")
    dev: str | None = at("@dev")
    name: str | None = at("@name")
    usage: int | None = at("@usage", NAT)
    units: str | None = at("@units")
    pool: str | None = at("@pool")
    volume: str | None = at("@volume")
    socket: str | None = at("@socket")


@dataclass(slots=True)
class Filesystem(Device):
    """A host directory or image shared with the guest."""

    type: str = at(
        "@type",
        one_of("mount", "block", "file", "template", "ram", "bind", "volume"),
        "mount",
    )
    accessmode: str | None = at("@accessmode", one_of("passthrough", "mapped", "squash"))
    fmode: str | None = at("@fmode")
    dmode: str | None = at("@dmode")
    multidevs: str | None = at("@multidevs", one_of("default", "remap", "forbid", "warn"))
    model: str | None = at("@model", one_of(*VIRTIO_MODELS))
    driver: FilesystemDriver | None = child("driver", FilesystemDriver)
    binary: Kept | None = kept("binary")
    source: FilesystemSource | None = child("source", FilesystemSource)
    target: str | None = at("target@dir")
    readonly: bool = flag("readonly")
    space_hard_limit: int | None = in_kib("space_hard_limit", default_unit="bytes")
    space_soft_limit: int | None = in_kib("space_soft_limit", default_unit="bytes")


@dataclass(slots=True)
class HostAddress:
    """Where the device is on the host: PCI, USB (bus, device), SCSI or a mediated device's uuid."""

    domain: int | None = at("@domain", HEX4)
    bus: str | None = at("@bus")
    slot: int | None = at("@slot", HEX2)
    function: int | None = at("@function", HEX1)
    device: int | None = at("@device", NAT)
    target: int | None = at("@target", NAT)
    unit: int | None = at("@unit", NAT)
    uuid: uuidlib.UUID | None = at("@uuid", UUID)
    type: str | None = at("@type")

    def after_parse(self, line: int) -> None:
        """A PCI bus is printed in hexadecimal, a USB or SCSI bus in decimal."""
        if self.bus is None:
            return
        try:
            number = parse_any_base(self.bus)
        except ValueError as why:
            raise XmlError(
                f"Invalid value for attribute 'bus' in element 'address': '{self.bus}'. {why}"
                f" (line {line})"
            ) from None
        self.bus = f"0x{number:02x}" if self.slot is not None else str(number)

    @property
    def bus_number(self) -> int:
        return parse_any_base(self.bus) if self.bus is not None else 0


@dataclass(slots=True)
class HostdevSource:
    """Which device of the host; which fields count depends on the hostdev's `type`."""

    protocol: str | None = at("@protocol")
    name: str | None = at("@name")
    wwpn: str | None = at("@wwpn")
    startup_policy: str | None = at("@startupPolicy", one_of("mandatory", "requisite", "optional"))
    missing: bool | None = at("@missing", YES_NO, when=live_only)
    guest_reset: str | None = at("@guestReset", one_of("default", "off", "uninitialized", "on"))
    write_filtering: bool | None = at("@writeFiltering", YES_NO)
    vendor: int | None = at("vendor@id", HEX4)
    product: int | None = at("product@id", HEX4)
    adapter: str | None = at("adapter@name")
    address: HostAddress | None = child("address", HostAddress)
    hosts: list[Kept] = children("host", Kept)
    auth: Kept | None = kept("auth")
    initiator: Kept | None = kept("initiator")
    block: str | None = at("block")
    char: str | None = at("char")
    interface: str | None = at("interface")


@dataclass(slots=True)
class Hostdev(BootDevice):
    """A device of the host given to the guest."""

    mode: str = at("@mode", one_of("subsystem", "capabilities"), "subsystem")
    type: str = at(
        "@type",
        one_of("usb", "pci", "scsi", "scsi_host", "mdev", "storage", "misc", "net"),
        "",
    )
    managed: bool | None = at("@managed", YES_NO)
    sgio: str | None = at("@sgio", one_of("filtered", "unfiltered"))
    rawio: bool | None = at("@rawio", YES_NO)
    model: str | None = at("@model")
    display: bool | None = at("@display", ON_OFF)
    ramfb: bool | None = at("@ramfb", ON_OFF)
    driver: str | None = at("driver@name", one_of("kvm", "vfio", "xen"))
    source: HostdevSource | None = child("source", HostdevSource)
    teaming_type: str | None = at("teaming@type", one_of("persistent", "transient"))
    teaming_persistent: str | None = at("teaming@persistent")
    readonly: bool = flag("readonly")
    shareable: bool = flag("shareable")


@dataclass(slots=True)
class MemorySource:
    path: str | None = at("path")
    pagesize: int | None = in_kib("pagesize")
    nodemask: str | None = at("nodemask")
    alignsize: int | None = in_kib("alignsize")
    pmem: bool = flag("pmem")


@dataclass(slots=True)
class MemoryDevice(Device):
    """A memory module beside the base memory; sizes in KiB."""

    model: str = at(
        "@model", one_of("dimm", "nvdimm", "virtio-pmem", "virtio-mem", "sgx-epc"), "dimm"
    )
    access: str | None = at("@access", one_of("shared", "private"))
    discard: bool | None = at("@discard", YES_NO)
    uuid: uuidlib.UUID | None = at("uuid", UUID)
    source: MemorySource | None = child("source", MemorySource)
    size: int | None = in_kib("target/size")
    node: int | None = at("target/node", NAT)
    label_size: int | None = in_kib("target/label/size")
    readonly: bool = flag("target/readonly")
    block: int | None = in_kib("target/block")
    requested: int | None = in_kib("target/requested")
    current: int | None = in_kib("target/current")
    address_base: str | None = at("target/address@base")


@dataclass(slots=True)
class Lease:
    lockspace: str | None = at("lockspace")
    key: str | None = at("key")
    target_path: str | None = at("target@path")
    target_offset: int | None = at("target@offset", NAT)


@dataclass(slots=True)
class Nvram(Device):
    """The NVRAM device of machines that have one (not the firmware's variables)."""


@dataclass(slots=True)
class Crypto(Device):
    model: str = at("@model", one_of("virtio"), "virtio")
    type: str = at("@type", one_of("qemu"), "qemu")
    backend: Kept | None = kept("backend")
    driver: VirtioDriver | None = child("driver", VirtioDriver)
