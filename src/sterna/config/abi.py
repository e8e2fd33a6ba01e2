"""Whether two definitions are the same machine to the guest that runs on it.

A guest that moves, or comes back from a file, must find the hardware it left. Files, host
devices' backends, titles and actions may differ; what the guest can see may not. Texts are
libvirt 9.0's (observed; the missing space in the one about PCI addresses too).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sterna.config.abi_devices import check_device_lists
from sterna.config.default_domain import iothread_ids
from sterna.config.model import Cpu, DomainDef, Features, Sysinfo
from sterna.errors import ConfigUnsupported, ErrorDomain

SWITCHES = ("hap", "pvspinlock", "pmu", "vmport", "vmcoreinfo", "htm")
FLAGS = ("acpi", "pae", "viridian", "privnet")
HYPERV = (
    "relaxed", "vapic", "spinlocks", "vpindex", "runtime", "synic", "stimer", "reset",
    "vendor_id", "frequencies", "reenlightenment", "tlbflush", "ipi", "evmcs", "avic",
)  # fmt: skip
KVM = ("hidden", "hint_dedicated", "poll_control", "pv_ipi", "dirty_ring")


def check_abi(source: DomainDef, target: DomainDef) -> None:
    """Raise ConfigUnsupported naming the first difference the guest would see.

    Both must be completed definitions. `source` is what runs (or ran), `target` what would.
    """
    _identity(source, target)
    _processors(source, target)
    _features(source, target)
    _cpu(source.cpu, target.cpu)
    _sysinfo(source, target)
    check_device_lists(source.devices, target.devices)


def differ(text: str, *, domain: ErrorDomain = ErrorDomain.DOMAIN) -> ConfigUnsupported:
    return ConfigUnsupported(text, domain=domain)


def _match(what: str, source: object, target: object) -> None:
    if source != target:
        raise differ(f"Target domain {what} {target} does not match source {source}")


def _identity(source: DomainDef, target: DomainDef) -> None:
    _match("virt type", source.type, target.type)
    _match("uuid", source.uuid, target.uuid)
    if (source.genid is None) != (target.genid is None):
        raise differ("Target domain requested genid does not match source")
    _match("genid", source.genid, target.genid)
    if source.name != target.name:
        raise differ(f"Target domain name '{target.name}' does not match source '{source.name}'")
    _match("max memory", source.memory, target.memory)
    _match("current memory", source.current_memory, target.current_memory)
    _match("memory slots", source.max_memory_slots or 0, target.max_memory_slots or 0)
    if source.max_memory_slots:
        _match("maximum memory", source.max_memory, target.max_memory)
    if source.os is None or target.os is None:
        return
    _match("OS type", source.os.type, target.os.type)
    _match("architecture", source.os.arch, target.os.arch)
    _match("machine type", source.os.machine, target.os.machine)
    _match("SMBIOS mode", source.os.smbios or "none", target.os.smbios or "none")


def _processors(source: DomainDef, target: DomainDef) -> None:
    _match("vCPU max", source.vcpu, target.vcpu)
    online = _online(source)
    for number, (ours, theirs) in enumerate(zip(online, _online(target), strict=True)):
        if ours != theirs:
            raise differ(
                f"State of vCPU '{number}' differs between source and destination definitions"
            )
    mine, others = _threads_in_use(source), set(iothread_ids(target))
    if not mine <= others:
        raise differ("Target domain iothreads don't include those the source uses")


def _threads_in_use(d: DomainDef) -> set[int]:
    """iothreads are the host's affair, but a disk's must exist."""
    drivers = [disk.driver for disk in d.devices.disks]
    return {one.iothread for one in drivers if one is not None and one.iothread is not None}


def _online(d: DomainDef) -> list[bool]:
    total = d.vcpu or 1
    if d.vcpus:
        enabled = {vcpu.id for vcpu in d.vcpus if vcpu.enabled}
        return [number in enabled for number in range(total)]
    return [number < (d.vcpu_current or total) for number in range(total)]


def _state(value: bool | None) -> str:
    return "default" if value is None else "on" if value else "off"


def _feature(name: str, source: str, target: str, kind: str = "feature") -> None:
    if source != target:
        raise differ(
            f"State of {kind} '{name}' differs: source: '{source}', destination: '{target}'"
        )


def _features(source: DomainDef, target: DomainDef) -> None:
    ours, theirs = source.features or Features(), target.features or Features()
    for name in FLAGS:
        _feature(name, _state(getattr(ours, name) or None), _state(getattr(theirs, name) or None))
    _feature("apic", _apic(ours), _apic(theirs))
    for name in SWITCHES:
        mine, other = getattr(ours, name), getattr(theirs, name)
        _feature(name, _state(mine.state if mine else None), _state(other.state if other else None))
    smm = [_state(one.smm.state if one.smm else None) for one in (ours, theirs)]
    _feature("smm", smm[0], smm[1])
    for name in ("hyperv", "kvm"):
        present = [_state(getattr(one, name) is not None or None) for one in (ours, theirs)]
        _feature(name, present[0], present[1])
    if ours.hyperv is not None and theirs.hyperv is not None:
        for name in HYPERV:
            _feature(
                name, _state(getattr(ours.hyperv, name)), _state(getattr(theirs.hyperv, name)),
                "HyperV enlightenment feature",
            )  # fmt: skip
    if ours.kvm is not None and theirs.kvm is not None:
        for name in KVM:
            _feature(
                name.replace("_", "-"), _state(getattr(ours.kvm, name)),
                _state(getattr(theirs.kvm, name)), "KVM feature",
            )  # fmt: skip
    _timers(source, target)


def _apic(features: Features) -> str:
    present = features.apic is not None
    eoi = features.apic.eoi if features.apic is not None else None
    return f"{_state(present or None)},eoi={_state(eoi)}"


def _timers(source: DomainDef, target: DomainDef) -> None:
    ours = source.clock.timers if source.clock is not None else []
    theirs = target.clock.timers if target.clock is not None else []
    if len(ours) != len(theirs):
        raise differ("Target domain timers do not match source")
    for mine, other in zip(ours, theirs, strict=True):
        if mine.name != other.name:
            raise differ(f"Target timer {other.name} does not match source {mine.name}")
        if mine.present != other.present:
            raise differ(
                f"Target timer presence {_number(other.present)} does not match"
                f" source {_number(mine.present)}"
            )
        for field in ("frequency", "mode"):
            if getattr(mine, field) != getattr(other, field):
                raise differ(
                    f"Target TSC {field} {getattr(other, field)} does not match"
                    f" source {getattr(mine, field)}"
                )


def _number(present: bool | None) -> int:
    return -1 if present is None else int(present)


def _cpu(source: Cpu | None, target: Cpu | None) -> None:
    if source is None or target is None:
        if source is not target:
            raise differ("Target CPU does not match source", domain=ErrorDomain.CPU)
        return
    for name in ("mode", "check", "arch", "model", "vendor", "vendor_id"):
        _cpu_match(name, getattr(source, name), getattr(target, name))
    for name in ("sockets", "dies", "cores", "threads"):
        _cpu_match(
            name,
            getattr(source.topology, name) if source.topology is not None else 0,
            getattr(target.topology, name) if target.topology is not None else 0,
        )
    _cpu_match("feature count", len(source.features), len(target.features))
    theirs = sorted(target.features, key=lambda feature: feature.name)
    ours = sorted(source.features, key=lambda feature: feature.name)
    for mine, other in zip(ours, theirs, strict=True):
        _cpu_match("feature", mine.name, other.name)
        _cpu_match("feature policy", mine.policy, other.policy)
    if (source.cache_level, source.cache_mode) != (target.cache_level, target.cache_mode):
        raise differ("Target CPU cache does not match source", domain=ErrorDomain.CPU)
    cells = [one.numa.cells if one.numa is not None else [] for one in (source, target)]
    shapes: list[list[Any]] = [[(c.id, c.cpus, c.memory) for c in some] for some in cells]
    if shapes[0] != shapes[1]:
        raise differ("Target NUMA topology does not match source")


def _cpu_match(what: str, source: object, target: object) -> None:
    if source != target:
        raise differ(
            f"Target CPU {what} {target} does not match source {source}", domain=ErrorDomain.CPU
        )


def _sysinfo(source: DomainDef, target: DomainDef) -> None:
    if len(source.sysinfos) != len(target.sysinfos):
        raise differ("Target domain count of sysinfo does not match source")
    for mine, other in zip(source.sysinfos, target.sysinfos, strict=True):
        for block in ("bios", "system", "chassis"):
            _entries(block, mine, other)


def _entries(block: str, source: Sysinfo, target: Sysinfo) -> None:
    mine, other = getattr(source, block), getattr(target, block)
    ours = {e.name: e.value for e in mine.entries} if mine is not None else {}
    theirs = {e.name: e.value for e in other.entries} if other is not None else {}
    names: Sequence[str] = [*ours, *(name for name in theirs if name not in ours)]
    for name in names:
        if ours.get(name) != theirs.get(name):
            raise ConfigUnsupported(
                f"Target sysinfo {block} {name} {theirs.get(name)} does not match"
                f" source {ours.get(name)}",
                domain=ErrorDomain.SYSINFO,
            )
