"""Several guests move at the same time, in both directions: none disturbs another."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from support.domains import tick_xml
from support.fixtures import TwoHosts
from support.serial import SerialTap
from support.tick_guest import TickParameters

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

GUESTS = 6
SMALL = TickParameters(region_mib=4, dirty_mib_s=2, check_mib_s=8, tick_ms=20)


def test_guests_move_in_both_directions(two_hosts: TwoHosts, tick_elf: Path) -> None:
    sides = (two_hosts.source, two_hosts.destination)
    names = [f"guest{number}" for number in range(GUESTS)]
    with contextlib.ExitStack() as undo:
        taps = {}
        for number, name in enumerate(names):
            path = two_hosts.source.root.with_name(f"{name}.sock")
            taps[name] = undo.enter_context(SerialTap(path))
            sides[number % 2].create(tick_xml(name, tick_elf, SMALL, serial=path))
        for name in names:
            taps[name].wait_more_ticks(3)
        moving = [
            undo.enter_context(
                sides[number % 2].start_virsh("migrate", "--live", name, sides[1 - number % 2].uri)
            )
            for number, name in enumerate(names)
        ]
        for virsh in moving:
            virsh.wait(90).check()
        assert sides[0].guests() == set(names[1::2])
        assert sides[1].guests() == set(names[0::2])
        arrived_ns = time.monotonic_ns()
        for name in names:
            taps[name].wait_verified(arrived_ns).check_one_history()
        for side in sides:
            assert len(side.qemus()) == GUESTS // 2
