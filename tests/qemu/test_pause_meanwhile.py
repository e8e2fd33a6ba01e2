"""A guest that somebody pauses while it moves arrives paused (I19)."""

from __future__ import annotations

import pytest

from qemu.moving import GUEST, LONG, SLOWLY, is_copying, migrate_words
from support.fixtures import MakeGuest, TwoHosts
from support.processes import wait_for
from support.serial import SerialTap

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]


def test_a_pause_during_the_migration_is_kept(
    two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    source, destination = two_hosts.source, two_hosts.destination
    source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks(5)
    with source.start_virsh(*migrate_words(destination, *SLOWLY)) as controller:
        wait_for(lambda: is_copying(source), "memory on its way")
        # Another client's: the controller's own `--timeout` would be no wish of a user.
        source.said("suspend", GUEST)
        source.said("migrate-setspeed", GUEST, "1000")
        controller.wait().check()
    assert destination.state(GUEST) == "paused (user)"
    assert source.guests("--all") == set()
    destination.said("resume", GUEST)
    serial_tap.wait_more_ticks(5).check_one_history()
