"""virsh writes a guest's memory to a file: the guest does not notice."""

from __future__ import annotations

import pytest

from support.fixtures import MakeGuest
from support.host import Host
from support.serial import SerialTap
from support.tick_guest import TickParameters

TINY = TickParameters(region_mib=2, dirty_mib_s=4, check_mib_s=8)


@pytest.mark.parametrize(
    ("option", "magic"), [("", b"QEVM"), ("--live", b"QEVM"), ("--memory-only", b"\x7fELF")]
)
def test_dump(
    host: Host, serial_tap: SerialTap, tick_guest_xml: MakeGuest, option: str, magic: bytes
) -> None:
    host.create(tick_guest_xml("web1", TINY))
    serial_tap.wait_more_ticks(5)
    path = host.root.with_name("core")
    host.virsh("dump", "web1", str(path), *option.split(), timeout_s=60).check()
    assert path.read_bytes()[:4] == magic
    assert path.stat().st_mode & 0o777 == 0o600
    serial_tap.wait_more_ticks(5).check_one_history()
    assert host.state("web1") == "running (unpaused)"


def test_dump_crash(host: Host, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> None:
    host.define(tick_guest_xml("web1", TINY))
    host.virsh("start", "web1").check()
    serial_tap.wait_more_ticks(2)
    path = str(host.root.with_name("core"))
    host.virsh("dump", "web1", path, "--crash", timeout_s=60).check()
    assert host.state("web1") == "shut off (crashed)"
