"""The host's SMBIOS data as CONNECT_GET_SYSINFO gives it.

Asked of dmidecode where it is installed and may look (it wants root); else /sys/class/dmi/id has
the strings of the first four structures. Names of entries are libvirt 9.0's (observed).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from sterna.errors import ConfigUnsupported, ErrorDomain
from sterna.host.files import ROOT, read_text
from sterna.host.xmltext import XmlText

DMIDECODE_S = 5.0
TEXT_CHARS_MAX = 1 << 20

# Title of a block -> element, and its lines -> entries, in order.
_BLOCKS: dict[str, tuple[str, dict[str, str]]] = {
    "BIOS Information": (
        "bios",
        {
            "Vendor": "vendor",
            "Version": "version",
            "Release Date": "date",
            "BIOS Revision": "release",
        },
    ),
    "System Information": (
        "system",
        {
            "Manufacturer": "manufacturer",
            "Product Name": "product",
            "Version": "version",
            "Serial Number": "serial",
            "UUID": "uuid",
            "SKU Number": "sku",
            "Family": "family",
        },
    ),
    "Base Board Information": (
        "baseBoard",
        {
            "Manufacturer": "manufacturer",
            "Product Name": "product",
            "Version": "version",
            "Serial Number": "serial",
            "Asset Tag": "asset",
            "Location In Chassis": "location",
        },
    ),
    "Chassis Information": (
        "chassis",
        {
            "Manufacturer": "manufacturer",
            "Version": "version",
            "Serial Number": "serial",
            "Asset Tag": "asset",
            "SKU Number": "sku",
        },
    ),
    "Processor Information": (
        "processor",
        {
            "Socket Designation": "socket_destination",
            "Type": "type",
            "Family": "family",
            "Manufacturer": "manufacturer",
            "Signature": "signature",
            "Version": "version",
            "External Clock": "external_clock",
            "Max Speed": "max_speed",
            "Status": "status",
            "Serial Number": "serial_number",
            "Part Number": "part_number",
        },
    ),
    "Memory Device": (
        "memory_device",
        {
            "Size": "size",
            "Form Factor": "form_factor",
            "Locator": "locator",
            "Bank Locator": "bank_locator",
            "Type": "type",
            "Type Detail": "type_detail",
            "Speed": "speed",
            "Manufacturer": "manufacturer",
            "Serial Number": "serial_number",
            "Part Number": "part_number",
        },
    ),
}
_EMPTY_SLOT = "No Module Installed"

# The kernel's names of the same.
_FILES: dict[str, dict[str, str]] = {
    "BIOS Information": {
        "bios_vendor": "Vendor",
        "bios_version": "Version",
        "bios_date": "Release Date",
        "bios_release": "BIOS Revision",
    },
    "System Information": {
        "sys_vendor": "Manufacturer",
        "product_name": "Product Name",
        "product_version": "Version",
        "product_serial": "Serial Number",
        "product_uuid": "UUID",
        "product_sku": "SKU Number",
        "product_family": "Family",
    },
    "Base Board Information": {
        "board_vendor": "Manufacturer",
        "board_name": "Product Name",
        "board_version": "Version",
        "board_serial": "Serial Number",
        "board_asset_tag": "Asset Tag",
    },
    "Chassis Information": {
        "chassis_vendor": "Manufacturer",
        "chassis_version": "Version",
        "chassis_serial": "Serial Number",
        "chassis_asset_tag": "Asset Tag",
    },
}

Block = tuple[str, list[tuple[str, str]]]
"""Title of a structure, and its lines in order."""


def run_dmidecode() -> str:
    """Return what dmidecode says of the structures we show; empty if it can't be asked."""
    program = shutil.which("dmidecode", path="/usr/sbin:/sbin:/usr/bin")
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, "-q", "-t", "0,1,2,3,4,11,17"],
            capture_output=True,
            timeout=DMIDECODE_S,
            check=False,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout[:TEXT_CHARS_MAX] if done.returncode == 0 else ""


def sysinfo_xml(root: Path = ROOT, ask: Callable[[], str] = run_dmidecode) -> str:
    """Return `<sysinfo type='smbios'>` of this host. May take as long as dmidecode does.

    Raises:
        ConfigUnsupported: the machine has no SMBIOS, or neither way shows it.
    """
    blocks = _parsed(ask()) or _from_kernel(root)
    if not blocks:
        raise ConfigUnsupported("Host SMBIOS information is not available", domain=ErrorDomain.QEMU)
    xml = XmlText()
    with xml.element("sysinfo", type="smbios"):
        for title, (element, entries) in _BLOCKS.items():
            for found, lines in blocks:
                if found == title and ("Size", _EMPTY_SLOT) not in lines:
                    _write(xml, element, entries, dict(lines))
        strings = [value for title, lines in blocks if title == "OEM Strings" for _, value in lines]
        if strings:
            with xml.element("oemStrings"):
                for value in strings:
                    xml.leaf("entry", value)
    return str(xml)


def _write(xml: XmlText, element: str, entries: dict[str, str], lines: dict[str, str]) -> None:
    shown = [(name, lines[line]) for line, name in entries.items() if lines.get(line)]
    if shown:
        with xml.element(element):
            for name, value in shown:
                xml.leaf("entry", value, name=name)


def _parsed(text: str) -> list[Block]:
    """dmidecode -q: a title, then lines indented by one tab; further tabs are lists."""
    blocks: list[Block] = []
    for line in text.splitlines():
        if line and not line[0].isspace():
            blocks.append((line.strip(), []))
        elif line.startswith("\t") and not line.startswith("\t\t") and blocks:
            name, colon, value = line.strip().partition(":")
            if colon:
                blocks[-1][1].append((name, value.strip()))
    return [block for block in blocks if block[0] in _BLOCKS or block[0] == "OEM Strings"]


def _from_kernel(root: Path) -> list[Block]:
    folder = root / "sys/class/dmi/id"
    blocks = [
        (title, [(line, read_text(folder / file)) for file, line in files.items()])
        for title, files in _FILES.items()
    ]
    return blocks if any(value for _, lines in blocks for _, value in lines) else []
