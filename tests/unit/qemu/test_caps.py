"""The cache's form of what a QEMU can do."""

from __future__ import annotations

import pytest

from sterna.qemu.caps import QemuCaps
from support import argv_cases


def test_json_and_back() -> None:
    caps = argv_cases.plain_caps(
        devices=frozenset({"virtio-blk-pci"}), cpus_tcg=(argv_cases.cpu_model("qemu64"),)
    )
    assert QemuCaps.from_json(caps.to_json()) == caps


def test_machines_are_found_by_name_and_alias() -> None:
    caps = argv_cases.plain_caps()
    assert caps.machines_by_name["pc"] is caps.machines_by_name["pc-i440fx-7.2"]


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"version": 3}'])
def test_another_versions_cache_is_no_cache(text: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        QemuCaps.from_json(text)
