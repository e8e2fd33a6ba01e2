"""What configuration needs to know of an emulator. Filled by whoever probes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EmulatorFacts:
    """One QEMU binary as far as definitions depend on it.

    machines: every machine name or alias -> canonical name. cpus_max: canonical name -> limit.
    devices: QEMU's device types; empty means unknown, and nothing is refused for being absent.
    kvm: whether KVM truly runs a guest here. spice: whether the binary speaks it.
    """

    binary: str
    arch: str = "x86_64"
    version: tuple[int, int, int] = (0, 0, 0)
    machines: Mapping[str, str] = field(default_factory=dict)
    default_machine: str = "pc"
    cpus_max: Mapping[str, int] = field(default_factory=dict)
    devices: frozenset[str] = frozenset()
    kvm: bool = False
    spice: bool = True

    def has(self, device: str) -> bool:
        """Whether -device knows it; true where devices are unknown."""
        return not self.devices or device in self.devices

    def canonical_machine(self, name: str) -> str | None:
        """The full name of a machine or alias; None when the binary does not have it."""
        if not self.machines:
            return name
        return self.machines.get(name)
