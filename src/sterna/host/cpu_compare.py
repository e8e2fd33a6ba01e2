"""Which CPU can stand in for which: compare one with this host's, find what several have in common.

The documents are those of virsh's cpu-compare, cpu-baseline and their hypervisor-cpu-* sisters;
answers and error texts are libvirt's (9.0, observed).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from lxml import etree

from sterna.errors import (
    CpuIncompatible,
    ErrorDomain,
    InternalError,
    InvalidArg,
    XmlDetail,
    XmlError,
)
from sterna.host.cpu import VENDORS, NamedModel, best_model
from sterna.host.cpu_features import NEVER_BUILT, in_order, is_feature
from sterna.host.xmltext import XmlText

CPUS_MAX = 256
"""As many documents as the protocol lets a baseline have."""

_CPUID_VENDORS = {name: cpuid for cpuid, name in VENDORS.items()}


class Comparison(IntEnum):
    """How this host's CPU relates to a wanted one; numbers are the wire's."""

    INCOMPATIBLE = 0
    IDENTICAL = 1
    SUPERSET = 2


@dataclass(frozen=True, slots=True)
class WantedCpu:
    """A `<cpu>` document. `model` is None for one that takes whatever the host has.

    `required` has the model's features and those with the policies require and force; `forbidden`
    those that the host must not have; `disabled` those that the guest must not see.
    """

    model: NamedModel | None
    vendor: str | None
    strict: bool
    required: frozenset[str] = frozenset()
    forbidden: frozenset[str] = frozenset()
    disabled: frozenset[str] = frozenset()


def parse_cpu(xml: str, models: Mapping[str, NamedModel]) -> WantedCpu:
    """Return what a document asks for.

    Raises:
        XmlDetail: not well-formed.
        XmlError: not a `<cpu>`, or it names no model.
        InternalError: an unknown model or feature.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        root = etree.fromstring(xml.encode(), parser)
    except etree.XMLSyntaxError as bad:
        raise XmlDetail(
            f"(CPU_definition):{bad.lineno}: {bad.msg}", domain=ErrorDomain.XML
        ) from bad
    if root.tag != "cpu":
        raise XmlError(f"unexpected root element <{root.tag}>, expecting <cpu>")
    if root.get("mode") in ("host-passthrough", "maximum"):
        return WantedCpu(None, None, False)
    name = (root.findtext("model") or "").strip()
    if not name:
        raise XmlError("Missing CPU model name")
    model = models.get(name)
    if model is None:
        raise InternalError(f"Unknown CPU model {name}", domain=ErrorDomain.CPU)
    # A document means what its author's program takes the model's name for.
    by_policy: dict[str, set[str]] = {"require": set(model.peer_features)}
    for element in root.iterfind("feature"):
        feature, policy = element.get("name", ""), element.get("policy", "require")
        if not is_feature(feature):
            raise InternalError(f"Unknown CPU feature {feature}", domain=ErrorDomain.CPU)
        by_policy["require"].discard(feature)
        known = policy in ("optional", "forbid", "disable")
        by_policy.setdefault(policy if known else "require", set()).add(feature)
    vendor = (root.findtext("vendor") or "").strip() or None
    strict = root.get("match") == "strict"
    sets = (frozenset(by_policy.get(policy, ())) for policy in ("require", "forbid", "disable"))
    return WantedCpu(model, vendor, strict, *sets)


def compare_cpu(
    wanted: WantedCpu,
    features: frozenset[str],
    vendor: str,
    *,
    fail_if_incompatible: bool = False,
) -> Comparison:
    """Return whether a CPU with these features can be the wanted one.

    Args:
        features: of the host's CPU, or of the best that QEMU can give on it.
        vendor: CPUID's vendor string.
        fail_if_incompatible: say why by an error instead.

    Raises:
        CpuIncompatible: incompatible, and the caller wanted to know why.
    """
    own = VENDORS.get(vendor, vendor)
    why = None
    if wanted.vendor not in (None, own):
        why = f"host CPU vendor does not match required CPU vendor {wanted.vendor}"
    elif missing := wanted.required - features:
        why = f"Host CPU does not provide required features: {', '.join(in_order(missing))}"
    elif present := wanted.forbidden & features:
        why = f"Host CPU provides forbidden features: {', '.join(in_order(present))}"
    elif wanted.model and features == wanted.required:
        return Comparison.IDENTICAL
    elif wanted.strict:
        why = "Host CPU does not strictly match guest CPU: it has extra features"
    if why is None:
        return Comparison.SUPERSET
    if fail_if_incompatible:
        raise CpuIncompatible(why)
    return Comparison.INCOMPATIBLE


def baseline_xml(
    documents: Sequence[str],
    models: Mapping[str, NamedModel],
    *,
    within: frozenset[str] | None = None,
    expand: bool = False,
) -> str:
    """Return the `<cpu>` that all the given ones can stand in for.

    Args:
        within: features to stay within, for instance those that can be migrated.
        expand: name every feature, the model's own as well.

    Raises:
        XmlDetail, XmlError, InternalError: see `parse_cpu`.
        InvalidArg: no document, or one without a model.
        CpuIncompatible: their vendors differ.
    """
    if not 0 < len(documents) <= CPUS_MAX:
        raise InvalidArg(f"a baseline takes 1 to {CPUS_MAX} CPUs, not {len(documents)}")
    wanted = [parse_cpu(document, models) for document in documents]
    for index, cpu in enumerate(wanted):
        if cpu.model is None:
            raise InvalidArg(f"no CPU model specified at index {index}", domain=ErrorDomain.CPU)
    vendors = {cpu.vendor or (cpu.model.vendor if cpu.model else None) for cpu in wanted} - {None}
    if len(vendors) > 1:
        raise CpuIncompatible("CPU vendors do not match")
    common = frozenset.intersection(*(cpu.required for cpu in wanted)) - NEVER_BUILT
    common = common if within is None else common & within
    vendor = next(iter(vendors), None)
    model, require, disable = _nearest(wanted, common, models, vendor)
    policies = dict.fromkeys(require, "require") | dict.fromkeys(disable, "disable")
    if expand:
        policies |= dict.fromkeys(common, "require")
        policies = dict(sorted(policies.items()))
    xml = XmlText()
    with xml.element("cpu", mode="custom", match="exact"):
        xml.leaf("model", model, fallback="forbid")
        if any(cpu.vendor for cpu in wanted):
            xml.leaf("vendor", vendor)
        for name, policy in policies.items():
            xml.leaf("feature", policy=policy, name=name)
    return str(xml)


def _nearest(
    wanted: Sequence[WantedCpu],
    common: frozenset[str],
    models: Mapping[str, NamedModel],
    vendor: str | None,
) -> tuple[str, Sequence[str], Sequence[str]]:
    """The model that names what all have in common, what to add to it, what to switch off."""
    only = wanted[0].model if len(wanted) == 1 else None
    if only is not None:
        off = only.peer_features - common | wanted[0].disabled
        return only.name, in_order(common - only.peer_features), in_order(off)
    as_documents = [replace(model, features=model.peer_features) for model in models.values()]
    # A host's own CPU is named without switching anything off; a guest's may have been.
    may_disable = any(cpu.disabled for cpu in wanted)
    cpuid_vendor = _CPUID_VENDORS.get(vendor or "", "")
    best = best_model(as_documents, common, cpuid_vendor, may_disable=may_disable)
    if best is None:
        raise CpuIncompatible("CPUs are incompatible")
    return best.model.name, best.require, best.disable
