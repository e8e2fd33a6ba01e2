from __future__ import annotations

import pytest

from sterna.errors import CpuIncompatible, InternalError, InvalidArg, XmlDetail, XmlError
from sterna.host.cpu import NamedModel, named_models
from sterna.host.cpu_compare import Comparison, baseline_xml, compare_cpu, parse_cpu
from sterna.host.support import GuestSupport

HOST = frozenset({"fpu", "sse", "sse2", "x2apic"})
AMD = "AuthenticAMD"


@pytest.fixture
def models(emulator: GuestSupport) -> dict[str, NamedModel]:
    return named_models(emulator, "qemu")


@pytest.mark.parametrize(
    ("document", "answer"),
    [
        ("<cpu><model>kvm64</model></cpu>", Comparison.SUPERSET),
        (
            "<cpu><model>Opteron_G1</model><vendor>AMD</vendor><feature name='x2apic'/></cpu>",
            Comparison.IDENTICAL,
        ),
        ("<cpu><model>EPYC-Genoa</model></cpu>", Comparison.INCOMPATIBLE),
        ("<cpu match='strict'><model>kvm64</model></cpu>", Comparison.INCOMPATIBLE),
        ("<cpu><model>kvm64</model><vendor>Intel</vendor></cpu>", Comparison.INCOMPATIBLE),
        (
            "<cpu><model>kvm64</model><feature policy='forbid' name='sse2'/></cpu>",
            Comparison.INCOMPATIBLE,
        ),
        (
            "<cpu><model>kvm64</model><feature policy='optional' name='aes'/></cpu>",
            Comparison.SUPERSET,
        ),
        (
            "<cpu><model>Nehalem</model><feature policy='disable' name='sse4.1'/>"
            "<feature policy='disable' name='pclmuldq'/></cpu>",
            Comparison.SUPERSET,
        ),
        ("<cpu mode='host-passthrough'/>", Comparison.SUPERSET),
    ],
)
def test_compare(models: dict[str, NamedModel], document: str, answer: Comparison) -> None:
    assert compare_cpu(parse_cpu(document, models), HOST, AMD) is answer


def test_the_reason_is_told_when_asked_for(models: dict[str, NamedModel]) -> None:
    wanted = parse_cpu("<cpu><model>EPYC-Genoa</model></cpu>", models)
    with pytest.raises(CpuIncompatible, match=r"required features: pclmuldq, sse4\.1, svm"):
        compare_cpu(wanted, HOST, AMD, fail_if_incompatible=True)


@pytest.mark.parametrize(
    ("document", "error", "text"),
    [
        ("<cpu>", XmlDetail, "CPU_definition"),
        ("<foo/>", XmlError, "<foo>"),
        ("<cpu/>", XmlError, "Missing CPU model name"),
        ("<cpu><model>Foo</model></cpu>", InternalError, "Unknown CPU model Foo"),
        (
            "<cpu><model>EPYC-Genoa</model><feature name='x'/></cpu>",
            InternalError,
            "Unknown CPU feature x",
        ),
    ],
)
def test_bad_documents(
    models: dict[str, NamedModel], document: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        parse_cpu(document, models)


def test_entities_are_not_expanded(models: dict[str, NamedModel]) -> None:
    bomb = '<!DOCTYPE cpu [<!ENTITY a "kvm64">]><cpu><model>&a;</model></cpu>'
    with pytest.raises(XmlError, match="Missing CPU model name"):
        parse_cpu(bomb, models)


def test_baseline_is_what_all_have(models: dict[str, NamedModel]) -> None:
    documents = [
        "<cpu><model>EPYC-Genoa</model><vendor>AMD</vendor></cpu>",
        "<cpu><model>Opteron_G1</model><vendor>AMD</vendor><feature name='sse4.1'/></cpu>",
    ]
    assert baseline_xml(documents, models) == (
        "<cpu mode='custom' match='exact'>\n"
        "  <model fallback='forbid'>Opteron_G1</model>\n"
        "  <vendor>AMD</vendor>\n"
        "  <feature policy='require' name='sse4.1'/>\n"
        "</cpu>\n"
    )


def test_baseline_expanded_and_limited(models: dict[str, NamedModel]) -> None:
    documents = [f"<cpu><model>{name}</model></cpu>" for name in ("EPYC-Genoa", "Opteron_G1")]
    text = baseline_xml(documents, models, within=frozenset({"fpu", "sse"}), expand=True)
    assert text == (
        "<cpu mode='custom' match='exact'>\n"
        "  <model fallback='forbid'>kvm64</model>\n"
        "  <feature policy='require' name='fpu'/>\n"
        "  <feature policy='require' name='sse'/>\n"
        "</cpu>\n"
    )


def test_baseline_of_one_keeps_its_model(models: dict[str, NamedModel]) -> None:
    document = "<cpu><model>kvm64</model><feature name='sse2'/><feature name='osxsave'/></cpu>"
    text = baseline_xml([document], models)
    assert "<model fallback='forbid'>kvm64</model>" in text
    assert "name='sse2'" in text
    # What the guest's own system switches on is no part of a CPU to choose.
    assert "osxsave" not in text


def test_baseline_keeps_what_a_guest_had_switched_off(models: dict[str, NamedModel]) -> None:
    document = "<cpu><model>EPYC-Genoa</model><feature policy='disable' name='svm'/></cpu>"
    text = baseline_xml([document], models)
    assert "<model fallback='forbid'>EPYC-Genoa</model>" in text
    assert "<feature policy='disable' name='svm'/>" in text


def test_no_baseline(models: dict[str, NamedModel]) -> None:
    with pytest.raises(InvalidArg, match="1 to 256"):
        baseline_xml([], models)
    with pytest.raises(InvalidArg, match="no CPU model specified at index 0"):
        baseline_xml(["<cpu mode='host-passthrough'/>"], models)
    documents = [f"<cpu><model>{name}</model></cpu>" for name in ("EPYC-Genoa", "Nehalem")]
    with pytest.raises(CpuIncompatible, match="vendors"):
        baseline_xml(documents, models)
