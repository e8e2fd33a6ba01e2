from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sterna.host.firmware import installed_firmware

Tree = Callable[[dict[str, object]], Path]


def descriptor(executable: str, *features: str, machines: str = "pc-q35-*") -> str:
    document: dict[str, Any] = {
        "description": "x",
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": executable, "format": "raw"},
            "nvram-template": {"filename": "/fw/VARS.fd", "format": "raw"},
        },
        "targets": [{"architecture": "x86_64", "machines": [machines]}],
        "features": list(features),
        "tags": [],
    }
    return json.dumps(document)


def test_order_hiding_and_missing_files(tree: Tree) -> None:
    usr, etc = "usr/share/qemu/firmware", "etc/qemu/firmware"
    root = tree(
        {
            "fw/A.fd": "a",
            "fw/B.fd": "b",
            f"{usr}/60-a.json": descriptor("/fw/A.fd"),
            f"{usr}/50-b.json": descriptor("/fw/B.fd", "secure-boot", "requires-smm"),
            f"{usr}/40-gone.json": descriptor("/fw/GONE.fd"),
            f"{usr}/30-hidden.json": descriptor("/fw/A.fd"),
            f"{etc}/30-hidden.json": "",
            f"{usr}/20-later.json": '{"mapping": {"device": "igvm"}}',
        }
    )
    found = installed_firmware(root)
    assert [(firmware.name, firmware.secure) for firmware in found] == [
        ("50-b.json", True),
        ("60-a.json", False),
    ]
    assert found[0].nvram_template == "/fw/VARS.fd"


def test_memory_firmware_has_no_template(tree: Tree) -> None:
    text = json.dumps(
        {
            "interface-types": ["bios"],
            "mapping": {"device": "memory", "filename": "/fw/bios.bin"},
            "targets": [{"architecture": "x86_64", "machines": ["*"]}],
            "features": [],
        }
    )
    root = tree({"fw/bios.bin": "", "usr/share/qemu/firmware/10.json": text})
    (found,) = installed_firmware(root)
    assert (found.device, found.nvram_template) == ("memory", None)


def test_serves_by_pattern(tree: Tree) -> None:
    text = descriptor("/fw/A.fd")
    (found,) = installed_firmware(tree({"fw/A.fd": "", "usr/share/qemu/firmware/a.json": text}))
    assert found.serves("x86_64", "pc-q35-7.2")
    assert not found.serves("x86_64", "pc-i440fx-7.2")
    assert not found.serves("aarch64", "pc-q35-7.2")
