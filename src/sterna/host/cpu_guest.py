"""What a guest's `<cpu>` comes to on this host: before its QEMU is started, and once it runs.

Before: host-model becomes a named model, optional features are given or not, and what the checks
of the definition demand is demanded. After: QEMU says which features it could not give, and the
live definition tells the CPU as it is. (libvirt 9.0, observed in both.)
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from sterna.config.model.cpu import Cpu, CpuFeature
from sterna.errors import (
    ConfigUnsupported,
    CpuIncompatible,
    ErrorDomain,
    InternalError,
    OperationFailed,
)
from sterna.host.cpu import (
    VENDORS,
    GuestCpu,
    NamedModel,
    guest_cpu,
    named_models,
    richest_guest_cpu,
)
from sterna.host.cpu_features import NEVER_BUILT, from_qemu, in_order, is_feature
from sterna.host.cpu_peers import switched_off
from sterna.host.support import GuestSupport

_ON = ("require", "force")
_OFF = ("disable", "forbid")
_NO_GUEST_HAS = ("pconfig", "cvt16")


def settled_cpu(cpu: Cpu, support: GuestSupport, virt_type: str) -> Cpu:
    """Return the CPU to start QEMU with; the same object if there is nothing to settle.

    Raises:
        ConfigUnsupported: an unknown feature, or host-model where QEMU doesn't tell its models.
        InternalError: an unknown model.
        CpuIncompatible: the host can't give what the definition insists on.
    """
    here = richest_guest_cpu(support, virt_type)
    if cpu.mode in ("host-passthrough", "maximum"):
        return cpu
    if here is None:
        if cpu.mode == "host-model":
            arch = support.arch
            raise ConfigUnsupported(
                f"CPU mode 'host-model' for {arch} {virt_type} domain on {arch} host "
                "is not supported by hypervisor"
            )
        return cpu
    cpu = _with_known_features(cpu, virt_type)
    models = named_models(support, virt_type)
    if cpu.mode == "host-model":
        return _host_model(cpu, support, virt_type, here)
    model = models.get(cpu.model or "")
    if model is None:
        raise InternalError(f"Unknown CPU model {cpu.model}")
    settled = _with_switched_off(_without_optional(replace(cpu, fallback="forbid"), here), model)
    if cpu.check == "partial":
        _insist(settled, model, here)
    if cpu.match == "minimum":
        return _host_model(cpu, support, virt_type, here)
    return settled


def _with_known_features(cpu: Cpu, virt_type: str) -> Cpu:
    """Refuse features nobody knows or can give; leave out those that QEMU has no switch for."""
    for feature in cpu.features:
        required = feature.policy in (None, *_ON)
        if not is_feature(feature.name):
            raise ConfigUnsupported(f"unknown CPU feature: {feature.name}")
        if required and feature.name in _NO_GUEST_HAS:
            raise ConfigUnsupported(f"no QEMU gives its guests the CPU feature {feature.name}")
        if required and feature.name == "invtsc" and virt_type == "qemu":
            raise ConfigUnsupported("host doesn't support invariant TSC")
    kept = [feature for feature in cpu.features if feature.name not in NEVER_BUILT]
    return cpu if len(kept) == len(cpu.features) else replace(cpu, features=kept)


def _without_optional(cpu: Cpu, here: GuestCpu) -> Cpu:
    """Optional features become required where the host has them, and disabled where not."""
    if all(feature.policy != "optional" for feature in cpu.features):
        return cpu
    features = [
        replace(feature, policy="require" if feature.name in here.features else "disable")
        if feature.policy == "optional"
        else feature
        for feature in cpu.features
    ]
    return replace(cpu, features=features)


def _with_switched_off(cpu: Cpu, model: NamedModel) -> Cpu:
    named = {feature.name for feature in cpu.features}
    more = [CpuFeature("disable", name) for name in switched_off(model.name) if name not in named]
    return replace(cpu, features=[*cpu.features, *more]) if more else cpu


def _insist(cpu: Cpu, model: NamedModel, here: GuestCpu) -> None:
    """Refuse unless what the host can give has all that the definition wants.

    Raises:
        CpuIncompatible: says what is missing.
    """
    own = VENDORS.get(here.vendor, here.vendor)
    if cpu.vendor not in (None, own):
        raise CpuIncompatible(f"host CPU vendor does not match required CPU vendor {cpu.vendor}")
    wanted = set(model.peer_features)
    for feature in cpu.features:
        if feature.policy in _ON:
            wanted.add(feature.name)
        elif feature.policy in _OFF:
            wanted.discard(feature.name)
    forbidden = {feature.name for feature in cpu.features if feature.policy == "forbid"}
    forced = {feature.name for feature in cpu.features if feature.policy == "force"}
    if missing := wanted - here.features - forced:
        raise CpuIncompatible(
            f"Host CPU does not provide required features: {', '.join(in_order(missing))}"
        )
    if present := forbidden & here.features:
        raise CpuIncompatible(
            f"Host CPU provides forbidden features: {', '.join(in_order(present))}"
        )
    if cpu.match == "strict" and (extra := here.features - wanted):
        raise CpuIncompatible(
            "Host CPU does not strictly match guest CPU: Extra features: "
            f"{', '.join(in_order(extra))}"
        )


def _host_model(cpu: Cpu, support: GuestSupport, virt_type: str, here: GuestCpu) -> Cpu:
    """The host's CPU by name, with the features that the definition sets otherwise."""
    best = guest_cpu(support, virt_type)
    if best is None:
        raise InternalError("QEMU has no CPU model for this host's vendor", domain=ErrorDomain.CPU)
    chosen = dict.fromkeys(best.require, "require") | dict.fromkeys(best.disable, "disable")
    own = cpu.features if cpu.mode == "host-model" else []
    for feature in own:
        policy = feature.policy or "require"
        has = feature.name in here.features
        if policy == "require" and not has:
            raise CpuIncompatible(f"Host CPU does not provide required features: {feature.name}")
        if policy == "forbid" and has:
            raise CpuIncompatible(f"Host CPU provides forbidden features: {feature.name}")
        if policy == "optional":
            policy = "require" if has else "disable"
        chosen[feature.name] = policy
    return replace(
        cpu,
        mode="custom",
        match="exact",
        fallback="forbid",
        model=best.model.name,
        # A guest that asked only for "at least this" isn't bound to the vendor.
        vendor=best.vendor if cpu.mode == "host-model" else cpu.vendor,
        migratable=None,
        features=[CpuFeature(policy, name) for name, policy in chosen.items()],
    )


def actual_cpu(cpu: Cpu, unavailable: frozenset[str], support: GuestSupport, virt_type: str) -> Cpu:
    """Return the CPU a running QEMU gives its guest.

    Args:
        cpu: what it was started with.
        unavailable: QEMU's names of the features it was asked for and could not give.

    Raises:
        OperationFailed: the definition demands exactly what it says (check='full').
    """
    model = named_models(support, virt_type).get(cpu.model or "")
    if cpu.mode != "custom" or model is None:
        return cpu
    lost = from_qemu(unavailable)
    policies = {feature.name: feature.policy or "require" for feature in cpu.features}
    on = {name for name, policy in policies.items() if policy in _ON}
    off = policies.keys() - on
    now = ((model.features | on) - off) - lost
    if cpu.check == "full":
        _insist_exactly((model.peer_features | on) - off, now)
    features = [
        CpuFeature(policy, name)
        if (name in now) == (policy in _ON)
        else CpuFeature("require" if name in now else "disable", name)
        for name, policy in policies.items()
    ]
    unnamed = ((now ^ model.peer_features) | (model.features & lost)) - policies.keys()
    features += [
        CpuFeature("require" if name in now else "disable", name) for name in in_order(unnamed)
    ]
    return replace(cpu, check="full", fallback="forbid", features=features)


def _insist_exactly(wanted: Set[str], now: Set[str]) -> None:
    """Refuse a CPU that isn't exactly the wanted one: a guest that moved here would notice.

    Raises:
        OperationFailed: says how they differ.
    """
    differences = {"extra features": now - wanted, "missing features": wanted - now}
    told = [f"{what}: {','.join(in_order(found))}" for what, found in differences.items() if found]
    if told:
        raise OperationFailed(f"guest CPU doesn't match specification: {', '.join(told)}")
