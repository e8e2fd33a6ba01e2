"""How the host treats the guest: memory backing, vcpus, tuning. And what is only kept."""

from __future__ import annotations

from dataclasses import dataclass

from sterna.config.codec import Kept, at, child, children, flag, in_kib
from sterna.config.values import INT, NAT, YES_NO, one_of, size_kib


@dataclass(slots=True)
class HugePage:
    """`size` is KiB once parsed."""

    size: int | None = at("@size", NAT)
    unit: str | None = at("@unit")
    nodeset: str | None = at("@nodeset")

    def after_parse(self, _line: int) -> None:
        if self.size is not None:
            self.size = size_kib(str(self.size), self.unit)
            self.unit = "KiB"


@dataclass(slots=True)
class Hugepages:
    pages: list[HugePage] = children("page", HugePage)


@dataclass(slots=True)
class MemoryBacking:
    hugepages: Hugepages | None = child("hugepages", Hugepages)
    nosharepages: bool = flag("nosharepages")
    locked: bool = flag("locked")
    source: str | None = at("source@type", one_of("file", "anonymous", "memfd"))
    access: str | None = at("access@mode", one_of("shared", "private"))
    allocation_mode: str | None = at("allocation@mode", one_of("immediate", "ondemand"))
    allocation_threads: int | None = at("allocation@threads", NAT)
    discard: bool = flag("discard")


@dataclass(slots=True)
class Vcpu:
    """One vcpu's switch (`<vcpus>`)."""

    id: int | None = at("@id", NAT)
    enabled: bool | None = at("@enabled", YES_NO)
    hotpluggable: bool | None = at("@hotpluggable", YES_NO)
    order: int | None = at("@order", NAT)


@dataclass(slots=True)
class IoThreadId:
    id: int | None = at("@id", NAT)
    thread_pool_min: int | None = at("@thread_pool_min", NAT)
    thread_pool_max: int | None = at("@thread_pool_max", NAT)


@dataclass(slots=True)
class Memtune:
    """Limits in KiB."""

    hard_limit: int | None = in_kib("hard_limit")
    soft_limit: int | None = in_kib("soft_limit")
    min_guarantee: int | None = in_kib("min_guarantee")
    swap_hard_limit: int | None = in_kib("swap_hard_limit")


@dataclass(slots=True)
class VcpuPin:
    vcpu: int | None = at("@vcpu", NAT)
    cpuset: str | None = at("@cpuset")


@dataclass(slots=True)
class IoThreadPin:
    iothread: int | None = at("@iothread", NAT)
    cpuset: str | None = at("@cpuset")


@dataclass(slots=True)
class VcpuSched:
    vcpus: str | None = at("@vcpus")
    scheduler: str | None = at("@scheduler", one_of("batch", "idle", "fifo", "rr"))
    priority: int | None = at("@priority", INT)


@dataclass(slots=True)
class IoThreadSched:
    iothreads: str | None = at("@iothreads")
    scheduler: str | None = at("@scheduler", one_of("batch", "idle", "fifo", "rr"))
    priority: int | None = at("@priority", INT)


@dataclass(slots=True)
class EmulatorSched:
    scheduler: str | None = at("@scheduler", one_of("batch", "idle", "fifo", "rr"))
    priority: int | None = at("@priority", INT)


@dataclass(slots=True)
class Cputune:
    shares: int | None = at("shares", NAT)
    period: int | None = at("period", NAT)
    quota: int | None = at("quota", INT)
    global_period: int | None = at("global_period", NAT)
    global_quota: int | None = at("global_quota", INT)
    emulator_period: int | None = at("emulator_period", NAT)
    emulator_quota: int | None = at("emulator_quota", INT)
    iothread_period: int | None = at("iothread_period", NAT)
    iothread_quota: int | None = at("iothread_quota", INT)
    vcpupins: list[VcpuPin] = children("vcpupin", VcpuPin)
    emulatorpin: str | None = at("emulatorpin@cpuset")
    iothreadpins: list[IoThreadPin] = children("iothreadpin", IoThreadPin)
    emulatorsched: EmulatorSched | None = child("emulatorsched", EmulatorSched)
    vcpuscheds: list[VcpuSched] = children("vcpusched", VcpuSched)
    iothreadscheds: list[IoThreadSched] = children("iothreadsched", IoThreadSched)
    cachetunes: list[Kept] = children("cachetune", Kept)
    memorytunes: list[Kept] = children("memorytune", Kept)


@dataclass(slots=True)
class NumaMemory:
    mode: str | None = at("@mode", one_of("strict", "preferred", "interleave", "restrictive"))
    nodeset: str | None = at("@nodeset")
    placement: str | None = at("@placement", one_of("static", "auto"))


@dataclass(slots=True)
class NumaMemnode:
    cellid: int | None = at("@cellid", NAT)
    mode: str | None = at("@mode", one_of("strict", "preferred", "interleave", "restrictive"))
    nodeset: str | None = at("@nodeset")


@dataclass(slots=True)
class Numatune:
    memory: NumaMemory | None = child("memory", NumaMemory)
    memnodes: list[NumaMemnode] = children("memnode", NumaMemnode)


@dataclass(slots=True)
class QemuArg:
    value: str | None = at("@value")


@dataclass(slots=True)
class QemuEnv:
    name: str | None = at("@name")
    value: str | None = at("@value")


@dataclass(slots=True)
class QemuCommandline:
    """Arguments and environment handed to QEMU as they are."""

    args: list[QemuArg] = children("qemu:arg", QemuArg)
    envs: list[QemuEnv] = children("qemu:env", QemuEnv)


@dataclass(slots=True)
class QemuCapability:
    capability: str | None = at("@capability")


@dataclass(slots=True)
class QemuCapabilities:
    add: list[QemuCapability] = children("qemu:add", QemuCapability)
    delete: list[QemuCapability] = children("qemu:del", QemuCapability)


@dataclass(slots=True)
class QemuDeprecation:
    behavior: str | None = at("@behavior")


@dataclass(slots=True)
class QemuProperty:
    name: str | None = at("@name")
    type: str | None = at("@type", one_of("string", "signed", "unsigned", "bool", "remove"))
    value: str | None = at("@value")


@dataclass(slots=True)
class QemuOverrideDevice:
    alias: str | None = at("@alias")
    properties: list[QemuProperty] = children("qemu:frontend/qemu:property", QemuProperty)


@dataclass(slots=True)
class QemuOverride:
    """Properties of devices set past everything else, by alias."""

    devices: list[QemuOverrideDevice] = children("qemu:device", QemuOverrideDevice)


@dataclass(slots=True)
class IdMapRange:
    start: int | None = at("@start", NAT)
    target: int | None = at("@target", NAT)
    count: int | None = at("@count", NAT)


@dataclass(slots=True)
class IdMap:
    uids: list[IdMapRange] = children("uid", IdMapRange)
    gids: list[IdMapRange] = children("gid", IdMapRange)


@dataclass(slots=True)
class Pm:
    suspend_to_mem: bool | None = at("suspend-to-mem@enabled", YES_NO)
    suspend_to_disk: bool | None = at("suspend-to-disk@enabled", YES_NO)
