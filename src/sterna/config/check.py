"""What is refused although it reads well. Run on a completed definition.

Texts and codes are libvirt 9.0's where they were seen. `check` is about the definition and the
emulator; what Sterna's command line cannot express is refused by the command line's builder.
"""

from __future__ import annotations

from sterna.config.bitmaps import parse_set
from sterna.config.caps import EmulatorFacts
from sterna.config.check_devices import check_devices
from sterna.config.default_domain import iothread_ids, module_memory_kib
from sterna.config.model import BootDevice, DomainDef
from sterna.config.values import parse_uuid
from sterna.errors import ConfigUnsupported, ErrorDomain, XmlDetail, XmlError


def check(d: DomainDef, facts: EmulatorFacts) -> None:
    """Raise XmlError, ConfigUnsupported or InternalError for what cannot be."""
    for one in (
        _texts,
        _features,
        _host_tuning,
        _lifecycle,
        _os,
        _boot_order,
        _vcpus,
        _topology,
        _numa,
        _memory,
        _iothreads,
    ):
        one(d, facts)
    check_devices(d, facts)
    _aliases(d)


UINT16_MAX = 65535
TICKLESS = frozenset({"tsc", "kvmclock", "hypervclock", "armvtimer"})
SPINLOCK_RETRIES_MIN = 4095
VENDOR_ID_LENGTH = 12


def _features(d: DomainDef, _facts: EmulatorFacts) -> None:
    hyperv = d.features.hyperv if d.features is not None else None
    if hyperv is not None and hyperv.spinlocks:
        if hyperv.spinlocks_retries is None:
            raise XmlError(
                "Missing required attribute 'retries' in element 'spinlocks'",
                domain=ErrorDomain.XML,
            )
        if hyperv.spinlocks_retries < SPINLOCK_RETRIES_MIN:
            raise XmlError(f"HyperV spinlock retry count must be at least {SPINLOCK_RETRIES_MIN}")
    if hyperv is not None and hyperv.vendor_id and not hyperv.vendor_id_value:
        raise XmlError("missing 'value' attribute for HyperV feature 'vendor_id'")
    cpu = d.cpu
    if cpu is not None and cpu.mode in ("custom", "host-model") and cpu.migratable is not None:
        raise ConfigUnsupported(
            "Attribute migratable is only allowed for 'host-passthrough' / 'maximum' CPU mode",
            domain=ErrorDomain.CPU,
        )
    if cpu is not None and any(not feature.name for feature in cpu.features):
        raise XmlError("Invalid CPU feature name", domain=ErrorDomain.CPU)
    names = [feature.name for feature in cpu.features] if cpu is not None else []
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise XmlError(f"CPU feature '{name}' specified more than once", domain=ErrorDomain.CPU)
    vendor = d.cpu.vendor_id if d.cpu is not None else None
    if vendor is not None and len(vendor) != VENDOR_ID_LENGTH:
        raise XmlError(
            f"vendor_id must be exactly {VENDOR_ID_LENGTH} characters long",
            domain=ErrorDomain.CPU,
        )
    for timer in d.clock.timers if d.clock is not None else []:
        if timer.name is None:
            raise XmlError(
                "Missing required attribute 'name' in element 'timer'", domain=ErrorDomain.XML
            )
        if timer.name in TICKLESS and timer.tickpolicy is not None:
            raise ConfigUnsupported(
                f"timer {timer.name} doesn't support setting of timer tickpolicy",
                domain=ErrorDomain.DOMAIN,
            )


def _texts(d: DomainDef, _facts: EmulatorFacts) -> None:
    if "\n" in (d.title or ""):
        raise XmlError("Domain title can't contain newlines")
    if any(sysinfo.type is None for sysinfo in d.sysinfos):
        raise XmlError(
            "Missing required attribute 'type' in element 'sysinfo'", domain=ErrorDomain.XML
        )
    if d.memtune is not None and d.memtune.min_guarantee is not None:
        raise ConfigUnsupported("Parameter 'min_guarantee' not supported by QEMU.")
    pins = d.cputune.vcpupins if d.cputune is not None else []
    if any(pin.cpuset is None for pin in pins):
        raise XmlError(
            "Missing required attribute 'cpuset' in element 'vcpupin'", domain=ErrorDomain.XML
        )
    for label in d.seclabels:
        if label.type is None and label.model is None:
            raise XmlError("missing security model in domain seclabel")
        if label.type == "static" and label.label is None:
            raise XmlError("security label is missing")
    for sysinfo in d.sysinfos:
        given = sysinfo.system.get("uuid") if sysinfo.system is not None else None
        if given is not None and parse_uuid(given) != d.uuid:
            raise XmlDetail("UUID mismatch between <uuid> and <sysinfo>")


def _host_tuning(d: DomainDef, _facts: EmulatorFacts) -> None:
    if d.cputune is not None and d.cputune.cachetunes and d.type != "kvm":
        raise ConfigUnsupported("cachetune is only supported for KVM domains")
    hugepages = d.memory_backing.hugepages if d.memory_backing is not None else None
    cells = d.cpu.numa.cells if d.cpu is not None and d.cpu.numa is not None else []
    for page in hugepages.pages if hugepages is not None else []:
        for node in sorted(parse_set(page.nodeset)) if page.nodeset else []:
            if node >= max(len(cells), 1) or not cells:
                raise XmlDetail(f"hugepages: node {node} not found")


def check_start(d: DomainDef, facts: EmulatorFacts) -> None:
    """What may be defined but cannot be started here."""
    if d.type == "kvm" and not facts.kvm:
        raise ConfigUnsupported(f"Emulator '{d.devices.emulator}' does not support virt type 'kvm'")


def check_lifecycle(d: DomainDef) -> None:
    """Refuse what can't follow a power-off, a reboot or a crash, in libvirt 9.0's words (observed).

    Raises: ConfigUnsupported.
    """
    both = (d.on_poweroff, d.on_reboot)
    if "rename-restart" in (*both, d.on_crash):
        raise ConfigUnsupported(
            "qemu driver doesn't support the 'rename-restart' action"
            " for 'on_reboot'/'on_poweroff'/'on_crash'"
        )
    if "preserve" in both:
        raise ConfigUnsupported(
            "qemu driver doesn't support the 'preserve' action for 'on_reboot'/'on_poweroff'"
        )
    if d.on_reboot == "destroy" and d.on_poweroff == "restart":
        raise ConfigUnsupported(
            "qemu driver doesn't support 'onReboot' set to 'destroy"
            " and 'onPoweroff' set to 'reboot'"
        )


def _lifecycle(d: DomainDef, _facts: EmulatorFacts) -> None:
    check_lifecycle(d)


def _os(d: DomainDef, _facts: EmulatorFacts) -> None:
    if d.os is None:
        return
    loader = d.os.loader
    acpi = d.features is not None and d.features.acpi
    uefi = d.os.firmware == "efi" or (loader is not None and loader.type == "pflash")
    if uefi and not acpi:
        raise ConfigUnsupported("UEFI requires ACPI on this architecture")
    given = loader is not None or d.os.nvram is not None
    if given and (loader is None or loader.path is None) and not d.os.firmware:
        raise XmlDetail("no loader path specified and firmware auto selection disabled")
    if d.os.firmware_features and not d.os.firmware:
        raise XmlDetail("firmware feature selection requires firmware auto selection")
    if d.os.bios_useserial and not d.devices.serials:
        raise XmlError(
            "need at least one serial port to use BIOS serial output", domain=ErrorDomain.QEMU
        )
    smm = d.features is not None and d.features.smm is not None and d.features.smm.state
    if loader is not None and loader.secure and not smm:
        raise ConfigUnsupported("Secure boot requires SMM feature enabled")
    if (d.os.bootmenu_timeout or 0) > UINT16_MAX:
        raise ConfigUnsupported(
            f"invalid value for boot menu timeout, must be in range [0,{UINT16_MAX}]"
        )
    if d.os.bios_reboot_timeout is not None and not -1 <= d.os.bios_reboot_timeout <= UINT16_MAX:
        raise ConfigUnsupported(
            f"invalid value for rebootTimeout, must be in range [-1,{UINT16_MAX}]"
        )


def _bootable(d: DomainDef) -> list[BootDevice]:
    devices = d.devices
    return [*devices.disks, *devices.interfaces, *devices.hostdevs, *devices.redirdevs]


def _boot_order(d: DomainDef, _facts: EmulatorFacts) -> None:
    seen: set[int] = set()
    for device in _bootable(d):
        order = device.boot_order
        if order is None:
            continue
        if order == 0:
            raise XmlError(
                "Invalid value for attribute 'order' in element 'boot': Zero is not permitted",
                domain=ErrorDomain.XML,
            )
        if order in seen:
            raise ConfigUnsupported(
                f"boot order '{order}' used for more than one device", domain=ErrorDomain.DOMAIN
            )
        seen.add(order)
    if seen and d.os is not None and d.os.boot:
        raise ConfigUnsupported(
            "per-device boot elements cannot be used together with os/boot elements",
            domain=ErrorDomain.DOMAIN,
        )


def _vcpus(d: DomainDef, facts: EmulatorFacts) -> None:
    count = d.vcpu or 1
    machine = d.os.machine if d.os is not None and d.os.machine is not None else ""
    limit = facts.cpus_max.get(machine, 0)
    if limit and count > limit:
        raise ConfigUnsupported(f"Maximum CPUs greater than specified machine type limit {limit}")
    ids = [vcpu.id for vcpu in d.vcpus]
    if any(number is None or number >= count for number in ids):
        raise XmlError("vcpu id is out of range of maximum vcpu count")
    if len(set(ids)) != len(ids):
        raise XmlError("duplicate vcpu id")
    if d.vcpus and d.vcpus[0].enabled is False:
        raise XmlError("vCPU 0 can't be offline")


def _topology(d: DomainDef, _facts: EmulatorFacts) -> None:
    topology = d.cpu.topology if d.cpu is not None else None
    if topology is None:
        return
    for name in ("sockets", "dies", "cores", "threads"):
        if getattr(topology, name) == 0:
            raise XmlError(
                f"Invalid value for attribute '{name}' in element 'topology':"
                " Zero is not permitted",
                domain=ErrorDomain.XML,
            )
    if topology.clusters is not None:
        raise ConfigUnsupported("clusters of CPUs are not supported for this machine type")
    product = topology.sockets * topology.dies * topology.cores * topology.threads
    if product != d.vcpu:
        raise ConfigUnsupported("CPU topology doesn't match maximum vcpu count")


def _numa(d: DomainDef, _facts: EmulatorFacts) -> None:
    if d.cpu is None or d.cpu.numa is None:
        return
    cells = d.cpu.numa.cells
    ids = [cell.id or 0 for cell in cells]
    if len(set(ids)) != len(ids):
        raise XmlError(f"Duplicate NUMA cell info for cell id '{_duplicate(ids)}'")
    if sorted(ids) != list(range(len(ids))):
        raise XmlError(
            "Exactly one 'cell' element per guest NUMA cell allowed, non-contiguous"
            " ranges or ranges not starting from 0 are not allowed"
        )
    taken: set[int] = set()
    for cell in cells:
        cpus = parse_set(cell.cpus) if cell.cpus else set()
        if cpus & taken:
            raise XmlError("NUMA cells have overlapping vCPU ids")
        taken |= cpus
    if taken and max(taken) >= (d.vcpu or 1):
        raise ConfigUnsupported(
            "CPU IDs in <numa> exceed the <vcpu> count", domain=ErrorDomain.DOMAIN
        )


def _duplicate(ids: list[int]) -> int:
    return next(number for number in ids if ids.count(number) > 1)


def _memory(d: DomainDef, _facts: EmulatorFacts) -> None:
    total, modules = d.memory or 0, module_memory_kib(d)
    slots = [m for m in d.devices.memories if m.model != "virtio-pmem"]
    if modules >= total and modules:
        raise XmlError("Total size of memory devices exceeds the total memory size")
    if d.max_memory_slots and not d.max_memory:
        raise XmlError("Missing element maxMemory")
    if d.max_memory is not None and d.max_memory_slots is not None:
        if d.max_memory < total:
            raise XmlError(
                "maximum memory size must be equal or greater than the actual memory size"
            )
        if d.cpu is None or d.cpu.numa is None:
            raise ConfigUnsupported(
                "At least one numa node has to be configured when enabling memory hotplug"
            )
    if slots and not d.max_memory_slots:
        raise ConfigUnsupported(
            "cannot use/hotplug a memory device when domain 'maxMemory' is not defined"
        )
    for module in d.devices.memories:
        if module.model in ("dimm", "nvdimm", "virtio-mem") and module.node is None:
            raise ConfigUnsupported("target NUMA node needs to be specified for memory device")


def _iothreads(d: DomainDef, _facts: EmulatorFacts) -> None:
    known = set(iothread_ids(d))
    if any(thread.id == 0 for thread in d.iothread_ids):
        raise XmlError(
            "Invalid value for attribute 'id' in element 'iothread': '0'."
            " Expected non-zero positive integer value"
        )
    if len(d.iothread_ids) != len({thread.id for thread in d.iothread_ids}):
        raise XmlError("duplicate iothread id found")
    for disk in d.devices.disks:
        number = disk.driver.iothread if disk.driver is not None else None
        if number is None:
            continue
        if number not in known:
            raise ConfigUnsupported(f"Disk iothread '{number}' not defined in iothreadid")
        if disk.bus != "virtio":
            raise ConfigUnsupported(
                f"IOThreads not available for bus {disk.bus} target {disk.target}"
            )


def _aliases(d: DomainDef) -> None:
    seen: set[str] = set()
    twin = d.devices.consoles[0] if d.devices.consoles else None
    for device in d.all_devices():
        if device.alias is None or (device is twin and device.alias in seen):
            continue
        if device.alias in seen:
            raise ConfigUnsupported(
                f"non unique alias detected: {device.alias}", domain=ErrorDomain.DOMAIN
            )
        seen.add(device.alias)
