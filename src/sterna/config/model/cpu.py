"""<cpu>: the processor the guest sees, its topology and NUMA cells."""

from __future__ import annotations

from dataclasses import dataclass

from sterna.config.codec import Kept, at, child, children, kept
from sterna.config.values import NAT, YES_NO, one_of


@dataclass(slots=True)
class CpuFeature:
    policy: str | None = at("@policy", one_of("force", "require", "optional", "disable", "forbid"))
    name: str = at("@name", default="")


@dataclass(slots=True)
class NumaDistance:
    id: int | None = at("@id", NAT)
    value: int | None = at("@value", NAT)


@dataclass(slots=True)
class CellCache:
    level: int | None = at("@level", NAT)
    associativity: str | None = at("@associativity")
    policy: str | None = at("@policy")
    size: int | None = at("size@value", NAT)
    size_unit: str | None = at("size@unit")
    line: int | None = at("line@value", NAT)
    line_unit: str | None = at("line@unit")


@dataclass(slots=True)
class NumaCell:
    """One cell; `memory` is in `unit`s until `complete()` made it KiB."""

    id: int | None = at("@id", NAT)
    cpus: str | None = at("@cpus")
    memory: int | None = at("@memory", NAT)
    unit: str | None = at("@unit")
    mem_access: str | None = at("@memAccess", one_of("shared", "private"))
    discard: bool | None = at("@discard", YES_NO)
    distances: list[NumaDistance] = children("distances/sibling", NumaDistance)
    caches: list[CellCache] = children("cache", CellCache)


@dataclass(slots=True)
class Numa:
    cells: list[NumaCell] = children("cell", NumaCell)
    interconnects: Kept | None = kept("interconnects")


@dataclass(slots=True)
class Topology:
    """sockets x dies (x clusters) x cores x threads = maximum vcpus."""

    sockets: int = at("@sockets", NAT, 1, required=True)
    dies: int = at("@dies", NAT, 1)
    clusters: int | None = at("@clusters", NAT)
    cores: int = at("@cores", NAT, 1, required=True)
    threads: int = at("@threads", NAT, 1, required=True)


@dataclass(slots=True)
class Cpu:
    """mode custom names a model; host-model and host-passthrough follow the host."""

    mode: str | None = at(
        "@mode",
        one_of(
            "custom",
            "host-model",
            "host-passthrough",
            "maximum",
            unknown="Invalid mode attribute '{}'",
        ),
    )
    match: str | None = at("@match", one_of("minimum", "exact", "strict"))
    check: str | None = at("@check", one_of("none", "partial", "full"))
    migratable: str | None = at("@migratable", one_of("on", "off"))
    arch: str | None = at("arch")
    fallback: str | None = at(
        "model@fallback", one_of("allow", "forbid", unknown="Invalid fallback attribute")
    )
    vendor_id: str | None = at("model@vendor_id")
    model: str | None = at("model")
    vendor: str | None = at("vendor")
    topology: Topology | None = child("topology", Topology)
    cache_level: int | None = at("cache@level", NAT)
    cache_mode: str | None = at("cache@mode", one_of("emulate", "passthrough", "disable"))
    maxphysaddr_mode: str | None = at("maxphysaddr@mode", one_of("emulate", "passthrough"))
    maxphysaddr_bits: int | None = at("maxphysaddr@bits", NAT)
    features: list[CpuFeature] = children("feature", CpuFeature)
    numa: Numa | None = child("numa", Numa)
