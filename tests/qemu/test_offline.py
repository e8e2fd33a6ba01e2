"""`virsh migrate --offline`: a guest that does not run moves, with its definition."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from qemu.moving import GUEST, QUICK
from support.clients import Ran, Started
from support.fixtures import MakeGuest, TwoDaemons, TwoHosts
from support.host import Host
from support.processes import wait_for
from support.proxy import Gate, Kind, Proxy
from support.serial import SerialTap

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

FINISH = 306
OFFLINE = ("--offline", "--persistent")


@pytest.fixture
def defined(two_hosts: TwoHosts, tick_guest_xml: MakeGuest) -> TwoHosts:
    two_hosts.source.define(tick_guest_xml(GUEST, QUICK))
    return two_hosts


def migrate(hosts: TwoHosts, *options: str) -> Ran:
    words = ("migrate", GUEST, hosts.destination.uri, *OFFLINE, *options)
    return hosts.source.virsh(*words)


def lists(host: Host) -> set[str]:
    return host.guests("--all")


def test_offline(defined: TwoHosts, serial_tap: SerialTap) -> None:
    """It is defined at both then, as with libvirtd, and starts where it was moved to."""
    migrate(defined).check()
    assert lists(defined.source) == {GUEST}
    assert defined.destination.guests("--persistent", "--inactive") == {GUEST}
    defined.destination.virsh("start", GUEST).check()
    serial_tap.wait_more_ticks(5).check_one_history()


def test_undefinesource(defined: TwoHosts) -> None:
    migrate(defined, "--undefinesource").check()
    assert lists(defined.source) == set()
    assert defined.destination.guests("--persistent", "--inactive") == {GUEST}
    # And back: the definition goes where it came from.
    back = TwoHosts(defined.destination, defined.source)
    migrate(back, "--undefinesource").check()
    assert lists(defined.destination) == set()
    assert lists(defined.source) == {GUEST}


def test_dname(defined: TwoHosts) -> None:
    migrate(defined, "--dname", "renamed", "--undefinesource").check()
    assert (lists(defined.source), lists(defined.destination)) == (set(), {"renamed"})


def test_without_persistent_it_is_refused(defined: TwoHosts) -> None:
    told = defined.source.refused("migrate", GUEST, defined.destination.uri, "--offline")
    assert "offline migration must be specified with the persistent flag set" in told
    assert lists(defined.destination) == set()


def test_a_stale_copy_does_not_start(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    """Where we promise more than libvirtd: it is defined at both, and runs at one (L1)."""
    hosts = two_daemons
    hosts.source.define(tick_guest_xml(GUEST, QUICK))
    migrate(hosts).check()
    hosts.destination.virsh("start", GUEST).check()
    assert "belongs to beta: it runs on host beta" in hosts.source.refused("start", GUEST)
    serial_tap.wait_more_ticks(5).check_one_history()
    # A guest that runs is in two places if only its definition goes.
    back = TwoHosts(hosts.destination, hosts.source)
    assert "domain is running" in migrate(back).err


@contextlib.contextmanager
def at_finish(hosts: TwoHosts, kind: Kind) -> Iterator[tuple[Gate, Started]]:
    """A virsh whose Finish, or the answer to it, does not get through, and then is lost."""
    gate = Gate(FINISH, kind)
    path = hosts.destination.root.with_name("p.sock")
    with Proxy(path, hosts.destination.socket, gate) as proxy:
        words = ("migrate", GUEST, proxy.uri, *OFFLINE, "--undefinesource")
        with hosts.source.start_virsh(*words) as virsh:
            gate.wait_reached()
            yield gate, virsh
            gate.opened.set()


def test_a_client_that_dies_before_finish_leaves_no_ghost(defined: TwoHosts) -> None:
    """Autokill, without a QEMU (W10): the name is free again, and the guest can move."""
    with at_finish(defined, Kind.CALL) as (gate, virsh):
        assert lists(defined.destination) == {GUEST}
        virsh.kill()
        gate.opened.set()
        wait_for(lambda: lists(defined.destination) == set(), "the destination to forget it")
    assert lists(defined.source) == {GUEST}
    migrate(defined, "--undefinesource").check()
    assert (lists(defined.source), lists(defined.destination)) == (set(), {GUEST})


def test_a_client_that_dies_after_finish(defined: TwoHosts) -> None:
    """The source asks by itself what was decided, and takes its own definition away (L1)."""
    with at_finish(defined, Kind.REPLY) as (_gate, virsh):
        virsh.kill()
    wait_for(lambda: lists(defined.source) == set(), "the source to hear that it is away")
    assert defined.destination.guests("--persistent", "--inactive") == {GUEST}


@pytest.mark.parametrize("which", ["source", "destination"])
def test_a_daemon_that_dies_after_finish(
    two_daemons: TwoDaemons, tick_guest_xml: MakeGuest, which: str
) -> None:
    """What was decided is on both disks (L1, L2)."""
    hosts = two_daemons
    hosts.source.define(tick_guest_xml(GUEST, QUICK))
    with at_finish(hosts, Kind.REPLY) as (_gate, virsh):
        daemon = getattr(hosts, which)
        daemon.kill()
        daemon.restart()
        virsh.kill()
    wait_for(lambda: lists(hosts.source) == set(), "the source to hear that it is away")
    assert hosts.destination.guests("--persistent", "--inactive") == {GUEST}


def test_an_answer_that_is_lost(defined: TwoHosts) -> None:
    """virsh says to the source that it was not taken; the source asks, and says that it was."""
    with at_finish(defined, Kind.REPLY) as (gate, virsh):
        gate.opened.set()
        assert virsh.wait().code
    wait_for(lambda: lists(defined.source) == set(), "the source to hear that it is away")
    assert defined.destination.guests("--persistent", "--inactive") == {GUEST}
