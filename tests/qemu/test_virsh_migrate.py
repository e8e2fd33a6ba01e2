"""`virsh migrate`, with every option that it has for pre-copy, and what goes with it."""

from __future__ import annotations

import re
import time

import pytest

from qemu.moving import (
    GUEST,
    LONG,
    QUICK,
    SLOWLY,
    check_moved,
    check_stayed,
    is_copying,
    job,
    migrate_words,
    slow_migration,
)
from support.daemon import free_port
from support.fixtures import MakeGuest, TwoHosts, from_environment
from support.processes import wait_for
from support.serial import SerialTap

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

ROUND_TRIPS = from_environment("STERNA_MIGRATIONS", 10)


@pytest.fixture
def running(two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> TwoHosts:
    """The quick guest runs at the source, transient."""
    two_hosts.source.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks(5)
    return two_hosts


@pytest.fixture
def long_running(two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> TwoHosts:
    """A guest that takes its time to be moved."""
    two_hosts.source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks(5)
    return two_hosts


def migrate(hosts: TwoHosts, *options: str, live: bool = True) -> str:
    words = migrate_words(hosts.destination, *options, live=live)
    return hosts.source.said(*words, timeout_s=90)


def test_live(running: TwoHosts, serial_tap: SerialTap) -> None:
    """`migrate --live`: one history, and every page verified at the destination."""
    before_ns = time.monotonic_ns()
    migrate(running)
    check_moved(running, serial_tap)
    assert running.source.guests("--all") == set()
    history = serial_tap.wait_verified(before_ns)
    history.check_one_history()
    assert history.speakers == [0, 1]


def test_not_live(running: TwoHosts, serial_tap: SerialTap) -> None:
    """Without --live the guest stands still while its memory is copied."""
    migrate(running, live=False)
    check_moved(running, serial_tap)


def test_verbose(running: TwoHosts, serial_tap: SerialTap) -> None:
    """`migrate --verbose` shows how far it is."""
    words = migrate_words(running.destination, "--verbose")
    ran = running.source.virsh(*words).check()
    # Later virshs print decimals.
    assert re.search(r"Migration: \[100(\.00)? %\]", ran.out + ran.err)
    check_moved(running, serial_tap)


def test_a_migrated_guest_can_go_back(running: TwoHosts, serial_tap: SerialTap) -> None:
    migrate(running)
    back = TwoHosts(running.destination, running.source)
    migrate(back)
    check_moved(back, serial_tap)


def test_persistent_and_undefinesource(
    two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    two_hosts.source.define(tick_guest_xml(GUEST, QUICK))
    two_hosts.source.virsh("start", GUEST).check()
    serial_tap.wait_more_ticks(5)
    migrate(two_hosts, "--persistent")
    check_moved(two_hosts, serial_tap)
    assert two_hosts.source.state(GUEST) == "shut off (migrated)"
    assert two_hosts.destination.guests("--persistent") == {GUEST}
    back = TwoHosts(two_hosts.destination, two_hosts.source)
    migrate(back, "--undefinesource")
    check_moved(back, serial_tap)
    assert two_hosts.destination.guests("--all") == set()
    assert two_hosts.source.guests("--persistent") == {GUEST}


def test_suspend(running: TwoHosts, serial_tap: SerialTap) -> None:
    """--suspend: it arrives paused."""
    migrate(running, "--suspend")
    assert running.destination.state(GUEST) == "paused (user)"
    assert running.source.qemus() == []
    running.destination.virsh("resume", GUEST).check()
    serial_tap.wait_more_ticks(5).check_one_history()


def test_a_paused_guest_stays_paused(running: TwoHosts, serial_tap: SerialTap) -> None:
    running.source.virsh("suspend", GUEST).check()
    migrate(running)
    assert running.destination.said("domstate", GUEST) == "paused"
    running.destination.virsh("resume", GUEST).check()
    serial_tap.wait_more_ticks(5).check_one_history()


def test_dname(running: TwoHosts, serial_tap: SerialTap) -> None:
    migrate(running, "--dname", "renamed")
    check_moved(running, serial_tap, name="renamed")
    assert running.destination.guests() == {"renamed"}


def test_xml(running: TwoHosts, serial_tap: SerialTap) -> None:
    xml = running.source.said("dumpxml", GUEST, "--migratable")
    changed = xml.replace("</name>", "</name>\n  <title>given at the destination</title>", 1)
    migrate(running, "--xml", running.source.file("dest.xml", changed))
    check_moved(running, serial_tap)
    assert running.destination.said("desc", GUEST, "--title") == "given at the destination"


def test_xml_that_is_another_machine_is_refused(running: TwoHosts, serial_tap: SerialTap) -> None:
    xml = running.source.said("dumpxml", GUEST, "--migratable")
    other = xml.replace("<vcpu placement='static'>1<", "<vcpu placement='static'>2<")
    path = running.source.file("other.xml", other)
    told = running.source.refused(*migrate_words(running.destination, "--xml", path))
    assert "does not match source" in told
    check_stayed(running, serial_tap)


def test_persistent_xml(
    two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    two_hosts.source.define(tick_guest_xml(GUEST, QUICK))
    two_hosts.source.virsh("start", GUEST).check()
    serial_tap.wait_more_ticks(5)
    xml = two_hosts.source.said("dumpxml", GUEST, "--inactive")
    changed = xml.replace("</name>", "</name>\n  <title>kept</title>", 1)
    path = two_hosts.source.file("persistent.xml", changed)
    migrate(two_hosts, "--persistent", "--persistent-xml", path)
    check_moved(two_hosts, serial_tap)
    assert two_hosts.destination.said("desc", GUEST, "--title", "--config") == "kept"


def test_bandwidth(long_running: TwoHosts, serial_tap: SerialTap) -> None:
    """`migrate --bandwidth` is the speed that migrate-getspeed then tells."""
    with slow_migration(long_running):
        assert long_running.source.said("migrate-getspeed", GUEST) == SLOWLY[1]
    check_stayed(long_running, serial_tap)


def test_timeout_suspends(long_running: TwoHosts, serial_tap: SerialTap) -> None:
    """`migrate --timeout`: after that the guest is suspended, so that its move ends."""
    words = migrate_words(long_running.destination, *SLOWLY, "--timeout", "1")
    with long_running.source.start_virsh(*words) as controller:
        wait_for(lambda: long_running.source.said("domstate", GUEST) == "paused", "the suspension")
        long_running.source.virsh("migrate-setspeed", GUEST, "1000").check()
        controller.wait().check()
    check_moved(long_running, serial_tap)


def test_migrateuri(running: TwoHosts, serial_tap: SerialTap) -> None:
    if "alpha" not in running.source.name:
        pytest.skip("the address is another one there")
    migrate(running, "--migrateuri", f"tcp://127.0.0.1:{free_port()}")
    check_moved(running, serial_tap)


def test_migrateuri_of_an_unknown_sort_is_refused(running: TwoHosts, serial_tap: SerialTap) -> None:
    words = migrate_words(running.destination, "--migrateuri", "foo://127.0.0.1:1")
    assert "unsupported scheme foo in migration URI" in running.source.refused(*words)
    check_stayed(running, serial_tap)


def test_unsafe(running: TwoHosts, serial_tap: SerialTap) -> None:
    migrate(running, "--unsafe")
    check_moved(running, serial_tap)


def test_auto_converge(running: TwoHosts, serial_tap: SerialTap) -> None:
    migrate(
        *(running, "--auto-converge", "--auto-converge-initial", "30"),
        *("--auto-converge-increment", "10"),
    )
    check_moved(running, serial_tap)


def test_domjobinfo(long_running: TwoHosts, serial_tap: SerialTap) -> None:
    with slow_migration(long_running):
        told = job(long_running.source)
        assert told["Job type"] == "Unbounded"
        assert told["Operation"] == "Outgoing migration"
        assert {"Time elapsed", "Data remaining", "Memory total", "Iteration"} <= set(told)
        # L6: what only reads does not wait for the migration, on either side.
        assert long_running.destination.said("domstate", GUEST) == "paused"
        refused = long_running.destination.refused("domjobinfo", GUEST)
        assert "available only on the source host" in refused
    check_stayed(long_running, serial_tap)


def test_domjobinfo_completed(running: TwoHosts, serial_tap: SerialTap) -> None:
    migrate(running)
    told = running.destination.said("domjobinfo", GUEST, "--completed", "--keep-completed")
    assert "Total downtime" in told
    assert "Completed" in told
    check_moved(running, serial_tap)


def test_domjobabort(long_running: TwoHosts, serial_tap: SerialTap) -> None:
    words = migrate_words(long_running.destination, *SLOWLY)
    with long_running.source.start_virsh(*words) as controller:
        wait_for(lambda: is_copying(long_running.source), "memory on its way")
        long_running.source.virsh("domjobabort", GUEST).check()
        ended = controller.wait()
    assert ended.code
    assert "canceled by client" in ended.err
    check_stayed(long_running, serial_tap)
    assert "no job is active" in long_running.source.refused("domjobabort", GUEST)


def test_migrate_setspeed_and_getspeed(long_running: TwoHosts, serial_tap: SerialTap) -> None:
    long_running.source.virsh("migrate-setspeed", GUEST, "4").check()
    assert long_running.source.said("migrate-getspeed", GUEST) == "4"
    words = migrate_words(long_running.destination)
    with long_running.source.start_virsh(*words) as controller:
        wait_for(lambda: is_copying(long_running.source), "memory on its way")
        long_running.source.virsh("migrate-setspeed", GUEST, "1000").check()
        controller.wait().check()
    check_moved(long_running, serial_tap)


def test_migrate_setmaxdowntime(long_running: TwoHosts, serial_tap: SerialTap) -> None:
    source = long_running.source
    source.virsh("migrate-setmaxdowntime", GUEST, "700").check()
    assert source.said("migrate-getmaxdowntime", GUEST) == "700"
    with slow_migration(long_running):
        source.virsh("migrate-setmaxdowntime", GUEST, "200").check()
        assert source.said("migrate-getmaxdowntime", GUEST) == "200"
    check_stayed(long_running, serial_tap)


def test_a_second_migration_of_the_same_guest_is_refused(
    long_running: TwoHosts, serial_tap: SerialTap
) -> None:
    with slow_migration(long_running):
        told = long_running.source.refused(*migrate_words(long_running.destination))
        assert "another migration job is already running for domain 'mover'" in told
    check_stayed(long_running, serial_tap)


def test_there_it_is_already(
    running: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    running.destination.define(tick_guest_xml(GUEST, QUICK))
    told = running.source.refused(*migrate_words(running.destination))
    assert "already exists with uuid" in told
    assert running.source.state(GUEST).startswith("running")
    serial_tap.wait_more_ticks(5).check_one_history()


@pytest.mark.timeout(120 + 10 * ROUND_TRIPS)
def test_back_and_forth(
    two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    """Many moves of a guest that dirties memory: one history, every page verified after each."""
    two_hosts.source.create(tick_guest_xml(GUEST, QUICK))
    here, there = two_hosts.source, two_hosts.destination
    serial_tap.wait_more_ticks(5)
    for _ in range(ROUND_TRIPS):
        here.virsh(*migrate_words(there), timeout_s=90).check()
        serial_tap.wait_verified(time.monotonic_ns())
        assert (len(here.qemus()), len(there.qemus())) == (0, 1)
        here, there = there, here
    history = serial_tap.history()
    history.check_one_history()
    assert len(history.speakers) == ROUND_TRIPS + 1
