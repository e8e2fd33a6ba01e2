"""Post-copy: the guest runs at the destination before its memory is there."""

from __future__ import annotations

import time

import pytest

from qemu.moving import GUEST, LONG, check_moved, check_stayed, is_copying, migrate_words
from support.clients import sterna
from support.fixtures import MakeGuest, TwoHosts
from support.processes import wait_for
from support.serial import SerialTap

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

SLOWLY = ("--postcopy", "--bandwidth", "4")
IN_POSTCOPY = ("--postcopy-bandwidth", "2")
"""64 MiB take half a minute then: whatever is to happen meanwhile can."""


@pytest.fixture
def hosts(two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> TwoHosts:
    """A guest that takes its time to be moved runs at the source."""
    two_hosts.source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks(5)
    return two_hosts


def in_postcopy(hosts: TwoHosts) -> bool:
    return hosts.destination.state(GUEST) == "running (post-copy)"


def test_it_runs_there_while_its_memory_follows(hosts: TwoHosts, serial_tap: SerialTap) -> None:
    """One history, every page verified, and each side says what it does."""
    before_ns = time.monotonic_ns()
    slowly = ("--postcopy-bandwidth", "2")
    words = migrate_words(hosts.destination, *SLOWLY, *slowly)
    with hosts.source.start_virsh(*words) as controller:
        wait_for(lambda: is_copying(hosts.source), "memory on its way")
        hosts.source.said("migrate-postcopy", GUEST)
        wait_for(lambda: in_postcopy(hosts), "post-copy")
        assert hosts.source.state(GUEST) == "paused (post-copy)"
        assert "cannot abort migration in post-copy mode" in hosts.source.refused(
            "domjobabort", GUEST
        )
        serial_tap.wait_more_ticks(5)
        hosts.source.said("migrate-setspeed", GUEST, "1000", "--postcopy")
        assert controller.wait().code == 0
    check_moved(hosts, serial_tap)
    serial_tap.wait_verified(before_ns).check_one_history()


def test_a_lost_connection_is_joined_again_by_itself(
    hosts: TwoHosts, serial_tap: SerialTap
) -> None:
    """Both sides say that they wait, the controller hears of it at once, and the rest follows."""
    before_ns = time.monotonic_ns()
    words = migrate_words(hosts.destination, *SLOWLY, *IN_POSTCOPY)
    with hosts.source.start_virsh(*words) as controller:
        wait_for(lambda: is_copying(hosts.source), "memory on its way")
        hosts.source.said("migrate-postcopy", GUEST)
        wait_for(lambda: in_postcopy(hosts), "post-copy")
        hosts.source.said("domjobabort", GUEST, "--postcopy")
        assert controller.wait().code != 0
    wait_for(lambda: in_postcopy(hosts), "the connection again")
    hosts.source.said("migrate-setspeed", GUEST, "1000", "--postcopy")
    wait_for(lambda: hosts.source.qemus() == [], "the source's end")
    check_moved(hosts, serial_tap)
    serial_tap.wait_verified(before_ns).check_one_history()


def test_a_dead_controller_changes_nothing(hosts: TwoHosts, serial_tap: SerialTap) -> None:
    words = migrate_words(hosts.destination, *SLOWLY, *IN_POSTCOPY)
    with hosts.source.start_virsh(*words) as controller:
        wait_for(lambda: is_copying(hosts.source), "memory on its way")
        hosts.source.said("migrate-postcopy", GUEST)
        wait_for(lambda: in_postcopy(hosts), "post-copy")
        controller.kill()
        controller.wait()
    hosts.source.said("migrate-setspeed", GUEST, "1000", "--postcopy")
    wait_for(lambda: hosts.source.qemus() == [], "the source's end")
    check_moved(hosts, serial_tap)


def test_only_with_the_flag(hosts: TwoHosts) -> None:
    refusal = hosts.source.refused("migrate-postcopy", GUEST)
    assert "post-copy can only be started while outgoing migration is in progress" in refusal


def test_what_never_ran_there_is_taken_back(hosts: TwoHosts, serial_tap: SerialTap) -> None:
    """The destination dies before it decided: its QEMU goes with it, and the source's is left in
    a paused post-copy, from which QEMU itself knows no way back. (L2)"""
    before_ns = time.monotonic_ns()
    words = migrate_words(hosts.destination, *SLOWLY, *IN_POSTCOPY)
    with hosts.source.start_virsh(*words) as controller:
        wait_for(lambda: is_copying(hosts.source), "memory on its way")
        hosts.destination.freeze()
        hosts.source.said("migrate-postcopy", GUEST)
        wait_for(lambda: hosts.source.state(GUEST) == "paused (post-copy)", "post-copy")
        hosts.destination.kill()
        assert controller.wait().code != 0
    wait_for(lambda: hosts.destination.qemus() == [], "the guardian's work")
    hosts.destination.start()
    wait_for(lambda: hosts.source.state(GUEST).startswith("running"), "the guest again")
    check_stayed(hosts, serial_tap)
    serial_tap.wait_verified(before_ns).check_one_history()


def test_both_daemons_die_in_postcopy(hosts: TwoHosts, serial_tap: SerialTap) -> None:
    """QEMU goes on meanwhile, and each daemon finds its half again. (I14)"""
    words = migrate_words(hosts.destination, *SLOWLY, *IN_POSTCOPY)
    with hosts.source.start_virsh(*words) as controller:
        wait_for(lambda: is_copying(hosts.source), "memory on its way")
        hosts.source.said("migrate-postcopy", GUEST)
        wait_for(lambda: in_postcopy(hosts), "post-copy")
        for host in (hosts.source, hosts.destination):
            host.kill()
        controller.wait()
    for host in (hosts.destination, hosts.source):
        host.start()
    serial_tap.wait_more_ticks(5)
    wait_for(lambda: hosts.source.state(GUEST) == "paused (post-copy)", "the source's half")
    hosts.source.said("migrate-setspeed", GUEST, "1000", "--postcopy")
    wait_for(lambda: hosts.source.qemus() == [], "the source's end")
    wait_for(lambda: hosts.destination.state(GUEST) == "running (migrated)", "the end there")
    check_moved(hosts, serial_tap)


def test_sterna_starts_it_after_one_pass(hosts: TwoHosts, serial_tap: SerialTap) -> None:
    words = ("migrate", GUEST, hosts.destination.uri, "--postcopy", "--bandwidth", "4")
    sterna(hosts.source.root, *words, timeout_s=90).check()
    check_moved(hosts, serial_tap)
    assert "POSTCOPY_ACTIVE" in hosts.source.log_text()
