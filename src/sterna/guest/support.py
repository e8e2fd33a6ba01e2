"""What a probe found, in the words of `sterna.host`: the two packages don't know each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sterna.host.support import CpuDefinition, CpuExpansion, GuestSupport, MachineSupport
from sterna.qemu import caps as qemu_caps

_known: dict[str, tuple[qemu_caps.QemuCaps, GuestSupport]] = {}
"""The last answer for each binary: every start asks, and hundreds of small objects are in it."""


def guest_support(caps: qemu_caps.QemuCaps) -> GuestSupport:
    """What a probe found, as `sterna.host` takes it."""
    known = _known.get(caps.binary)
    if known is None or known[0] is not caps:
        known = _known[caps.binary] = (caps, _convert(caps))
    return known[1]


def _convert(caps: qemu_caps.QemuCaps) -> GuestSupport:
    machines = []
    for machine in caps.machines:
        machines.append(
            MachineSupport(
                name=machine.name,
                cpus_max=machine.cpus_max,
                deprecated=machine.deprecated,
                default=machine.is_default,
            )
        )
        if machine.alias is not None:
            machines.append(
                MachineSupport(
                    name=machine.alias,
                    cpus_max=machine.cpus_max,
                    canonical=machine.name,
                    deprecated=machine.deprecated,
                )
            )
    definitions = {"qemu": _definitions(caps.cpus_tcg)}
    models = {"qemu": _models(caps.expansions_tcg)}
    if caps.cpus_kvm:
        definitions["kvm"] = _definitions(caps.cpus_kvm)
        models["kvm"] = _models(caps.expansions_kvm)
    return GuestSupport(
        emulator=caps.binary,
        arch=caps.arch,
        virt_types=("qemu", "kvm") if caps.cpus_kvm else ("qemu",),
        machines=tuple(machines),
        cpu_definitions=definitions,
        cpu_models=models,
        devices=caps.devices,
        objects=caps.objects,
        displays=frozenset(_displays(caps)),
    )


def _displays(caps: qemu_caps.QemuCaps) -> Iterator[str]:
    if caps.vnc:
        yield "vnc"
    if caps.spice:
        yield "spice"
    # A module of its own, as SPICE is; with it comes the device that it makes useful.
    if "virtio-gpu-gl-pci" in caps.devices:
        yield "egl-headless"


def _definitions(found: tuple[qemu_caps.CpuModel, ...]) -> tuple[CpuDefinition, ...]:
    return tuple(
        CpuDefinition(name=c.name, unavailable=c.unavailable, deprecated=c.deprecated)
        for c in found
    )


def _models(found: Mapping[str, qemu_caps.CpuExpansion]) -> dict[str, CpuExpansion]:
    return {
        name: CpuExpansion(
            vendor=e.vendor,
            family=e.family,
            model=e.model,
            stepping=e.stepping,
            features=e.features,
        )
        for name, e in found.items()
    }
