"""The host's emulators as `sterna.host` wants to hear of them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from sterna.errors import ConfigUnsupported
from sterna.guest.surroundings import Emulators
from sterna.host.support import CpuDefinition, CpuExpansion, GuestSupport, MachineSupport
from sterna.qemu import caps as qemu_caps

ARCHES = ("x86_64",)
"""Architectures guests may have here."""


async def host_supports(emulators: Emulators) -> list[GuestSupport]:
    """The emulators found here, one for each architecture. None is no error: the host's own facts
    are worth telling all the same."""
    found = []
    for arch in ARCHES:
        with contextlib.suppress(ConfigUnsupported):
            found.append(guest_support(await emulators.caps(None, arch)))
    return found


def guest_support(caps: qemu_caps.QemuCaps) -> GuestSupport:
    """What a probe found, in the words of `sterna.host`."""
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
    )


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
