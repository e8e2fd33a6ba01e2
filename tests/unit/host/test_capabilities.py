from __future__ import annotations

import dataclasses
import uuid
from pathlib import Path

import pytest
from lxml import etree

from sterna.host.capabilities import TscCounter, capabilities_xml
from sterna.host.kvm import tsc_counter
from sterna.host.support import GuestSupport

HOST = uuid.UUID("3b0f9f5e-2f5e-4f33-9d24-0c6d4c5a2b11")


@pytest.fixture
def document(two_cells: Path, emulator: GuestSupport) -> etree._Element:
    tsc = TscCounter(2596122000, scaling=False)
    text = capabilities_xml(HOST, [emulator], guest_ids=(64055, 108), tsc=tsc, root=two_cells)
    return etree.fromstring(text)


def texts(document: etree._Element, path: str) -> list[str | None]:
    return [element.text for element in document.iterfind(path)]


def test_host_cpu(document: etree._Element) -> None:
    (cpu,) = document.iterfind("host/cpu")
    assert cpu.findtext("model") == "Opteron_G1"
    assert cpu.findtext("vendor") == "AMD"
    assert dict(cpu.find("signature").attrib) == {"family": "23", "model": "1", "stepping": "2"}
    assert cpu.find("microcode").get("version") == str(0x8001250)
    assert cpu.find("counter").get("frequency") == "2596122000"
    topology = {"sockets": "1", "dies": "1", "cores": "2", "threads": "2"}
    assert dict(cpu.find("topology").attrib) == topology
    assert "sse4.1" in [feature.get("name") for feature in cpu.iterfind("feature")]
    assert [pages.get("size") for pages in cpu.iterfind("pages")] == ["4", "2048"]


def test_host_places(document: etree._Element) -> None:
    assert document.findtext("host/uuid") == str(HOST)
    assert texts(document, "host/migration_features/uri_transports/uri_transport") == ["tcp"]
    cells = document.findall("host/topology/cells/cell")
    assert [cell.findtext("memory") for cell in cells] == ["4096", "4096"]
    assert [s.get("value") for s in cells[1].iterfind("distances/sibling")] == ["21", "10"]
    assert dict(cells[1].find("cpus/cpu").attrib) == {
        "id": "2",
        "socket_id": "1",
        "die_id": "0",
        "core_id": "0",
        "siblings": "2,6",
    }
    bank = document.find("host/cache/bank")
    assert (bank.get("size"), bank.get("unit"), bank.get("cpus")) == ("32", "MiB", "0-1,4-5")


def test_security_models(two_cells: Path, emulator: GuestSupport, document: etree._Element) -> None:
    assert texts(document, "host/secmodel/model") == ["none", "dac"]
    assert texts(document, "host/secmodel/baselabel") == ["+64055:+108", "+64055:+108"]
    unprivileged = etree.fromstring(capabilities_xml(HOST, [emulator], root=two_cells))
    assert texts(unprivileged, "host/secmodel/model") == ["none"]


def test_guests(document: etree._Element) -> None:
    (arch,) = document.iterfind("guest/arch")
    assert (arch.get("name"), arch.findtext("wordsize")) == ("x86_64", "64")
    # The default machine and its alias lead, the rest is in the emulator's order.
    assert texts(arch, "machine") == [
        *("pc-i440fx-7.2", "pc"),
        *("pc-q35-7.2", "q35", "pc-i440fx-1.4"),
    ]
    assert arch.findall("machine")[1].get("canonical") == "pc-i440fx-7.2"
    assert [m.text for m in arch.iterfind("machine") if m.get("deprecated")] == ["pc-i440fx-1.4"]
    assert [domain.get("type") for domain in arch.iterfind("domain")] == ["qemu", "kvm"]


def test_a_32_bit_emulator(two_cells: Path, emulator: GuestSupport) -> None:
    small = dataclasses.replace(emulator, arch="i686", cpu_models={})
    document = etree.fromstring(capabilities_xml(HOST, [small], root=two_cells))
    assert document.findtext("guest/arch/wordsize") == "32"
    assert document.find("guest/features/pae") is not None
    # Nothing is known of models, so none is named.
    assert document.find("host/cpu/model") is None


def test_a_bare_machine(tmp_path: Path) -> None:
    document = etree.fromstring(capabilities_xml(HOST, [], root=tmp_path))
    assert document.find("host/cache") is None
    assert document.find("host/iommu").get("support") == "no"


def test_no_counter_without_kvm(tmp_path: Path) -> None:
    assert tsc_counter(str(tmp_path / "kvm")) is None
    (tmp_path / "kvm").touch()
    assert tsc_counter(str(tmp_path / "kvm")) is None
