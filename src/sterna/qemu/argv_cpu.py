"""-cpu, -smp, -numa cells' CPUs, and the enlightenments that hang on the CPU."""

from __future__ import annotations

from sterna.config.model import Cpu, Timer
from sterna.errors import ConfigUnsupported, InternalError
from sterna.qemu.argv_build import Build, escape, on_off, plain_word, refuse

_POLICIES = {"force": "on", "require": "on", "disable": "off", "forbid": "off"}


def cpu(build: Build) -> None:
    """Append -cpu. Everything the CPU's string holds comes in libvirt's order."""
    cpu_def = build.d.cpu
    parts: list[str] = []
    model = _model(build, cpu_def, parts)
    _timers(build, parts)
    _kvm_features(build, parts)
    _hyperv(build, parts)
    if any(panic.model == "hyperv" for panic in build.d.devices.panics):
        parts.append("hv-crash")
    _kvm_switches(build, parts)
    if cpu_def is not None:
        _cache(cpu_def, parts)
        _physical_bits(cpu_def, parts)
    if model is None:
        if not parts:
            return
        model = "qemu64"
    build.opt("-cpu", ",".join([model, *parts]))


def _model(build: Build, cpu_def: Cpu | None, parts: list[str]) -> str | None:
    if cpu_def is None or (cpu_def.mode is None and cpu_def.model is None):
        return None
    mode = cpu_def.mode or "custom"
    if mode == "host-model":
        raise InternalError("a host-model CPU was not replaced by the host's model")
    if mode == "host-passthrough":
        if not build.kvm:
            raise ConfigUnsupported(
                f"CPU mode 'host-passthrough' for {build.caps.arch} {build.d.type} domain on "
                f"{build.caps.arch} host is not supported by hypervisor"
            )
        model = "host"
        if cpu_def.migratable is not None:
            parts.append(f"migratable={cpu_def.migratable}")
    elif mode == "maximum":
        model = "max"
        if cpu_def.migratable is not None:
            parts.append(f"migratable={cpu_def.migratable}")
    else:
        model = plain_word(cpu_def.model or "qemu64", "CPU model")
        if model not in {item.name for item in build.caps.cpus_tcg} and build.caps.cpus_tcg:
            raise ConfigUnsupported(f"CPU model {model} is not supported by this QEMU")
    if cpu_def.vendor_id:
        parts.append(f"vendor={plain_word(cpu_def.vendor_id, 'CPU vendor_id')}")
    for feature in cpu_def.features:
        name = plain_word(qemu_feature(feature.name), "CPU feature")
        if feature.policy == "optional":
            able = build.caps.host_features_kvm if build.kvm else build.caps.host_features_tcg
            if name in able:
                parts.append(f"{name}=on")
        else:
            parts.append(f"{name}={_POLICIES[feature.policy or 'require']}")
    return model


def qemu_feature(name: str) -> str:
    """QEMU's spelling of a feature; XML's differs by "_" for "-", and in one name more."""
    return "pclmulqdq" if name == "pclmuldq" else name.replace("_", "-")


def _timer(build: Build, name: str) -> Timer | None:
    timers = build.d.clock.timers if build.d.clock else []
    return next((timer for timer in timers if timer.name == name), None)


def _timers(build: Build, parts: list[str]) -> None:
    for timer in build.d.clock.timers if build.d.clock else []:
        if timer.name == "kvmclock" and timer.present is not None:
            parts.append(f"kvmclock={on_off(timer.present)}")
        elif timer.name == "hypervclock" and timer.present:
            parts.append("hv-time=on")
        elif timer.name == "tsc" and timer.frequency is not None:
            parts.append(f"tsc-frequency={timer.frequency}")
        elif timer.name == "armvtimer":
            raise refuse("timer 'armvtimer' on this machine")


def _kvm_features(build: Build, parts: list[str]) -> None:
    features = build.d.features
    if features is None:
        return
    if features.apic is not None and features.apic.eoi is not None:
        parts.append(f"kvm-pv-eoi={on_off(features.apic.eoi)}")
    if features.pvspinlock is not None:
        parts.append(f"kvm-pv-unhalt={on_off(features.pvspinlock.state is not False)}")


_HYPERV = (
    ("relaxed", "hv-relaxed"),
    ("vapic", "hv-vapic"),
    ("spinlocks", "hv-spinlocks"),
    ("vpindex", "hv-vpindex"),
    ("runtime", "hv-runtime"),
    ("synic", "hv-synic"),
    ("stimer", "hv-stimer"),
    ("reset", "hv-reset"),
    ("vendor_id", "hv-vendor-id"),
    ("frequencies", "hv-frequencies"),
    ("reenlightenment", "hv-reenlightenment"),
    ("tlbflush", "hv-tlbflush"),
    ("ipi", "hv-ipi"),
    ("evmcs", "hv-evmcs"),
    ("avic", "hv-avic"),
)


def _hyperv(build: Build, parts: list[str]) -> None:
    hyperv = build.d.features.hyperv if build.d.features else None
    if hyperv is None:
        return
    if hyperv.mode == "passthrough":
        parts.append("hv-passthrough=on")
    for field, name in _HYPERV:
        if not getattr(hyperv, field):
            continue
        if field == "spinlocks":
            parts.append(f"{name}=0x{hyperv.spinlocks_retries or 0xFFF:x}")
        elif field == "vendor_id":
            parts.append(f"{name}={escape(hyperv.vendor_id_value or '')}")
        else:
            parts.append(f"{name}=on")
        if field == "stimer" and hyperv.stimer_direct:
            parts.append("hv-stimer-direct=on")


def _kvm_switches(build: Build, parts: list[str]) -> None:
    features = build.d.features
    if features is None:
        return
    if features.kvm is not None:
        if features.kvm.hidden:
            parts.append("kvm=off")
        if features.kvm.hint_dedicated:
            parts.append("kvm-hint-dedicated=on")
        if features.kvm.poll_control:
            parts.append("kvm-poll-control=on")
        if features.kvm.pv_ipi is False:
            parts.append("kvm-pv-ipi=off")
    if features.pmu is not None:
        parts.append(f"pmu={on_off(features.pmu.state is not False)}")


def _cache(cpu_def: Cpu, parts: list[str]) -> None:
    mode, level = cpu_def.cache_mode, cpu_def.cache_level
    if mode is None:
        return
    if mode == "emulate" and level == 3:
        parts += ["l3-cache=on", "host-cache-info=off"]
    elif mode == "passthrough" and level is None:
        parts += ["host-cache-info=on", "l3-cache=off"]
    elif mode == "disable" and level is None:
        parts += ["l3-cache=off", "host-cache-info=off"]
    else:
        raise refuse(f"CPU cache mode '{mode}' with level '{level}'")


def _physical_bits(cpu_def: Cpu, parts: list[str]) -> None:
    if cpu_def.maxphysaddr_mode == "passthrough":
        parts.append("host-phys-bits=on")
    elif cpu_def.maxphysaddr_mode == "emulate" and cpu_def.maxphysaddr_bits:
        parts.append(f"phys-bits={cpu_def.maxphysaddr_bits}")


def smp(build: Build) -> None:
    """Append -smp. Without a topology every vcpu is a socket of its own."""
    d = build.d
    most = d.vcpu or 1
    now = d.vcpu_current or most
    if d.vcpus:
        # The others are plugged in over QMP once QEMU runs: that needs its answers (guest.vcpus).
        now = sum(1 for item in d.vcpus if item.enabled and not item.hotpluggable)
    topology = d.cpu.topology if d.cpu else None
    text = str(now) if now == most else f"{now},maxcpus={most}"
    if topology is None:
        text += f",sockets={most},cores=1,threads=1"
    else:
        text += f",sockets={topology.sockets},dies={topology.dies}"
        text += f",cores={topology.cores},threads={topology.threads}"
    build.opt("-smp", text)
