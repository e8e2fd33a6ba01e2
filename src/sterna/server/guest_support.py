"""Hands what the emulator's probe found to the host's documents: the two don't know each other."""

from __future__ import annotations

from sterna.host.support import CpuDefinition, CpuExpansion, GuestSupport, MachineSupport
from sterna.qemu import caps as probed


def guest_support(caps: probed.QemuCaps) -> GuestSupport:
    """Return an emulator's abilities as `sterna.host` takes them."""
    virt_types = ("qemu", "kvm") if caps.cpus_kvm else ("qemu",)
    definitions = {"qemu": caps.cpus_tcg, "kvm": caps.cpus_kvm}
    models = {"qemu": caps.expansions_tcg, "kvm": caps.expansions_kvm}
    return GuestSupport(
        emulator=caps.binary,
        arch=caps.arch,
        virt_types=virt_types,
        machines=tuple(entry for machine in caps.machines for entry in _machine(machine)),
        cpu_definitions={
            virt_type: tuple(_definition(model) for model in definitions[virt_type])
            for virt_type in virt_types
        },
        cpu_models={
            virt_type: {name: _expansion(model) for name, model in models[virt_type].items()}
            for virt_type in virt_types
        },
        devices=caps.devices,
        objects=caps.objects,
    )


def _machine(machine: probed.Machine) -> list[MachineSupport]:
    entries = [
        MachineSupport(
            machine.name,
            machine.cpus_max,
            deprecated=machine.deprecated,
            default=machine.is_default,
        )
    ]
    if machine.alias:
        entries.append(
            MachineSupport(
                machine.alias,
                machine.cpus_max,
                canonical=machine.name,
                deprecated=machine.deprecated,
            )
        )
    return entries


def _definition(model: probed.CpuModel) -> CpuDefinition:
    return CpuDefinition(model.name, model.unavailable, model.deprecated)


def _expansion(model: probed.CpuExpansion) -> CpuExpansion:
    return CpuExpansion(model.vendor, model.family, model.model, model.stepping, model.features)
