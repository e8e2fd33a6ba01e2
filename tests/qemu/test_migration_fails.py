"""Migrations that cannot succeed leave the guest where it was, and nothing elsewhere."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from qemu.moving import (
    GUEST,
    LONG,
    QUICK,
    SLOWLY,
    check_stayed,
    is_copying,
    migrate_words,
)
from support.fixtures import MakeGuest, TwoDaemons
from support.processes import wait_for
from support.serial import SerialTap

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

DISK = """<disk type='file' device='disk'>
  <driver name='qemu' type='qcow2'/><source file='{}'/><target dev='vda' bus='virtio'/>
</disk>"""


def test_an_image_is_locked_at_the_destination(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest, short_dir: Path
) -> None:
    """It is found out before the decision, so the source resumes. No definition is left. (I16)"""
    here, there = short_dir / "here.qcow2", short_dir / "there.qcow2"
    for image in (here, there):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "8M"], check=True)
        image.chmod(0o666)
    xml = tick_guest_xml(GUEST, QUICK, devices=DISK.format(here))
    two_daemons.source.create(xml)
    serial_tap.wait_more_ticks()
    moved = short_dir / "moved.xml"
    live = two_daemons.source.said("dumpxml", "--migratable", GUEST)
    moved.write_text(live.replace(str(here), str(there)))
    words = migrate_words(two_daemons.destination, "--unsafe", "--persistent", "--xml", str(moved))
    with subprocess.Popen(
        ["qemu-io", str(there)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write("write 0 4k\n")  # its answer says that the image is open
        holder.stdin.flush()
        assert "wrote" in holder.stdout.readline()
        refused = two_daemons.source.refused(*words)
        holder.stdin.close()
    assert 'Failed to get "write" lock' in refused
    check_stayed(two_daemons, serial_tap)


def test_the_sources_daemon_stops_in_the_middle(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    """It undoes the migration before it ends: no QEMU waits for it at the switchover (W5)."""
    two_daemons.source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks()
    words = migrate_words(two_daemons.destination, *SLOWLY)
    with two_daemons.source.start_virsh(*words) as controller:
        wait_for(lambda: is_copying(two_daemons.source), "memory on its way")
        assert two_daemons.source.stop() == 0
        assert controller.wait().code
    serial_tap.wait_more_ticks(10)
    two_daemons.source.start()
    check_stayed(two_daemons, serial_tap)


def test_the_destination_refuses_the_data_connection(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest, short_dir: Path
) -> None:
    """The words say where it could not be reached, and where the guest is. (L8)"""
    two_daemons.source.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks()
    there = f"unix://{short_dir}/nowhere/data.sock"
    refused = two_daemons.source.refused(
        *migrate_words(two_daemons.destination, "--migrateuri", there)
    )
    assert "nowhere" in refused or "No such file" in refused
    check_stayed(two_daemons, serial_tap)
