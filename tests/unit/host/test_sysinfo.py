from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sterna.errors import ConfigUnsupported
from sterna.host.sysinfo import sysinfo_xml


def test_smbios(tree: Callable[[dict[str, object]], Path]) -> None:
    folder = "sys/class/dmi/id"
    root = tree({f"{folder}/bios_vendor": "Tern & Co", f"{folder}/product_name": "A 'Box'"})
    assert sysinfo_xml(root) == (
        "<sysinfo type='smbios'>\n"
        "  <bios>\n"
        "    <entry name='vendor'>Tern &amp; Co</entry>\n"
        "  </bios>\n"
        "  <system>\n"
        "    <entry name='product'>A &apos;Box&apos;</entry>\n"
        "  </system>\n"
        "</sysinfo>\n"
    )


def test_machine_without_smbios(tmp_path: Path) -> None:
    with pytest.raises(ConfigUnsupported, match="Host SMBIOS information is not available"):
        sysinfo_xml(tmp_path)
