"""Our command lines against those that libvirt 9.0 gave QEMU 7.2 for the same machines."""

from __future__ import annotations

import pytest

from sterna.qemu.argv import build_argv
from support import argv_cases


@pytest.mark.parametrize("name", argv_cases.names())
def test_same_machine_as_libvirt(name: str) -> None:
    """Every option, in order, with equal values; descriptors and state paths aside."""
    case = argv_cases.load(name)
    d = case.definition
    ours = build_argv(d, argv_cases.plain_caps(), case.launch(d))
    assert argv_cases.comparable(ours.args) == argv_cases.comparable(case.args)
