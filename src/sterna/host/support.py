"""What the rest of this package must know of an emulator, as plain values.

The server fills these from the emulator's probe; the package itself never runs QEMU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class MachineSupport:
    """A machine type; `canonical` is set on an alias only ("q35" of "pc-q35-7.2")."""

    name: str
    cpus_max: int
    canonical: str | None = None
    deprecated: bool = False
    default: bool = False


@dataclass(frozen=True, slots=True)
class CpuDefinition:
    """One CPU model as QEMU's query-cpu-definitions lists it for one kind of acceleration.

    `unavailable` names what this host can't give it, in QEMU's spelling: empty means usable, None
    that QEMU can't tell.
    """

    name: str
    unavailable: tuple[str, ...] | None = ()
    deprecated: bool = False


@dataclass(frozen=True, slots=True)
class CpuExpansion:
    """A CPU model spelled out: CPUID's numbers, and QEMU's names of the features that are on."""

    vendor: str
    family: int
    model: int
    stepping: int
    features: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class GuestSupport:
    """One emulator and what it can do on this host. Compared by identity, so that answers drawn
    from it can be kept.

    Attributes:
        emulator: path of the binary.
        arch: the guests' architecture, libvirt's name ("x86_64").
        virt_types: "qemu" always, and "kvm" where it truly runs a guest.
        cpu_definitions: by virt type.
        cpu_models: by virt type, then by name; with them "max", and "host" under KVM: the most that
            this host can give.
        devices: QEMU's device types (qom-list-types).
        objects: QEMU's object types (-object): "memory-backend-memfd", "rng-builtin", ...
        displays: kinds of `<graphics>` it speaks, of "vnc", "spice", "egl-headless".
    """

    emulator: str
    arch: str
    virt_types: tuple[str, ...]
    machines: tuple[MachineSupport, ...]
    cpu_definitions: Mapping[str, tuple[CpuDefinition, ...]] = field(default_factory=dict)
    cpu_models: Mapping[str, Mapping[str, CpuExpansion]] = field(default_factory=dict)
    devices: frozenset[str] = frozenset()
    objects: frozenset[str] = frozenset()
    displays: frozenset[str] = frozenset()

    def machine(self, name: str) -> MachineSupport | None:
        """Return a machine type by its name or alias, always the canonical one."""
        for found in self.machines:
            if found.name == name:
                return found if found.canonical is None else self.machine(found.canonical)
        return None

    @property
    def default_machine(self) -> MachineSupport:
        """The machine type of a definition that names none."""
        found = next((machine for machine in self.machines if machine.default), self.machines[0])
        return self.machine(found.name) or found

    @property
    def machines_default_first(self) -> tuple[MachineSupport, ...]:
        """The machine types in the emulator's order, but the default and its aliases lead."""
        leader = self.default_machine.name
        return tuple(
            sorted(
                self.machines, key=lambda machine: leader not in (machine.name, machine.canonical)
            )
        )
