"""Defaults of the domain itself: memory, vcpus, os, cpu, clock. (libvirt 9.0, observed.)"""

from __future__ import annotations

import uuid as uuidlib
from collections.abc import Callable

from sterna.config.bitmaps import NUMBER_MAX, format_set, normalise_set, parse_set
from sterna.config.caps import EmulatorFacts
from sterna.config.model import (
    BootDev,
    Clock,
    Cpu,
    Cputune,
    DomainDef,
    IoThreadId,
    NumaDistance,
    NumaMemory,
    Numatune,
    Pm,
    Seclabel,
    Smm,
    Switch,
)
from sterna.config.values import size_kib
from sterna.errors import ConfigUnsupported, ErrorDomain, InternalError, NoName, XmlError

NAME_FORBIDDEN = frozenset("\n\r/")
BOOT_DEVICES_MAX = 4


def complete_domain(
    d: DomainDef, facts: EmulatorFacts, new_uuid: Callable[[], uuidlib.UUID]
) -> None:
    _identity(d, new_uuid)
    _os(d, facts)
    _memory(d)
    _vcpus(d)
    _features(d)
    _cpu(d)
    _clock(d)
    if d.pm == Pm():
        d.pm = None
    if d.numatune == Numatune():
        d.numatune = None
    if d.cputune == Cputune():
        d.cputune = None
    d.title = d.title or None
    d.description = d.description or None
    d.on_poweroff = d.on_poweroff or "destroy"
    d.on_reboot = d.on_reboot or "restart"
    d.on_crash = d.on_crash or "destroy"
    d.seclabels = [label for label in d.seclabels if label != Seclabel(model=label.model)]
    for label in d.seclabels:
        if label.relabel is None and label.type == "dynamic":
            label.relabel = True
        if label.type == "none" and label.model is None:
            label.model = "none"


def _identity(d: DomainDef, new_uuid: Callable[[], uuidlib.UUID]) -> None:
    if not d.name:
        raise NoName
    if NAME_FORBIDDEN & set(d.name):
        bad = "/" if "/" in d.name else "\\n"
        raise XmlError(f"name {d.name} cannot contain '{bad}'")
    if d.uuid is None:
        d.uuid = new_uuid()
    if d.genid == "":
        d.genid = str(new_uuid())


def _os(d: DomainDef, facts: EmulatorFacts) -> None:
    if d.os is None or not d.os.type:
        raise XmlError("an os <type> must be specified")
    if d.os.type != "hvm":
        raise ConfigUnsupported(f"unknown OS type '{d.os.type}'", domain=ErrorDomain.DOMAIN)
    if d.os.arch is None:
        d.os.arch = facts.arch
    if d.os.arch != facts.arch:
        raise ConfigUnsupported(
            f"No emulator found for arch '{d.os.arch}'", domain=ErrorDomain.DOMAIN
        )
    machine = facts.canonical_machine(d.os.machine or facts.default_machine)
    if machine is None:
        raise ConfigUnsupported(
            f"Emulator '{facts.binary}' does not support machine type '{d.os.machine}'"
        )
    d.os.machine = machine
    if d.devices.emulator is None:
        d.devices.emulator = facts.binary
    d.os.init = None
    d.os.initargs = []  # of containers
    loader = d.os.loader
    if loader is not None and loader.path is not None and loader.type is None:
        loader.type = "rom"
    if not d.os.boot and not _has_boot_order(d):
        d.os.boot = [BootDev("hd")]
    if len(d.os.boot) > BOOT_DEVICES_MAX:
        d.os.boot = d.os.boot[:BOOT_DEVICES_MAX]


def _has_boot_order(d: DomainDef) -> bool:
    devices = d.devices
    bootable = (*devices.disks, *devices.interfaces, *devices.hostdevs, *devices.redirdevs)
    return any(one.boot_order is not None for one in bootable)


def numa_memory_kib(d: DomainDef) -> int:
    """Memory of all NUMA cells; 0 without cells."""
    if d.cpu is None or d.cpu.numa is None:
        return 0
    return sum(cell.memory or 0 for cell in d.cpu.numa.cells)


def module_memory_kib(d: DomainDef) -> int:
    """Memory of all memory devices that are plugged in."""
    return sum(module.size or 0 for module in d.devices.memories)


def _memory(d: DomainDef) -> None:
    """With NUMA cells, memory is their sum and that of the modules; it is rounded to MiB later."""
    if d.cpu is not None and d.cpu.numa is not None:
        for number, cell in enumerate(d.cpu.numa.cells):
            if cell.id is None:
                cell.id = number
            if cell.memory is None:
                raise XmlError("Missing required attribute 'memory' in element 'cell'")
            cell.memory = size_kib(str(cell.memory), cell.unit)
            cell.unit = "KiB"
            cell.cpus = normalise_set(cell.cpus)
    cells = numa_memory_kib(d)
    _home_for_every_vcpu(d)
    if cells:
        d.memory = cells + module_memory_kib(d)
    elif d.memory is None:
        d.memory = d.max_memory
    if not d.memory:
        raise XmlError("Memory size must be specified via <memory> or in the <numa> configuration")
    if d.current_memory is None or d.current_memory > d.memory or d.current_memory == 0:
        d.current_memory = d.memory
    backing = d.memory_backing
    if backing is not None and backing == type(backing)():
        d.memory_backing = None


def _home_for_every_vcpu(d: DomainDef) -> None:
    """vcpus that no NUMA cell names belong to the first."""
    cells = d.cpu.numa.cells if d.cpu is not None and d.cpu.numa is not None else []
    named: set[int] = set()
    for cell in cells:
        named |= parse_set(cell.cpus) if cell.cpus else set()
    missing = set(range(min(d.vcpu or 1, NUMBER_MAX))) - named
    if cells and named and missing:
        first = cells[0]
        first.cpus = format_set(missing | (parse_set(first.cpus) if first.cpus else set()))


def _pins(d: DomainDef) -> None:
    """Sets of CPUs and nodes in their shortest form."""
    if d.cputune is not None:
        for vcpu_pin in d.cputune.vcpupins:
            vcpu_pin.cpuset = normalise_set(vcpu_pin.cpuset)
        for thread_pin in d.cputune.iothreadpins:
            thread_pin.cpuset = normalise_set(thread_pin.cpuset)
        d.cputune.emulatorpin = normalise_set(d.cputune.emulatorpin)
    if d.numatune is not None:
        if d.numatune.memory is not None:
            d.numatune.memory.nodeset = normalise_set(d.numatune.memory.nodeset)
        for node in d.numatune.memnodes:
            node.nodeset = normalise_set(node.nodeset)
    for vcpu in d.vcpus:
        if vcpu.hotpluggable is None and not vcpu.enabled:
            vcpu.hotpluggable = True


def _vcpus(d: DomainDef) -> None:
    if d.vcpu is None:
        d.vcpu = 1
    if d.vcpu == 0:
        raise InternalError("CPU IDs in <numa> exceed the <vcpu> count", domain=ErrorDomain.DOMAIN)
    if d.vcpu_current is not None and d.vcpu_current > d.vcpu:
        raise ConfigUnsupported(
            "maximum vCPU count must not be less than current vCPU count",
            domain=ErrorDomain.DOMAIN,
        )
    if d.vcpu_current == d.vcpu:
        d.vcpu_current = None
    tuned = d.numatune.memory if d.numatune is not None else None
    if d.vcpu_placement is None:
        auto = tuned is not None and tuned.placement == "auto" and d.vcpu_cpuset is None
        d.vcpu_placement = "auto" if auto else "static"
    elif d.vcpu_placement == "auto":
        d.vcpu_cpuset = None
        if tuned is None:
            d.numatune = d.numatune or Numatune()
            d.numatune.memory = NumaMemory(mode="strict", placement="auto")
    d.vcpu_cpuset = normalise_set(d.vcpu_cpuset)
    _iothreads(d)
    _pins(d)


IOTHREADS_MAX = 4096
"""More than any host has CPUs for: a number in XML is no reason to fill memory with ids."""


def _iothreads(d: DomainDef) -> None:
    """The count follows the ids and the other way round; only given ids are printed."""
    if (d.iothreads or 0) > IOTHREADS_MAX:
        raise XmlError(f"more than {IOTHREADS_MAX} iothreads")
    if d.iothread_ids:
        d.iothreads = max(d.iothreads or 0, len(d.iothread_ids))
        used = {thread.id for thread in d.iothread_ids}
        number = 1
        while len(d.iothread_ids) < d.iothreads:
            if number not in used:
                d.iothread_ids.append(IoThreadId(id=number))
            number += 1
    if d.iothreads == 0:
        d.iothreads = None


def iothread_ids(d: DomainDef) -> list[int]:
    """Every iothread's id, given or counted from 1."""
    if d.iothread_ids:
        return [thread.id for thread in d.iothread_ids if thread.id is not None]
    return list(range(1, (d.iothreads or 0) + 1))


def _features(d: DomainDef) -> None:
    features = d.features
    if features is None:
        return
    if features == type(features)():
        d.features = None
        return
    for name in ("hap", "pvspinlock", "pmu", "vmport", "vmcoreinfo", "htm"):
        switch: Switch | None = getattr(features, name)
        if switch is not None and switch.state is None:
            switch.state = True
    if features.smm is not None and features.smm.state is None:
        features.smm = Smm(state=True, tseg=features.smm.tseg, tseg_unit=features.smm.tseg_unit)
    if features.hyperv is not None and features.hyperv.mode is None:
        features.hyperv.mode = "custom"


def _cpu(d: DomainDef) -> None:
    """Without a model the emulator's own default is written down: migration must not guess."""
    if d.cpu is None:
        d.cpu = Cpu()
    cpu = d.cpu
    cpu.arch = None
    if cpu.topology is not None and cpu.topology.clusters == 1:
        cpu.topology.clusters = None  # older peers don't know the word, and one is none
    if cpu.mode is None:
        cpu.mode = "custom"
    if cpu.mode == "custom":
        if cpu.model is None:
            if cpu.features:
                raise XmlError(
                    "Non-empty feature list specified without CPU model", domain=ErrorDomain.CPU
                )
            cpu.model = "486" if d.os is not None and d.os.machine == "isapc" else "qemu64"
            cpu.fallback = "forbid"
            cpu.check = "none"
        cpu.match = cpu.match or "exact"
        cpu.fallback = cpu.fallback or "allow"
        default_check = "partial" if d.type == "kvm" else "none"
    else:
        cpu.match = None
        if cpu.mode != "host-model":
            cpu.model = None
        if cpu.model is None:
            cpu.fallback = cpu.vendor_id = None
        else:
            cpu.fallback = cpu.fallback or "allow"
            cpu.features = []
        default_check = "partial" if cpu.mode == "host-model" else "none"
    if cpu.mode in ("host-passthrough", "maximum") and cpu.migratable is None:
        cpu.migratable = "on" if cpu.mode == "host-passthrough" else None
    cpu.check = cpu.check or default_check
    for feature in cpu.features:
        feature.policy = feature.policy or "require"
    _distances(d)


SELF_DISTANCE = 10
OTHER_DISTANCE = 20


def _distances(d: DomainDef) -> None:
    """One given distance implies its mirror, and each cell's distance to itself."""
    if d.cpu is None or d.cpu.numa is None:
        return
    cells = d.cpu.numa.cells
    known = {(cell.id, other.id): other.value for cell in cells for other in cell.distances}
    if not known:
        return
    ids = sorted(cell.id or 0 for cell in cells)
    for cell in cells:
        cell.distances = [
            NumaDistance(id=other, value=value)
            for other in ids
            if (value := _distance(known, cell.id or 0, other)) is not None
        ]


def _distance(known: dict[tuple[int | None, int | None], int | None], a: int, b: int) -> int:
    if a == b:
        return SELF_DISTANCE
    return known.get((a, b)) or known.get((b, a)) or OTHER_DISTANCE


def _clock(d: DomainDef) -> None:
    if d.clock is None:
        d.clock = Clock()
    clock = d.clock
    clock.offset = clock.offset or "utc"
    match clock.offset:
        case "utc" | "localtime" if clock.adjustment not in (None, "reset"):
            clock.basis = clock.offset
            clock.offset = "variable"
        case "variable":
            clock.adjustment = clock.adjustment or "0"
            clock.basis = clock.basis or "utc"
        case "timezone" if clock.timezone is None:
            raise InternalError("missing 'timezone' attribute for clock with offset='timezone'")
        case "absolute" if clock.start is None:
            raise InternalError("missing 'start' attribute for clock with offset='absolute'")
        case _:
            pass
    if clock.adjustment not in (None, "reset") and not _is_integer(clock.adjustment):
        raise XmlError(f"clock adjustment is not an integer: '{clock.adjustment}'")


def _is_integer(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19
