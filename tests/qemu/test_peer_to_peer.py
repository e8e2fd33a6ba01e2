"""Migrations that the source drives itself, direct and through the connection of the daemons."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qemu.moving import GUEST, LONG, QUICK, SLOWLY, check_moved, check_stayed, is_copying
from support.fixtures import MakeGuest, TwoHosts
from support.processes import wait_for
from support.serial import SerialTap

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

ROADS = pytest.mark.parametrize(
    "road", [("--p2p",), ("--p2p", "--tunnelled")], ids=["direct", "tunnelled"]
)
Road = tuple[str, ...]


def words(hosts: TwoHosts, road: Road, *options: str) -> list[str]:
    """virsh refuses `localhost`, and takes the address of loopback."""
    return ["migrate", "--live", *road, GUEST, hosts.destination.tcp_uri, *options]


@pytest.fixture
def start(
    two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> Callable[..., TwoHosts]:
    """Lets a guest run at the source."""

    def started(shape: object = QUICK) -> TwoHosts:
        two_hosts.source.create(tick_guest_xml(GUEST, shape))
        serial_tap.wait_more_ticks(5)
        return two_hosts

    return started


@ROADS
def test_there_and_back(start: Callable[..., TwoHosts], serial_tap: SerialTap, road: Road) -> None:
    hosts = start()
    for _ in range(2):
        hosts.source.said(*words(hosts, road), timeout_s=90)
        check_moved(hosts, serial_tap)
        assert hosts.source.guests("--all") == set()
        hosts = TwoHosts(hosts.destination, hosts.source)


@ROADS
def test_its_definition_goes_along_and_another_name(
    two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest, road: Road
) -> None:
    two_hosts.source.define(tick_guest_xml(GUEST, QUICK))
    two_hosts.source.virsh("start", GUEST).check()
    serial_tap.wait_more_ticks(5)
    more = ("--persistent", "--undefinesource", "--dname", "renamed")
    two_hosts.source.said(*words(two_hosts, road, *more), timeout_s=90)
    check_moved(two_hosts, serial_tap, name="renamed")
    assert two_hosts.destination.guests("--persistent") == {"renamed"}
    assert two_hosts.source.guests("--all") == set()


@ROADS
def test_whoever_asked_for_it_may_leave(
    start: Callable[..., TwoHosts], serial_tap: SerialTap, road: Road
) -> None:
    hosts = start(LONG)
    with hosts.source.start_virsh(*words(hosts, road, *SLOWLY)) as controller:
        wait_for(lambda: is_copying(hosts.source), "memory on its way")
        controller.kill()
    assert is_copying(hosts.source)
    hosts.source.said("migrate-setspeed", GUEST, "4096")
    wait_for(lambda: hosts.source.qemus() == [], "the guest to have left", timeout_s=60)
    wait_for(lambda: "running (migrated)" in hosts.destination.state(GUEST), "its running there")
    check_moved(hosts, serial_tap)


@ROADS
def test_an_abort_from_anywhere_ends_it(
    start: Callable[..., TwoHosts], serial_tap: SerialTap, road: Road
) -> None:
    hosts = start(LONG)
    with hosts.source.start_virsh(*words(hosts, road, *SLOWLY)) as controller:
        wait_for(lambda: is_copying(hosts.source), "memory on its way")
        hosts.source.said("domjobabort", GUEST)
        assert "canceled by client" in controller.wait().err
    check_stayed(hosts, serial_tap)


@ROADS
def test_the_destination_falls_away(
    start: Callable[..., TwoHosts], serial_tap: SerialTap, road: Road
) -> None:
    """Its daemon is killed: the autokill and the source's job hang on the same connection."""
    hosts = start(LONG)
    with hosts.source.start_virsh(*words(hosts, road, *SLOWLY)) as controller:
        wait_for(lambda: is_copying(hosts.source), "memory on its way")
        hosts.destination.kill()
        told = controller.wait()
    assert told.code
    assert f"domain '{GUEST}' runs on here" in told.err
    hosts.destination.start()
    check_stayed(hosts, serial_tap)


def test_nobody_there(start: Callable[..., TwoHosts], serial_tap: SerialTap) -> None:
    hosts = start()
    told = hosts.source.refused(
        "migrate", "--live", "--p2p", GUEST, "qemu+tcp://127.0.0.1:1/system"
    )
    assert "Failed to connect to remote libvirt URI qemu+tcp://127.0.0.1:1/system" in told
    check_stayed(hosts, serial_tap)


def test_a_destination_that_refuses_is_heard(
    start: Callable[..., TwoHosts], serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    """Its words come through, with where the guest is."""
    hosts = start()
    hosts.destination.define(tick_guest_xml(GUEST, QUICK))
    told = hosts.source.refused(*words(hosts, ("--p2p",)))
    assert "already exists with uuid" in told
    assert f"in prepare at the destination, domain '{GUEST}' runs on here" in told
    hosts.destination.virsh("undefine", GUEST).check()
    check_stayed(hosts, serial_tap)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--migrateuri", "tcp://127.0.0.1"), "migration URI is not supported by tunnelled"),
        (("--listen-address", "127.0.0.1"), "listen address is not supported by tunnelled"),
    ],
)
def test_a_tunnel_has_no_addresses(
    start: Callable[..., TwoHosts], serial_tap: SerialTap, options: tuple[str, ...], why: str
) -> None:
    hosts = start()
    assert why in hosts.source.refused(*words(hosts, ("--p2p", "--tunnelled"), *options))
    check_stayed(hosts, serial_tap)
