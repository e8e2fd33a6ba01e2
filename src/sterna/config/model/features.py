"""<features>: switches of the machine, and <sysinfo>, <pm>, lifecycle words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sterna.config.codec import Kept, at, child, children, flag, in_kib, kept
from sterna.config.values import NAT, ON_OFF, YES_NO, one_of, size_bytes
from sterna.errors import XmlError

SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


@dataclass(slots=True)
class Hyperv:
    """Enlightenments. mode custom lists them; passthrough takes all the host has."""

    xml_open_pair: ClassVar[bool] = True

    mode: str | None = at("@mode", one_of("custom", "passthrough"))
    relaxed: bool | None = at("relaxed@state", ON_OFF, required=True)
    vapic: bool | None = at("vapic@state", ON_OFF, required=True)
    spinlocks: bool | None = at("spinlocks@state", ON_OFF, required=True)
    spinlocks_retries: int | None = at("spinlocks@retries", NAT)
    vpindex: bool | None = at("vpindex@state", ON_OFF, required=True)
    runtime: bool | None = at("runtime@state", ON_OFF, required=True)
    synic: bool | None = at("synic@state", ON_OFF, required=True)
    stimer: bool | None = at("stimer@state", ON_OFF, required=True)
    stimer_direct: bool | None = at("stimer/direct@state", ON_OFF, required=True)
    reset: bool | None = at("reset@state", ON_OFF, required=True)
    vendor_id: bool | None = at("vendor_id@state", ON_OFF, required=True)
    vendor_id_value: str | None = at("vendor_id@value")
    frequencies: bool | None = at("frequencies@state", ON_OFF, required=True)
    reenlightenment: bool | None = at("reenlightenment@state", ON_OFF, required=True)
    tlbflush: bool | None = at("tlbflush@state", ON_OFF, required=True)
    ipi: bool | None = at("ipi@state", ON_OFF, required=True)
    evmcs: bool | None = at("evmcs@state", ON_OFF, required=True)
    avic: bool | None = at("avic@state", ON_OFF, required=True)


@dataclass(slots=True)
class KvmFeatures:
    hidden: bool | None = at("hidden@state", ON_OFF, required=True)
    hint_dedicated: bool | None = at("hint-dedicated@state", ON_OFF, required=True)
    poll_control: bool | None = at("poll-control@state", ON_OFF, required=True)
    pv_ipi: bool | None = at("pv-ipi@state", ON_OFF, required=True)
    dirty_ring: bool | None = at("dirty-ring@state", ON_OFF, required=True)
    dirty_ring_size: int | None = at("dirty-ring@size", NAT)


@dataclass(slots=True)
class Tcg:
    """Size of the translation cache in MiB, as QEMU's tb-size."""

    tb_cache: int | None = in_kib("tb-cache")


@dataclass(slots=True)
class Smm:
    state: bool | None = at("@state", ON_OFF)
    tseg: str | None = at("tseg")
    tseg_unit: str | None = at("tseg@unit")

    def after_parse(self, line: int) -> None:
        """In the largest unit that fits: libvirt 9.0, observed."""
        if self.tseg is None:
            return
        try:
            size = size_bytes(self.tseg.strip(), self.tseg_unit, "MiB")
        except ValueError as why:
            raise XmlError(
                f"Invalid value for element 'tseg': '{self.tseg}'. {why} (line {line})"
            ) from None
        unit = 0
        while unit < len(SIZE_UNITS) - 1 and size and size % 1024 == 0:
            size, unit = size // 1024, unit + 1
        self.tseg, self.tseg_unit = str(size), SIZE_UNITS[unit]


@dataclass(slots=True)
class Apic:
    eoi: bool | None = at("@eoi", ON_OFF)


@dataclass(slots=True)
class Gic:
    version: str | None = at("@version")


@dataclass(slots=True)
class Switch:
    """An element whose `state` may be left out, which means on."""

    state: bool | None = at("@state", ON_OFF)


@dataclass(slots=True)
class Features:
    """None or False: not mentioned."""

    acpi: bool = flag("acpi")
    apic: Apic | None = child("apic", Apic)
    pae: bool = flag("pae")
    hap: Switch | None = child("hap", Switch)
    viridian: bool = flag("viridian")
    privnet: bool = flag("privnet")
    hyperv: Hyperv | None = child("hyperv", Hyperv)
    kvm: KvmFeatures | None = child("kvm", KvmFeatures)
    xen: Kept | None = kept("xen")
    pvspinlock: Switch | None = child("pvspinlock", Switch)
    pmu: Switch | None = child("pmu", Switch)
    vmport: Switch | None = child("vmport", Switch)
    smm: Smm | None = child("smm", Smm)
    gic: Gic | None = child("gic", Gic)
    capabilities: Kept | None = kept("capabilities")
    ioapic: str | None = at("ioapic@driver", one_of("kvm", "qemu"))
    hpt: Kept | None = kept("hpt")
    vmcoreinfo: Switch | None = child("vmcoreinfo", Switch)
    htm: Switch | None = child("htm", Switch)
    nested_hv: Switch | None = child("nested-hv", Switch)
    msrs_unknown: str | None = at("msrs@unknown", one_of("ignore", "fault"))
    ccf_assist: Switch | None = child("ccf-assist", Switch)
    cfpc: str | None = at("cfpc@value")
    sbbc: str | None = at("sbbc@value")
    ibs: str | None = at("ibs@value")
    tcg: Tcg | None = child("tcg", Tcg)
    async_teardown: bool | None = at("async-teardown@enabled", YES_NO)


@dataclass(slots=True)
class SysinfoEntry:
    name: str | None = at("@name")
    file: str | None = at("@file")
    value: str | None = at(".")


@dataclass(slots=True)
class SysinfoBlock:
    entries: list[SysinfoEntry] = children("entry", SysinfoEntry)

    def get(self, name: str) -> str | None:
        return next((e.value for e in self.entries if e.name == name), None)


@dataclass(slots=True)
class Sysinfo:
    """SMBIOS texts (type smbios) or firmware configuration blobs (type fwcfg)."""

    type: str | None = at("@type", one_of("smbios", "fwcfg"))
    bios: SysinfoBlock | None = child("bios", SysinfoBlock)
    system: SysinfoBlock | None = child("system", SysinfoBlock)
    base_boards: list[SysinfoBlock] = children("baseBoard", SysinfoBlock)
    chassis: SysinfoBlock | None = child("chassis", SysinfoBlock)
    processors: list[SysinfoBlock] = children("processor", SysinfoBlock)
    memory_devices: list[SysinfoBlock] = children("memory_device", SysinfoBlock)
    oem_strings: SysinfoBlock | None = child("oemStrings", SysinfoBlock)
    entries: list[SysinfoEntry] = children("entry", SysinfoEntry)
