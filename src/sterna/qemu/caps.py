"""What one QEMU binary can do: the result of probing it once."""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine type, named canonically ("pc-i440fx-7.2", whose alias is "pc")."""

    name: str
    alias: str | None
    is_default: bool
    cpus_max: int
    hotpluggable_cpus: bool
    numa_mem_supported: bool
    deprecated: bool
    default_cpu_type: str | None
    default_ram_id: str | None
    acpi: bool


@dataclass(frozen=True, slots=True)
class CpuModel:
    """A CPU model as one accelerator offers it.

    `unavailable` are QEMU's names of the features that it cannot give; None if unknown.
    """

    name: str
    type_name: str
    unavailable: tuple[str, ...] | None
    migration_safe: bool
    static: bool
    deprecated: bool
    alias_of: str | None

    @property
    def usable(self) -> bool:
        return self.unavailable == ()


@dataclass(frozen=True, slots=True)
class CpuExpansion:
    """A CPU model spelled out, as one accelerator builds it: CPUID's numbers, and QEMU's names of
    the features that are on."""

    vendor: str
    family: int
    model: int
    stepping: int
    features: frozenset[str]

    @classmethod
    def from_properties(cls, properties: dict[str, Any]) -> Self:
        """From what query-cpu-model-expansion answers; zero or empty where it doesn't say."""
        return cls(
            vendor=str(properties.get("vendor", "")),
            family=int(properties.get("family", 0)),
            model=int(properties.get("model", 0)),
            stepping=int(properties.get("stepping", 0)),
            features=frozenset(name for name, value in properties.items() if value is True),
        )


@dataclass(frozen=True)
class QemuCaps:
    """Everything learned from one probe.

    `devices` are the concrete device types (what -device takes), `objects` what -object takes.
    `kvm_present` is QEMU's word that it was built with KVM and the device opens; `kvm_usable` that
    guests truly run (`sterna.qemu.kvm`). `cpus_kvm` is empty where they don't.
    `host_features_tcg` / `_kvm` are QEMU's names of the features switched on in the richest CPU
    ("max" / "host") of that accelerator.
    `expansions_tcg` / `_kvm` spell out the models that XML may name, and "max" / "host".
    """

    binary: str
    version: tuple[int, int, int]
    package: str
    arch: str
    machines: tuple[Machine, ...]
    devices: frozenset[str]
    objects: frozenset[str]
    cpus_tcg: tuple[CpuModel, ...]
    cpus_kvm: tuple[CpuModel, ...]
    host_features_tcg: frozenset[str]
    host_features_kvm: frozenset[str]
    expansions_tcg: dict[str, CpuExpansion]
    expansions_kvm: dict[str, CpuExpansion]
    migration_capabilities: frozenset[str]
    commands: frozenset[str]
    options: frozenset[str]
    chardevs: frozenset[str]
    tpm_models: frozenset[str]
    tpm_types: frozenset[str]
    kvm_present: bool
    kvm_usable: bool

    @functools.cached_property
    def machines_by_name(self) -> dict[str, Machine]:
        """Machines by canonical name and by alias."""
        found = {machine.name: machine for machine in self.machines}
        found.update((m.alias, m) for m in self.machines if m.alias is not None)
        return found

    @property
    def default_machine(self) -> Machine | None:
        return next((machine for machine in self.machines if machine.is_default), None)

    @property
    def vnc(self) -> bool:
        return "query-vnc" in self.commands

    @property
    def spice(self) -> bool:
        """Whether SPICE is really there; Debian ships it as a module of its own package, and
        then query-spice exists without it."""
        return "spice" in self.options

    def to_json(self) -> str:
        """For the cache; `from_json` turns it back."""
        fields: dict[str, Any] = dataclasses.asdict(self)
        return json.dumps(
            {k: sorted(v) if isinstance(v, frozenset) else v for k, v in fields.items()},
            default=sorted,
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises: ValueError, TypeError or KeyError if it is not what this version wrote."""
        fields = json.loads(text)
        for field in dataclasses.fields(cls):
            if "frozenset" in str(field.type):
                fields[field.name] = frozenset(fields[field.name])
        fields["version"] = tuple(fields["version"])
        fields["machines"] = tuple(Machine(**item) for item in fields["machines"])
        for name in ("cpus_tcg", "cpus_kvm"):
            fields[name] = tuple(
                CpuModel(
                    **{
                        **item,
                        "unavailable": None
                        if item["unavailable"] is None
                        else tuple(item["unavailable"]),
                    }
                )
                for item in fields[name]
            )
        for name in ("expansions_tcg", "expansions_kvm"):
            fields[name] = {
                model: CpuExpansion(**{**item, "features": frozenset(item["features"])})
                for model, item in fields[name].items()
            }
        return cls(**fields)
