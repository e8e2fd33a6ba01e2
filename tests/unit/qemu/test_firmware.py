"""Which firmware a definition gets: libvirt 9.0's choices on Debian 12, observed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from sterna.config.document import parse_domain
from sterna.config.model import DomainDef
from sterna.errors import OperationFailed
from sterna.qemu.firmware import resolve_firmware
from support import argv_cases


@dataclass(frozen=True)
class Build:
    executable: str
    nvram_template: str | None
    features: frozenset[str]
    machines: tuple[str, ...]
    interfaces: frozenset[str] = frozenset({"uefi"})
    device: str = "flash"

    def serves(self, arch: str, machine: str) -> bool:
        return arch == "x86_64" and machine.startswith(self.machines)


CODE, VARS = "/usr/share/OVMF/OVMF_CODE_4M", "/usr/share/OVMF/OVMF_VARS_4M"
DEBIAN_12 = (
    Build(
        f"{CODE}.ms.fd",
        f"{VARS}.ms.fd",
        frozenset({"enrolled-keys", "requires-smm", "secure-boot"}),
        ("pc-q35-",),
    ),
    Build(
        f"{CODE}.secboot.fd", f"{VARS}.fd", frozenset({"requires-smm", "secure-boot"}), ("pc-q35-",)
    ),
    Build(f"{CODE}.fd", f"{VARS}.fd", frozenset(), ("pc-q35-", "pc-i440fx-")),
)


def guest(
    inner: str, *, machine: str = "pc-q35-7.2", attribute: str = "firmware='efi'"
) -> DomainDef:
    return parse_domain(
        f"<domain type='qemu'><name>g</name><memory>1</memory><os {attribute}>"
        f"<type arch='x86_64' machine='{machine}'>hvm</type>{inner}</os></domain>"
    )


def resolved(d: DomainDef) -> tuple[str | None, bool | None, str | None, str | None]:
    resolve_firmware(d, DEBIAN_12, "/nvram")
    assert d.os is not None
    assert d.os.loader is not None
    nvram = d.os.nvram
    return (
        d.os.loader.path,
        d.os.loader.secure,
        nvram.path if nvram else None,
        nvram.template if nvram else None,
    )


def test_the_first_that_serves_the_machine() -> None:
    d = guest("")
    assert resolved(d) == (f"{CODE}.ms.fd", True, "/nvram/g_VARS.fd", f"{VARS}.ms.fd")
    assert d.features is not None
    assert d.features.smm is not None
    assert d.features.smm.state is True
    assert d.os is not None
    assert d.os.firmware is None
    other = guest("", machine="pc-i440fx-7.2")
    assert resolved(other) == (f"{CODE}.fd", None, "/nvram/g_VARS.fd", f"{VARS}.fd")


@pytest.mark.parametrize(
    ("inner", "code"),
    [
        ("<firmware><feature enabled='no' name='secure-boot'/></firmware>", f"{CODE}.fd"),
        ("<firmware><feature enabled='no' name='enrolled-keys'/></firmware>", f"{CODE}.secboot.fd"),
        ("<loader secure='no'/>", f"{CODE}.fd"),
    ],
)
def test_features_asked_for_decide(inner: str, code: str) -> None:
    assert resolved(guest(inner))[0] == code


def test_a_path_finds_its_template() -> None:
    loader = f"<loader readonly='yes' type='pflash'>{CODE}.fd</loader>"
    assert resolved(guest(loader, attribute="")) == (
        f"{CODE}.fd",
        None,
        "/nvram/g_VARS.fd",
        f"{VARS}.fd",
    )
    own = f"{loader}<nvram template='/t'>/own</nvram>"
    assert resolved(guest(own, attribute=""))[2:] == ("/own", "/t")


def test_stateless_firmware_gets_no_variables() -> None:
    loader = f"<loader readonly='yes' type='pflash' stateless='yes'>{CODE}.fd</loader>"
    assert resolved(guest(loader, attribute=""))[2:] == (None, None)


def test_what_no_firmware_satisfies_is_said() -> None:
    with pytest.raises(OperationFailed, match="Unable to find any firmware to satisfy 'bios'"):
        resolve_firmware(guest("", attribute="firmware='bios'"), DEBIAN_12, "/nvram")
    secure = "<firmware><feature enabled='yes' name='secure-boot'/></firmware>"
    with pytest.raises(OperationFailed):
        resolve_firmware(guest(secure, machine="pc-i440fx-7.2"), DEBIAN_12, "/nvram")


def test_a_bios_without_uefi_is_left_alone() -> None:
    d = argv_cases.load("minimal-pc").definition
    resolve_firmware(d, DEBIAN_12, "/nvram")
    assert d.os is not None
    assert d.os.loader is None
