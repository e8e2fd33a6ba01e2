"""The host's SMBIOS data as CONNECT_GET_SYSINFO gives it.

Fact: /sys/class/dmi/id holds the strings of SMBIOS structures 0 to 3; serial numbers and the uuid
are readable by root alone and are left out for others.
"""

from __future__ import annotations

from pathlib import Path

from sterna.errors import ConfigUnsupported, ErrorDomain
from sterna.host.files import ROOT, read_text
from sterna.host.xmltext import XmlText

# Group of the XML -> entries of it -> files of the kernel.
_GROUPS: dict[str, dict[str, str]] = {
    "bios": {
        "vendor": "bios_vendor",
        "version": "bios_version",
        "date": "bios_date",
        "release": "bios_release",
    },
    "system": {
        "manufacturer": "sys_vendor",
        "product": "product_name",
        "version": "product_version",
        "serial": "product_serial",
        "uuid": "product_uuid",
        "sku": "product_sku",
        "family": "product_family",
    },
    "baseBoard": {
        "manufacturer": "board_vendor",
        "product": "board_name",
        "version": "board_version",
        "serial": "board_serial",
        "asset": "board_asset_tag",
    },
    "chassis": {
        "manufacturer": "chassis_vendor",
        "version": "chassis_version",
        "serial": "chassis_serial",
        "asset": "chassis_asset_tag",
    },
}


def sysinfo_xml(root: Path = ROOT) -> str:
    """Return `<sysinfo type='smbios'>` of this host.

    Raises:
        ConfigUnsupported: the machine has no SMBIOS, or the kernel doesn't show it.
    """
    folder = root / "sys/class/dmi/id"
    groups = {
        group: {name: read_text(folder / file) for name, file in entries.items()}
        for group, entries in _GROUPS.items()
    }
    if not any(value for entries in groups.values() for value in entries.values()):
        raise ConfigUnsupported("Host SMBIOS information is not available", domain=ErrorDomain.QEMU)
    xml = XmlText()
    with xml.element("sysinfo", type="smbios"):
        for group, entries in groups.items():
            if any(entries.values()):
                with xml.element(group):
                    for name, value in entries.items():
                        if value:
                            xml.leaf("entry", value, name=name)
    return str(xml)
