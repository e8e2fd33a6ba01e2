from __future__ import annotations

from pathlib import Path

import pytest

from sterna.host.cpu import (
    NamedModel,
    Signature,
    best_model,
    guest_cpu,
    host_cpu,
    is_model_name,
    named_models,
)
from sterna.host.cpu_features import (
    FEATURES,
    from_cpuinfo,
    from_qemu,
    in_order,
    is_feature,
    qemu_name,
    xml_name,
)
from sterna.host.cpu_peers import _TABLE, peer_features, switched_off
from sterna.host.support import GuestSupport

AMD = "AuthenticAMD"


def test_host_cpu_from_cpuinfo(two_cells: Path) -> None:
    cpu = host_cpu(two_cells)
    assert (cpu.vendor, cpu.signature) == (AMD, Signature(23, 1, 2))
    assert (cpu.microcode, cpu.address_bits) == (0x8001250, 48)
    assert cpu.features == {
        *("fpu", "sse", "sse2", "sse4.1", "pclmuldq", "invtsc"),
        *("xsave", "osxsave", "avx", "ibpb", "amd-stibp"),
    }


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    cpu = host_cpu(tmp_path)
    assert (cpu.vendor, cpu.features, cpu.microcode) == ("", frozenset(), None)


def test_protections_have_the_vendors_names() -> None:
    flags = frozenset({"ibrs", "ibpb", "stibp", "ssbd"})
    assert from_cpuinfo(flags, "GenuineIntel") == {"spec-ctrl", "stibp", "ssbd"}
    assert from_cpuinfo(flags, AMD) == {"ibrs", "ibpb", "amd-stibp", "amd-ssbd"}


def test_spelling_both_ways() -> None:
    assert len(set(FEATURES)) == len(FEATURES)
    assert all(xml_name(qemu_name(feature)) == feature for feature in FEATURES)
    assert qemu_name("pclmuldq") == "pclmulqdq"
    assert xml_name("kvm-pv-eoi") is None
    assert is_feature("lahf_lm")
    assert not is_feature("lahf-lm")


def test_order_is_cpuids_and_strangers_come_last() -> None:
    assert in_order({"zz", "lm", "aa", "sse", "fpu"}) == ["fpu", "sse", "lm", "aa", "zz"]


def test_what_is_no_feature_is_left_out() -> None:
    assert from_qemu(frozenset({"lahf-lm", "kvmclock", "vmx-ept"})) == {"lahf_lm"}


@pytest.mark.parametrize(
    ("name", "may"),
    [("EPYC-Genoa", True), ("EPYC-Genoa-v2", False), ("host", False), ("kvm64", True)],
)
def test_names_for_xml(name: str, may: bool) -> None:
    assert is_model_name(name) is may


def test_models_keep_their_own_vendor_under_kvm(emulator: GuestSupport) -> None:
    models = named_models(emulator, "kvm")
    assert set(models) == {"kvm64", "EPYC-Genoa", "Opteron_G1", "Nehalem"}
    assert models["Nehalem"].vendor == "Intel"
    assert models["kvm64"].vendor is None
    assert "hypervisor" not in models["EPYC-Genoa"].peer_features


def test_best_model_is_a_subset_of_the_own_vendors(emulator: GuestSupport) -> None:
    features = frozenset({"fpu", "sse", "sse2", "sse4.1", "pclmuldq", "hypervisor"})
    best = best_model(named_models(emulator, "qemu").values(), features, AMD)
    assert best is not None
    # EPYC-Genoa asks for svm too, and Nehalem, which would fit best, is another vendor's.
    assert best.model.name == "Opteron_G1"
    assert best.vendor == "AMD"
    assert best.require == ("pclmuldq", "sse4.1", "hypervisor")
    assert best.disable == ()


def test_best_model_may_switch_features_off(emulator: GuestSupport) -> None:
    features = frozenset({"fpu", "sse", "sse2", "sse4.1", "pclmuldq"})
    models = named_models(emulator, "qemu").values()
    best = best_model(models, features, AMD, may_disable=True)
    assert best is not None
    assert (best.model.name, best.disable) == ("EPYC-Genoa", ("svm",))


def test_the_same_product_wins_among_equals() -> None:
    features = frozenset({"fpu", "sse"})
    models = [
        NamedModel(f"m{n}", "AMD", Signature(23, n, 0), features, features) for n in (1, 2, 3)
    ]
    best = best_model(models, features, AMD, Signature(23, 2, 9))
    assert best is not None
    assert best.model.name == "m2"


def test_no_model_of_a_foreign_vendor(emulator: GuestSupport) -> None:
    models = [m for m in named_models(emulator, "qemu").values() if m.vendor == "Intel"]
    assert best_model(models, frozenset({"fpu"}), AMD, may_disable=True) is None


def test_what_a_peer_takes_differently_is_named() -> None:
    """The model's name alone would give the peer another CPU."""
    tcg = frozenset({"fpu", "sse", "monitor", "topoext"})
    assert peer_features("EPYC", tcg) == {"fpu", "sse", "vme"}
    model = NamedModel("EPYC", "AMD", Signature(23, 1, 2), tcg, peer_features("EPYC", tcg))
    best = best_model([model], frozenset({"fpu", "sse", "monitor"}), AMD, may_disable=True)
    assert best is not None
    assert (best.require, best.disable) == (("monitor",), ("vme", "topoext"))


def test_models_new_to_a_peer_are_as_qemu_has_them() -> None:
    assert peer_features("New", frozenset({"fpu", "hypervisor"})) == {"fpu"}
    assert switched_off("EPYC") == ["monitor"]
    assert switched_off("New") == []


def test_every_difference_names_a_feature() -> None:
    tables = [peer_features(name, frozenset(FEATURES)) for name in ("EPYC", "Snowridge", "n270")]
    assert all(is_feature(feature) for table in tables for feature in table)
    assert all(is_feature(feature) for less, more in _TABLE.values() for feature in less | more)


def test_host_model_is_what_qemu_can_give(emulator: GuestSupport) -> None:
    best = guest_cpu(emulator, "kvm")
    assert best is not None
    assert (best.model.name, best.require) == ("EPYC-Genoa", ("x2apic", "hypervisor"))
    best = guest_cpu(emulator, "qemu")
    assert best is not None
    assert best.model.name == "EPYC-Genoa"
    assert best.disable == ("pclmuldq",)
    assert guest_cpu(emulator, "xen") is None
