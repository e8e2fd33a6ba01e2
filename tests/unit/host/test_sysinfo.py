from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sterna.errors import ConfigUnsupported
from sterna.host import sysinfo
from sterna.host.sysinfo import run_dmidecode, sysinfo_xml

DMIDECODE = """\
BIOS Information
\tVendor: Tern BIOS & Co
\tCharacteristics:
\t\tTargeted content distribution is supported
\tBIOS Revision: 4.5

System Information
\tManufacturer: Maker
\tWake-up Type: Power Switch

Processor Information
\tSocket Designation: CPU 0
\tSignature: Family 25, Model 33, Stepping 0
\tFlags:
\t\tFPU (Floating-point unit on-chip)

Memory Device
\tSize: 16 GB
\tLocator: DIMM 0

Memory Device
\tSize: No Module Installed
\tLocator: DIMM 1

OEM Strings
\tString 1: hello
\tString 2: wor,ld

Something Else
\tName: value
"""

# What libvirt 9.0 made of the same.
EXPECTED = """\
<sysinfo type='smbios'>
  <bios>
    <entry name='vendor'>Tern BIOS &amp; Co</entry>
    <entry name='release'>4.5</entry>
  </bios>
  <system>
    <entry name='manufacturer'>Maker</entry>
  </system>
  <processor>
    <entry name='socket_destination'>CPU 0</entry>
    <entry name='signature'>Family 25, Model 33, Stepping 0</entry>
  </processor>
  <memory_device>
    <entry name='size'>16 GB</entry>
    <entry name='locator'>DIMM 0</entry>
  </memory_device>
  <oemStrings>
    <entry>hello</entry>
    <entry>wor,ld</entry>
  </oemStrings>
</sysinfo>
"""


def silent() -> str:
    return ""


def test_from_dmidecode(tmp_path: Path) -> None:
    assert sysinfo_xml(tmp_path, lambda: DMIDECODE) == EXPECTED


def test_from_the_kernel(tree: Callable[[dict[str, object]], Path]) -> None:
    folder = "sys/class/dmi/id"
    root = tree({f"{folder}/bios_vendor": "Tern & Co", f"{folder}/product_name": "A 'Box'"})
    assert sysinfo_xml(root, silent) == (
        "<sysinfo type='smbios'>\n"
        "  <bios>\n"
        "    <entry name='vendor'>Tern &amp; Co</entry>\n"
        "  </bios>\n"
        "  <system>\n"
        "    <entry name='product'>A &apos;Box&apos;</entry>\n"
        "  </system>\n"
        "</sysinfo>\n"
    )


@pytest.mark.parametrize("text", ["", "# dmidecode 3.4\n/dev/mem: No such file or directory\n"])
def test_machine_without_smbios(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigUnsupported, match="Host SMBIOS information is not available"):
        sysinfo_xml(tmp_path, lambda: text)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo BIOS Information", "BIOS Information\n"),
        ("echo no; exit 1", ""),
        ("exec sleep 9", ""),
    ],
)
def test_asking_dmidecode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    program = tmp_path / "dmidecode"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sysinfo, "DMIDECODE_S", 0.2)
    monkeypatch.setattr("shutil.which", lambda _name, path: str(program))
    assert run_dmidecode() == said


def test_no_dmidecode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name, path: None)
    assert run_dmidecode() == ""
