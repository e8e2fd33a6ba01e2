"""A guest's CPU before and after its start. Expected values are shortened from libvirt 9.0's."""

from __future__ import annotations

import dataclasses

import pytest

from sterna.config.model.cpu import Cpu, CpuFeature, Topology
from sterna.errors import ConfigUnsupported, CpuIncompatible, InternalError, OperationFailed
from sterna.host.cpu_guest import actual_cpu, settled_cpu
from sterna.host.support import CpuExpansion, GuestSupport


def named(model: str, check: str = "none", **features: str) -> Cpu:
    listed = [CpuFeature(policy, name.replace("__", ".")) for name, policy in features.items()]
    return Cpu("custom", "exact", check, fallback="allow", model=model, features=listed)


def policies(cpu: Cpu) -> list[tuple[str | None, str]]:
    return [(feature.policy, feature.name) for feature in cpu.features]


def test_host_model_gets_a_name(emulator: GuestSupport) -> None:
    topology = Topology(sockets=2)
    cpu = settled_cpu(Cpu("host-model", check="partial", topology=topology), emulator, "qemu")
    assert (cpu.mode, cpu.match, cpu.check, cpu.fallback) == (
        *("custom", "exact", "partial", "forbid"),
    )
    assert (cpu.model, cpu.vendor, cpu.topology) == ("EPYC-Genoa", "AMD", topology)
    assert policies(cpu) == [
        ("require", "hypervisor"),
        ("require", "lahf_lm"),
        ("disable", "pclmuldq"),
    ]


def test_host_model_as_the_definition_wants_it(emulator: GuestSupport) -> None:
    wanted = [
        CpuFeature("disable", "svm"),
        CpuFeature("optional", "aes"),
        CpuFeature("optional", "sse2"),
    ]
    cpu = settled_cpu(Cpu("host-model", features=wanted), emulator, "qemu")
    assert policies(cpu)[3:] == [("disable", "svm"), ("disable", "aes"), ("require", "sse2")]
    with pytest.raises(CpuIncompatible, match="does not provide required features: aes"):
        settled_cpu(Cpu("host-model", features=[CpuFeature("require", "aes")]), emulator, "qemu")
    with pytest.raises(CpuIncompatible, match="provides forbidden features: svm"):
        settled_cpu(Cpu("host-model", features=[CpuFeature("forbid", "svm")]), emulator, "qemu")


def test_at_least_this_becomes_all_there_is(emulator: GuestSupport) -> None:
    cpu = dataclasses.replace(named("kvm64"), match="minimum")
    settled = settled_cpu(cpu, emulator, "qemu")
    assert (settled.model, settled.vendor) == ("EPYC-Genoa", None)


@pytest.mark.parametrize("mode", ["host-passthrough", "maximum"])
def test_what_follows_the_host_wholly_stays(emulator: GuestSupport, mode: str) -> None:
    cpu = Cpu(mode)
    assert settled_cpu(cpu, emulator, "kvm") is cpu
    assert actual_cpu(cpu, frozenset(), emulator, "kvm") is cpu


def test_optional_features_are_given_or_not(emulator: GuestSupport) -> None:
    cpu = settled_cpu(named("kvm64", sse2="optional", aes="optional"), emulator, "qemu")
    assert policies(cpu) == [("require", "sse2"), ("disable", "aes")]
    assert cpu.fallback == "forbid"


def test_what_libvirt_switches_off_is_off(emulator: GuestSupport) -> None:
    models = dict(emulator.cpu_models["qemu"])
    models["EPYC"] = CpuExpansion("AuthenticAMD", 23, 1, 2, frozenset({"fpu", "monitor"}))
    support = dataclasses.replace(emulator, cpu_models={"qemu": models})
    assert policies(settled_cpu(named("EPYC"), support, "qemu")) == [("disable", "monitor")]
    asked = settled_cpu(named("EPYC", monitor="require"), support, "qemu")
    assert policies(asked) == [("require", "monitor")]


@pytest.mark.parametrize("name", ["osxsave", "ospke", "cmt"])
def test_what_qemu_has_no_switch_for_is_left_out(emulator: GuestSupport, name: str) -> None:
    assert settled_cpu(named("kvm64", **{name: "require"}), emulator, "qemu").features == []


@pytest.mark.parametrize(
    ("cpu", "error", "text"),
    [
        (named("Foo"), InternalError, "Unknown CPU model Foo"),
        (named("kvm64", sse3x="forbid"), ConfigUnsupported, "unknown CPU feature: sse3x"),
        (named("kvm64", pconfig="require"), ConfigUnsupported, "no QEMU gives.*pconfig"),
        (named("kvm64", invtsc="require"), ConfigUnsupported, "invariant TSC"),
        (
            named("EPYC-Genoa", "partial"),
            CpuIncompatible,
            "does not provide required features: pclmuldq$",
        ),
        (named("kvm64", "partial", svm="forbid"), CpuIncompatible, "forbidden features: svm"),
        (
            dataclasses.replace(named("kvm64", "partial"), vendor="Intel"),
            CpuIncompatible,
            "vendor does not match required CPU vendor Intel",
        ),
        (
            dataclasses.replace(named("kvm64", "partial"), match="strict"),
            CpuIncompatible,
            "Extra features: .*lahf_lm",
        ),
    ],
)
def test_what_cannot_be_had(
    emulator: GuestSupport, cpu: Cpu, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        settled_cpu(cpu, emulator, "qemu")


def test_unchecked_is_taken_as_it_is(emulator: GuestSupport) -> None:
    assert settled_cpu(named("EPYC-Genoa"), emulator, "qemu").model == "EPYC-Genoa"
    forced = named("EPYC-Genoa", "partial", pclmuldq="force")
    assert settled_cpu(forced, emulator, "qemu").model == "EPYC-Genoa"


def test_an_emulator_that_tells_no_models(emulator: GuestSupport) -> None:
    silent = dataclasses.replace(emulator, cpu_models={})
    cpu = named("Foo")
    assert settled_cpu(cpu, silent, "qemu") is cpu
    with pytest.raises(ConfigUnsupported, match="CPU mode 'host-model' for x86_64 qemu domain"):
        settled_cpu(Cpu("host-model"), silent, "qemu")


def test_the_running_cpu_tells_what_was_lost(emulator: GuestSupport) -> None:
    asked = named("EPYC-Genoa", aes="require", sse2="require", lahf_lm="forbid")
    lost = frozenset({"aes", "pclmulqdq"})
    cpu = actual_cpu(asked, lost, emulator, "qemu")
    assert (cpu.check, cpu.fallback) == ("full", "forbid")
    assert policies(cpu) == [
        ("disable", "aes"),
        ("require", "sse2"),
        ("forbid", "lahf_lm"),
        ("disable", "pclmuldq"),
        ("require", "hypervisor"),
    ]
    # What it became is also what it is when asked for again.
    assert actual_cpu(cpu, lost, emulator, "qemu") == cpu


def test_exactly_means_exactly(emulator: GuestSupport) -> None:
    cpu = named("EPYC-Genoa", "full", aes="require")
    text = "extra features: hypervisor, missing features: aes"
    with pytest.raises(OperationFailed, match=f"guest CPU doesn't match specification: {text}"):
        actual_cpu(cpu, frozenset({"aes"}), emulator, "qemu")
    exact = named("EPYC-Genoa", "full", hypervisor="require")
    assert actual_cpu(exact, frozenset(), emulator, "qemu").check == "full"


def test_a_model_nobody_knows_is_left_alone(emulator: GuestSupport) -> None:
    cpu = named("Foo")
    assert actual_cpu(cpu, frozenset({"aes"}), emulator, "qemu") is cpu
