"""virsh puts a guest's memory on disk and brings it back: the guest does not notice."""

from __future__ import annotations

from support.fixtures import MakeGuest
from support.host import Host
from support.serial import SerialTap
from support.tick_guest import TickParameters

TINY = TickParameters(region_mib=2, dirty_mib_s=4, check_mib_s=8)


def test_save_and_restore(host: Host, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> None:
    host.create(tick_guest_xml("web1", TINY))
    serial_tap.wait_more_ticks(5)
    path = str(host.root.with_name("saved"))
    host.virsh("save", "web1", path, timeout_s=60).check()
    assert host.guests("--all") == set()
    assert host.qemus() == []
    host.virsh("restore", path, timeout_s=60).check()
    history = serial_tap.wait_more_ticks(20)
    history.check_one_history()
    assert host.state("web1") == "running (restored)"


def test_restore_paused(host: Host, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> None:
    host.create(tick_guest_xml("web1", TINY))
    serial_tap.wait_more_ticks(5)
    path = str(host.root.with_name("saved"))
    host.virsh("save", "web1", path, "--verbose", timeout_s=60).check()
    assert "<name>web1</name>" in host.said("save-image-dumpxml", path)
    host.virsh("restore", path, "--paused", timeout_s=60).check()
    assert host.said("domstate", "web1") == "paused"
    host.virsh("resume", "web1").check()
    serial_tap.wait_more_ticks(5).check_one_history()


def test_managedsave(host: Host, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> None:
    host.define(tick_guest_xml("web1", TINY))
    host.virsh("start", "web1").check()
    serial_tap.wait_more_ticks(5)
    host.virsh("managedsave", "web1", timeout_s=60).check()
    assert host.state("web1") == "shut off (saved)"
    assert host.guests("--all", "--with-managed-save") == {"web1"}
    host.virsh("start", "web1", timeout_s=60).check()
    serial_tap.wait_more_ticks(20).check_one_history()
    assert host.guests("--all", "--with-managed-save") == set()


def test_managedsave_remove(host: Host, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> None:
    host.define(tick_guest_xml("web1", TINY))
    host.virsh("start", "web1").check()
    serial_tap.wait_more_ticks(2)
    host.virsh("managedsave", "web1", timeout_s=60).check()
    assert "managed save image" in host.refused("undefine", "web1")
    host.virsh("managedsave-remove", "web1").check()
    host.virsh("start", "web1").check()
    serial_tap.wait_until(lambda history: history.boots == 2, "a fresh boot")


def test_save_of_what_does_not_run_is_refused(defined: Host) -> None:
    path = str(defined.root.with_name("saved"))
    assert "domain is not running" in defined.refused("save", "web1", path)
