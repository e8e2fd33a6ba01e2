"""<domain>: the root, its devices, and metadata."""

from __future__ import annotations

import copy
import uuid as uuidlib
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from lxml import etree

from sterna.config.codec import Kept, Mode, at, child, children, in_kib, kept, status_only
from sterna.config.model.address import Device
from sterna.config.model.boot import Clock, Os
from sterna.config.model.chardev import Chardev, Redirdev, RedirFilter, Rng, Smartcard
from sterna.config.model.controller import Controller, Hub, Iommu
from sterna.config.model.cpu import Cpu
from sterna.config.model.disk import Disk, Seclabel
from sterna.config.model.display import Audio, Graphics, Input, Sound, Video
from sterna.config.model.features import Features, Sysinfo
from sterna.config.model.interface import Interface
from sterna.config.model.misc import (
    Crypto,
    Filesystem,
    Hostdev,
    Lease,
    Memballoon,
    MemoryDevice,
    Nvram,
    Panic,
    Shmem,
    Tpm,
    Vsock,
    Watchdog,
)
from sterna.config.model.tuning import (
    Cputune,
    IdMap,
    IoThreadId,
    MemoryBacking,
    Memtune,
    Numatune,
    Pm,
    QemuCapabilities,
    QemuCommandline,
    QemuDeprecation,
    QemuOverride,
    Vcpu,
)
from sterna.config.values import NAT, ON_OFF, TEXT_OR_EMPTY, UUID, one_of
from sterna.errors import ErrorDomain, InternalError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxml.etree import _Element


LIFECYCLE = ("destroy", "restart", "preserve", "rename-restart")


@dataclass(slots=True)
class Metadata:
    """What others keep in the definition: elements of namespaces that are not ours.

    `xml` holds the elements as they are printed below <metadata>: libxml2's own serialisation,
    indented for that depth. Comments and text between the elements are dropped, as libvirt does.
    """

    xml: str = ""

    @classmethod
    def read(cls, element: _Element, _depth: int = 0) -> Metadata:
        """One element for each namespace, the first: the rest libvirt drops too (observed)."""
        first: dict[str, _Element] = {}
        for kid in element:
            if isinstance(kid.tag, str) and kid.tag.startswith("{"):
                first.setdefault(kid.tag[1:].partition("}")[0], kid)
        return cls.of(list(first.values()))

    @classmethod
    def of(cls, elements: list[_Element]) -> Metadata:
        holder = etree.Element("domain")
        inner = etree.SubElement(holder, "metadata")
        for kid in elements:
            copied = copy.deepcopy(kid)
            copied.tail = None
            inner.append(copied)
        text = etree.tostring(holder, encoding="unicode", pretty_print=True)
        start, end = text.find("<metadata>\n"), text.rfind("  </metadata>")
        return cls(text[start + len("<metadata>\n") : end] if start >= 0 else "")

    def write(self, tag: str, out: list[str], pad: str, _mode: Mode) -> None:
        if self.xml:
            out.append(f"{pad}<{tag}>\n{self.xml}{pad}</{tag}>\n")
        else:
            out.append(f"{pad}<{tag}/>\n")


@dataclass(slots=True)
class Devices:
    """Every device, by kind, in libvirt's output order."""

    emulator: str | None = at("emulator")
    disks: list[Disk] = children("disk", Disk)
    controllers: list[Controller] = children("controller", Controller)
    leases: list[Lease] = children("lease", Lease)
    filesystems: list[Filesystem] = children("filesystem", Filesystem)
    interfaces: list[Interface] = children("interface", Interface)
    smartcards: list[Smartcard] = children("smartcard", Smartcard)
    serials: list[Chardev] = children("serial", Chardev)
    parallels: list[Chardev] = children("parallel", Chardev)
    consoles: list[Chardev] = children("console", Chardev)
    channels: list[Chardev] = children("channel", Chardev)
    inputs: list[Input] = children("input", Input)
    tpms: list[Tpm] = children("tpm", Tpm)
    graphics: list[Graphics] = children("graphics", Graphics)
    sounds: list[Sound] = children("sound", Sound)
    audios: list[Audio] = children("audio", Audio)
    videos: list[Video] = children("video", Video)
    hostdevs: list[Hostdev] = children("hostdev", Hostdev)
    redirdevs: list[Redirdev] = children("redirdev", Redirdev)
    redirfilter: RedirFilter | None = child("redirfilter", RedirFilter)
    hubs: list[Hub] = children("hub", Hub)
    watchdogs: list[Watchdog] = children("watchdog", Watchdog)
    memballoon: Memballoon | None = child("memballoon", Memballoon)
    rngs: list[Rng] = children("rng", Rng)
    nvram: Nvram | None = child("nvram", Nvram)
    panics: list[Panic] = children("panic", Panic)
    shmems: list[Shmem] = children("shmem", Shmem)
    memories: list[MemoryDevice] = children("memory", MemoryDevice)
    iommu: Iommu | None = child("iommu", Iommu)
    vsock: Vsock | None = child("vsock", Vsock)
    cryptos: list[Crypto] = children("crypto", Crypto)

    def controllers_of(self, kind: str) -> list[Controller]:
        return [c for c in self.controllers if c.type == kind]


@dataclass(slots=True)
class DomainDef:
    """One guest's definition, or, while it runs, its live state.

    Memory in KiB. `type` is the accelerator: kvm or qemu (TCG). `id` is only set in parsed live
    XML; formatting takes the id as an argument.
    """

    type: str | None = at("@type", one_of("qemu", "kvm", unknown="invalid domain type {}"))
    id: str | None = at("@id", when=lambda _value, _mode: False)
    name: str = at("name", default="")
    uuid: uuidlib.UUID | None = at("uuid", UUID)
    genid: str | None = at("genid", TEXT_OR_EMPTY)
    title: str | None = at("title", TEXT_OR_EMPTY)
    description: str | None = at("description", TEXT_OR_EMPTY)
    metadata: Metadata | None = child("metadata", Metadata)
    max_memory_slots: int | None = at("maxMemory@slots", NAT)
    max_memory: int | None = in_kib("maxMemory")
    memory_dump_core: bool | None = at("memory@dumpCore", ON_OFF)
    memory: int | None = in_kib("memory")
    current_memory: int | None = in_kib("currentMemory")
    blkiotune: Kept | None = kept("blkiotune")
    memtune: Memtune | None = child("memtune", Memtune)
    memory_backing: MemoryBacking | None = child("memoryBacking", MemoryBacking)
    vcpu_placement: str | None = at("vcpu@placement", one_of("static", "auto"))
    vcpu_cpuset: str | None = at("vcpu@cpuset")
    vcpu_current: int | None = at("vcpu@current", NAT)
    vcpu: int | None = at("vcpu", NAT)
    vcpus: list[Vcpu] = children("vcpus/vcpu", Vcpu)
    iothreads: int | None = at("iothreads", NAT)
    iothread_ids: list[IoThreadId] = children("iothreadids/iothread", IoThreadId)
    default_iothread_min: int | None = at("defaultiothread@thread_pool_min", NAT)
    default_iothread_max: int | None = at("defaultiothread@thread_pool_max", NAT)
    cputune: Cputune | None = child("cputune", Cputune)
    numatune: Numatune | None = child("numatune", Numatune)
    resource: Kept | None = kept("resource")
    sysinfos: list[Sysinfo] = children("sysinfo", Sysinfo)
    bootloader: str | None = at("bootloader")
    bootloader_args: str | None = at("bootloader_args")
    os: Os | None = child("os", Os)
    idmap: IdMap | None = child("idmap", IdMap)
    features: Features | None = child("features", Features)
    cpu: Cpu | None = child("cpu", Cpu)
    clock: Clock | None = child("clock", Clock)
    on_poweroff: str | None = at(
        "on_poweroff", one_of(*LIFECYCLE, unknown="unknown on_poweroff action: {}")
    )
    on_reboot: str | None = at(
        "on_reboot", one_of(*LIFECYCLE, unknown="unknown on_reboot action: {}")
    )
    on_crash: str | None = at(
        "on_crash",
        one_of(
            *LIFECYCLE,
            "coredump-destroy",
            "coredump-restart",
            unknown="unknown on_crash action: {}",
        ),
    )
    on_lockfailure: str | None = at(
        "on_lockfailure", one_of("poweroff", "restart", "pause", "ignore")
    )
    pm: Pm | None = child("pm", Pm)
    perf: Kept | None = kept("perf")
    devices: Devices = child("devices", Devices)
    seclabels: list[Seclabel] = children("seclabel", Seclabel)
    keywrap: Kept | None = kept("keywrap")
    launch_security: Kept | None = kept("launchSecurity")
    qemu_commandline: QemuCommandline | None = child("qemu:commandline", QemuCommandline)
    qemu_capabilities: QemuCapabilities | None = child("qemu:capabilities", QemuCapabilities)
    qemu_deprecation: QemuDeprecation | None = child("qemu:deprecation", QemuDeprecation)
    qemu_override: QemuOverride | None = child("qemu:override", QemuOverride)
    # As asked for, where `cpu` is what the running guest got.
    original_cpu: Cpu | None = child("originalCpu", Cpu, when=status_only)

    def after_parse(self, _line: int) -> None:
        if self.type is None:
            raise InternalError("missing domain type attribute", domain=ErrorDomain.DOMAIN)
        if self.devices is None:
            self.devices = Devices()

    @property
    def uses_qemu_namespace(self) -> bool:
        return any(
            (
                self.qemu_commandline,
                self.qemu_capabilities,
                self.qemu_deprecation,
                self.qemu_override,
            )
        )

    def all_devices(self) -> Iterator[Device]:
        """Every device that can have an alias and an address, in output order."""
        d = self.devices
        single = (d.memballoon, d.nvram, d.iommu, d.vsock)
        return chain(
            d.disks, d.controllers, d.filesystems, d.interfaces, d.smartcards, d.serials,
            d.parallels, d.consoles, d.channels, d.inputs, d.tpms, d.sounds, d.videos,
            d.hostdevs, d.redirdevs, d.hubs, d.watchdogs, d.rngs, d.panics, d.shmems, d.memories,
            d.cryptos, (one for one in single if one is not None),
        )  # fmt: skip
