"""The host's CPU, and CPU models: which one names a set of features best, and who can run what.

Models and their features are QEMU's own (query-cpu-model-expansion), so a model that a newer QEMU
brings is known at once. Names in XML are libvirt's (`cpu_features`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sterna.host.cpu_features import from_cpuinfo, from_qemu, in_order
from sterna.host.cpu_peers import peer_features
from sterna.host.files import ROOT, read_text
from sterna.host.support import CpuExpansion, GuestSupport

VENDORS = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel", "HygonGenuine": "Hygon"}
"""CPUID's vendor string -> the XML's name."""

# Models that stand for no product of a vendor, though QEMU gives each a vendor string.
_GENERIC = frozenset(
    {"486", "pentium", "pentium2", "pentium3", "qemu32", "qemu64", "kvm32", "kvm64"}
)
_VERSIONED = re.compile(r"-v[0-9]+$")
_NOT_MODELS = frozenset({"base", "host", "max"})


@dataclass(frozen=True, slots=True)
class Signature:
    """Family, model and stepping, as CPUID leaf 1 gives them, extensions included."""

    family: int
    model: int
    stepping: int


@dataclass(frozen=True, slots=True)
class HostCpu:
    """This host's CPU. `vendor` is CPUID's string, `features` are the XML's names."""

    vendor: str
    signature: Signature
    features: frozenset[str]
    microcode: int | None
    address_bits: int | None


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A CPU model that XML may name. `vendor` is the XML's, None for a generic one.

    `features` are what QEMU builds, `peer_features` what other programs take the name for.
    """

    name: str
    vendor: str | None
    signature: Signature
    features: frozenset[str]
    peer_features: frozenset[str]


@dataclass(frozen=True, slots=True)
class BestModel:
    """A model, and what to add to it and take from it to get a given CPU; both in XML's order.

    `vendor` is the XML's name of the given CPU's vendor, None for one that has none.
    """

    model: NamedModel
    vendor: str | None
    require: tuple[str, ...]
    disable: tuple[str, ...]


def host_cpu(root: Path = ROOT) -> HostCpu:
    """Return the CPU as /proc/cpuinfo describes its first one."""
    fields: dict[str, str] = {}
    for line in read_text(root / "proc/cpuinfo").splitlines():
        name, colon, value = line.partition(":")
        if not colon:
            break
        fields[name.strip()] = value.strip()
    vendor = fields.get("vendor_id", "")
    numbers = (fields.get(name, "0") for name in ("cpu family", "model", "stepping"))
    microcode = fields.get("microcode")
    bits = re.match(r"(\d+) bits physical", fields.get("address sizes", ""))
    return HostCpu(
        vendor=vendor,
        signature=Signature(*(int(number) if number.isdigit() else 0 for number in numbers)),
        features=from_cpuinfo(frozenset(fields.get("flags", "").split()), vendor),
        microcode=int(microcode, 16) if microcode else None,
        address_bits=int(bits[1]) if bits else None,
    )


def is_model_name(name: str) -> bool:
    """Tell whether XML may name this model of QEMU: "EPYC", but not "EPYC-v2", "host", "max"."""
    return name not in _NOT_MODELS and not _VERSIONED.search(name)


def vendor_of(support: GuestSupport, name: str) -> str | None:
    """Return the XML's vendor of a model, None if it is generic or the vendor has no name."""
    # KVM gives every model the host's vendor, so only TCG's expansion tells the model's own.
    expansion = support.cpu_models.get("qemu", {}).get(name)
    return None if name in _GENERIC or not expansion else VENDORS.get(expansion.vendor)


@functools.lru_cache(maxsize=8)
def named_models(support: GuestSupport, virt_type: str) -> Mapping[str, NamedModel]:
    """Return the models that XML may name, by name, as QEMU builds them under this virt type."""
    # What KVM builds depends on the host, so TCG's is what peers' tables are compared with.
    plain = support.cpu_models.get("qemu", {})
    models = {
        name: NamedModel(
            name=name,
            vendor=vendor_of(support, name),
            signature=_signature(expansion),
            features=from_qemu(expansion.features),
            peer_features=peer_features(name, from_qemu(plain.get(name, expansion).features)),
        )
        for name, expansion in support.cpu_models.get(virt_type, {}).items()
        if is_model_name(name)
    }
    return MappingProxyType(models)


def _signature(expansion: CpuExpansion) -> Signature:
    return Signature(expansion.family, expansion.model, expansion.stepping)


def best_model(
    models: Iterable[NamedModel],
    features: frozenset[str],
    vendor: str,
    signature: Signature | None = None,
    *,
    may_disable: bool = False,
) -> BestModel | None:
    """Return the model nearest to a set of features, or None if there is none.

    The fewest differences win; among equals the vendor's own model before a generic one, then one
    of the same family and model. A model of another vendor never does. A difference is what has
    to be named, be it for QEMU or for a peer.

    Args:
        features: what the CPU has, the XML's names.
        vendor: CPUID's vendor string.
        may_disable: allow models with features that the CPU lacks, to be switched off.
    """
    own = VENDORS.get(vendor)
    found: list[tuple[tuple[int, bool, bool, str], BestModel]] = []
    for model in models:
        extra = features - (model.features & model.peer_features)
        missing = (model.features | model.peer_features) - features - {"hypervisor"}
        if model.vendor not in (own, None) or (missing and not may_disable):
            continue
        other_product = signature is None or (model.signature.family, model.signature.model) != (
            signature.family,
            signature.model,
        )
        rank = (len(extra) + len(missing), model.vendor is None, other_product, model.name)
        best = BestModel(model, own, tuple(in_order(extra)), tuple(in_order(missing)))
        found.append((rank, best))
    return min(found, key=lambda entry: entry[0])[1] if found else None


@dataclass(frozen=True, slots=True)
class GuestCpu:
    """The most that QEMU can give a guest here. `vendor` is CPUID's string."""

    vendor: str
    signature: Signature
    features: frozenset[str]


def richest_guest_cpu(support: GuestSupport, virt_type: str) -> GuestCpu | None:
    """Return what a guest of this virt type can have at most; None if QEMU didn't say."""
    name = "host" if virt_type == "kvm" else "max"
    here = support.cpu_models.get(virt_type, {}).get(name)
    if here is None:
        return None
    return GuestCpu(here.vendor, _signature(here), from_qemu(here.features))


def guest_cpu(support: GuestSupport, virt_type: str) -> BestModel | None:
    """Return what mode='host-model' means under this virt type: the best that QEMU can give here.

    None where the emulator wasn't asked for its CPU models.
    """
    here = richest_guest_cpu(support, virt_type)
    if here is None:
        return None
    return best_model(
        named_models(support, virt_type).values(),
        here.features,
        here.vendor,
        here.signature,
        may_disable=True,
    )
