"""virsh lets guests come and go."""

from __future__ import annotations

from pathlib import Path

from support.domains import tick_xml
from support.fixtures import MakeGuest
from support.host import Host
from support.processes import wait_for
from support.serial import SerialTap
from support.tick_guest import TickParameters

TINY = TickParameters(region_mib=1, dirty_mib_s=1, check_mib_s=1)


def test_define_and_undefine(host: Host, guest_xml: str) -> None:
    host.define(guest_xml)
    assert host.state("web1") == "shut off (unknown)"
    changed = guest_xml.replace("<vcpu>1</vcpu>", "<vcpu>2</vcpu>")
    host.define(changed)
    assert "vcpu placement='static'>2<" in host.said("dumpxml", "web1")
    host.virsh("undefine", "web1").check()
    assert host.guests("--all") == set()


def test_define_refuses_what_it_does_not_understand(host: Host, guest_xml: str) -> None:
    broken = host.file("broken.xml", guest_xml.replace("</domain>", ""))
    assert "broken" in host.refused("define", broken)
    other = guest_xml.replace("type='qemu'", "type='vmware'")
    host.refused("define", host.file("other.xml", other))


def test_define_keeps_names_and_uuids_apart(defined: Host, guest_xml: str, tick_elf: Path) -> None:
    second = defined.file("second.xml", tick_xml("web1", tick_elf, TINY))
    assert "already exists with uuid" in defined.refused("define", second)
    renamed = defined.file("renamed.xml", guest_xml.replace(">web1<", ">web2<"))
    assert "already defined with uuid" in defined.refused("define", renamed)


def test_create(host: Host, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> None:
    host.create(tick_guest_xml("web1", TINY))
    serial_tap.wait_more_ticks(3)
    assert host.state("web1") == "running (booted)"
    again = host.refused("create", host.file("again.xml", tick_guest_xml("web1", TINY)))
    assert "already" in again
    host.virsh("destroy", "web1").check()
    assert host.guests("--all") == set()
    assert host.qemus() == []


def test_start_paused(defined: Host) -> None:
    defined.virsh("start", "web1", "--paused").check()
    assert defined.state("web1") == "paused (user)"
    assert "already active" in defined.refused("start", "web1")
    defined.virsh("destroy", "web1").check()
    assert defined.state("web1") == "shut off (destroyed)"


def test_start_autodestroy(defined: Host) -> None:
    """A guest whose life hangs on a connection ends with it; its definition stays."""
    with defined.start_virsh("start web1 --autodestroy; event --all --timeout 60"):
        wait_for(lambda: defined.guests() == {"web1"}, "the guest")
    wait_for(lambda: defined.guests() == set(), "the guest's end", timeout_s=10)
    wait_for(lambda: not defined.qemus(), "QEMU's end", timeout_s=10)
    assert defined.state("web1") == "shut off (destroyed)"


def test_shutdown(host: Host, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> None:
    host.define(tick_guest_xml("web1", TINY))
    host.virsh("start", "web1").check()
    serial_tap.wait_more_ticks(3)
    host.virsh("shutdown", "web1", "--mode", "acpi").check()
    serial_tap.wait_line("power")
    wait_for(lambda: host.state("web1") == "shut off (shutdown)", "shut off")
    assert "domain is not running" in host.refused("shutdown", "web1")


def test_reboot_and_reset(host: Host, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> None:
    host.create(tick_guest_xml("web1", TINY))
    [qemu] = host.qemus()
    serial_tap.wait_more_ticks(3)
    host.virsh("reset", "web1").check()
    serial_tap.wait_until(lambda history: history.boots == 2, "second boot")
    serial_tap.wait_more_ticks(3)
    # By ACPI: the guest turns itself off, and comes back in the same process.
    host.virsh("reboot", "web1", "--mode", "acpi").check()
    serial_tap.wait_until(lambda history: history.boots == 3, "third boot")
    assert host.qemus() == [qemu]
    assert host.state("web1").startswith("running")


def test_destroy_graceful(paused: Host) -> None:
    [qemu] = paused.qemus()
    paused.virsh("destroy", "web1", "--graceful").check()
    wait_for(lambda: qemu not in paused.qemus(), "QEMU's end")
    assert "failed to get domain" in paused.refused("destroy", "web1")


def test_suspend_and_resume(host: Host, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> None:
    host.create(tick_guest_xml("web1", TINY))
    serial_tap.wait_more_ticks(3)
    host.virsh("suspend", "web1").check()
    assert host.state("web1") == "paused (user)"
    before = len(serial_tap.history().ticks)
    host.virsh("resume", "web1").check()
    assert host.state("web1") == "running (unpaused)"
    history = serial_tap.wait_more_ticks(3)
    assert len(history.ticks) > before
    history.check_one_history()


def test_autostart(defined: Host) -> None:
    defined.virsh("autostart", "web1").check()
    assert defined.guests("--all", "--autostart") == {"web1"}
    defined.virsh("autostart", "web1", "--disable").check()
    assert defined.guests("--all", "--autostart") == set()


def test_autostart_of_a_transient_guest_is_refused(paused: Host) -> None:
    assert "cannot set autostart for transient domain" in paused.refused("autostart", "web1")


def test_domrename(defined: Host) -> None:
    defined.virsh("domrename", "web1", "web2").check()
    assert defined.guests("--all") == {"web2"}
    assert "<name>web2</name>" in defined.said("dumpxml", "web2")
    defined.virsh("start", "web2", "--paused").check()
    defined.refused("domrename", "web2", "web3")
