from __future__ import annotations

from typing import Any

import pytest
from lxml import etree

from sterna.errors import ConfigUnsupported, InvalidArg, SystemCallError
from sterna.host.domaincaps import choose, domain_capabilities_xml, max_vcpus
from sterna.host.firmware import Firmware
from sterna.host.support import GuestSupport

PLAIN = Firmware(
    "60.json",
    frozenset({"uefi"}),
    "flash",
    "/fw/CODE.fd",
    "/fw/VARS.fd",
    (("x86_64", "pc-i440fx-*"), ("x86_64", "pc-q35-*")),
    frozenset(),
)
SECURE = Firmware(
    "40.json",
    frozenset({"uefi"}),
    "flash",
    "/fw/CODE.secure.fd",
    "/fw/VARS.fd",
    (("x86_64", "pc-q35-*"),),
    frozenset({"secure-boot", "requires-smm"}),
)


def document(emulator: GuestSupport, **wanted: Any) -> etree._Element:
    chosen = choose([emulator], **wanted)
    return etree.fromstring(domain_capabilities_xml(*chosen, [SECURE, PLAIN]))


def values(parent: etree._Element, enum: str) -> list[str | None]:
    return [value.text for value in parent.iterfind(f".//enum[@name='{enum}']/value")]


def test_nothing_asked_for(emulator: GuestSupport) -> None:
    support, machine, virt_type = choose([emulator])
    assert (support, machine.name, virt_type) == (emulator, "pc-i440fx-7.2", "kvm")


def test_alias_becomes_canonical(emulator: GuestSupport) -> None:
    assert choose([emulator], machine="q35", virt_type="qemu")[1].name == "pc-q35-7.2"


@pytest.mark.parametrize(
    ("wanted", "error", "text"),
    [
        ({"virt_type": "foo"}, InvalidArg, "unknown virttype: foo"),
        (
            {"virt_type": "xen"},
            InvalidArg,
            "Emulator '/usr/bin/qemu-system-x86_64' does not support virt type 'xen'",
        ),
        ({"arch": "foo"}, InvalidArg, "unknown architecture: foo"),
        (
            {"arch": "aarch64"},
            ConfigUnsupported,
            "unable to find any emulator to serve 'aarch64' architecture",
        ),
        (
            {"machine": "foo"},
            InvalidArg,
            "the machine 'foo' is not supported by emulator '/usr/bin/qemu-system-x86_64'",
        ),
        (
            {"emulator": "/no/such"},
            SystemCallError,
            "Cannot check QEMU binary /no/such: No such file or directory",
        ),
        ({"emulator": "/bin/sh"}, InvalidArg, "'/bin/sh' is none of this host's emulators"),
        (
            {"emulator": "/usr/bin/qemu-system-x86_64", "arch": "aarch64"},
            InvalidArg,
            "architecture from emulator 'x86_64' doesn't match given architecture 'aarch64'",
        ),
    ],
)
def test_wrong_arguments(
    emulator: GuestSupport, wanted: dict[str, str], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        choose([emulator], **wanted)


def test_os_of_each_machine(emulator: GuestSupport) -> None:
    for machine, loaders, secure in (
        ("pc", ["/fw/CODE.fd"], ["no"]),
        ("q35", ["/fw/CODE.secure.fd", "/fw/CODE.fd"], ["yes", "no"]),
    ):
        found = document(emulator, machine=machine).find("os")
        assert values(found, "firmware") == ["efi"]
        assert [value.text for value in found.iterfind("loader/value")] == loaders
        assert values(found, "secure") == secure


def test_no_firmware_for_a_machine(emulator: GuestSupport) -> None:
    found = etree.fromstring(domain_capabilities_xml(*choose([emulator]), []))
    assert values(found.find("os"), "firmware") == []


def test_cpu_modes(emulator: GuestSupport) -> None:
    kvm, tcg = (document(emulator, virt_type=kind) for kind in ("kvm", "qemu"))
    path = "cpu/mode[@name='{}']"
    assert kvm.find(path.format("host-passthrough")).get("supported") == "yes"
    assert tcg.find(path.format("host-passthrough")).get("supported") == "no"
    model = kvm.find(path.format("host-model"))
    assert (model.findtext("model"), model.findtext("vendor")) == ("EPYC-Genoa", "AMD")
    disabled = tcg.findall(path.format("host-model") + "/feature[@policy='disable']")
    assert [feature.get("name") for feature in disabled] == ["pclmuldq"]
    custom = kvm.findall(path.format("custom") + "/model")
    assert [(m.text, m.get("usable"), m.get("vendor")) for m in custom] == [
        ("kvm64", "yes", "unknown"),
        ("EPYC-Genoa", "no", "AMD"),
        ("Opteron_G1", "yes", "AMD"),
        ("Nehalem", "yes", "Intel"),
    ]


def test_devices_follow_machine_and_emulator(emulator: GuestSupport) -> None:
    pc, q35 = (document(emulator, machine=name) for name in ("pc", "q35"))
    assert "ide" in values(pc, "bus")
    assert "ide" not in values(q35, "bus")
    assert values(pc, "modelType") == ["vga", "virtio", "none"]
    assert values(pc, "backendModel") == ["random"]
    assert values(pc.find("devices/graphics"), "type") == ["vnc"]
    assert "spicevmc" not in values(pc.find("devices/channel"), "type")
    assert pc.find("features/genid").get("supported") == "yes"
    assert pc.find("features/vmcoreinfo").get("supported") == "no"


def test_max_vcpus(emulator: GuestSupport) -> None:
    assert max_vcpus(emulator) == max_vcpus(emulator, "KVM") == 255
    with pytest.raises(InvalidArg, match="unknown type 'foo'"):
        max_vcpus(emulator, "foo")
