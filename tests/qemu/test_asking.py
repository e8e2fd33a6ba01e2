"""The source asks the destination what it decided, by itself, whoever else is gone. (L2, L5)"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from qemu.moving import GUEST, QUICK, check_moved, check_stayed, migrate_words
from sterna.cli.exits import Exit
from support.clients import start_virsh, sterna
from support.daemon import Daemon
from support.fixtures import MakeGuest, TwoDaemons
from support.leaks import door_port
from support.processes import wait_for
from support.proxy import HEADER, Cut, Gate, Kind, Packet, Proxy
from support.serial import SerialTap

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

FINISH = 306
CONFIRM = 307
SETTLED_S = 1.0
"""How soon the guest is in exactly one place, once nobody drives its migration any more."""


@pytest.fixture
def pair(two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> TwoDaemons:
    two_daemons.source.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks(5)
    return two_daemons


@pytest.fixture
def finish(pair: TwoDaemons) -> Iterator[Gate]:
    """Finish's call waits at this gate, and is lost when it opens."""
    yield (gate := Gate(FINISH))
    gate.opened.set()


def through(pair: TwoDaemons, rule: Gate) -> Proxy:
    """A way to the destination on which `rule` holds."""
    return Proxy(pair.destination.root.with_name("p.sock"), pair.destination.socket, rule)


def runs_at(daemon: Daemon) -> bool:
    return GUEST in daemon.guests() and daemon.state(GUEST).startswith("running")


def wait_runs_only_at(there: Daemon, other: Daemon, since: float) -> None:
    """Within a second; the other's QEMU is gone by then."""
    wait_for(lambda: runs_at(there) and not other.qemus(), "the guest in one place", every_s=0.005)
    assert time.monotonic() - since <= SETTLED_S


def lose_destination(pair: TwoDaemons, finish: Gate) -> None:
    """Its daemon and the controller die before Finish: the source is in doubt, and says so."""
    source = pair.source
    with through(pair, finish) as proxy, source.start_virsh("migrate", GUEST, proxy.uri) as virsh:
        finish.wait_reached()
        pair.destination.kill()
        virsh.kill()
    wait_for(lambda: "in doubt since" in source.said("dominfo", GUEST), "the doubt to be seen")
    assert source.state(GUEST).startswith("paused")


def test_controller_killed_between_perform_and_finish(
    pair: TwoDaemons, finish: Gate, serial_tap: SerialTap
) -> None:
    source = pair.source
    with through(pair, finish) as proxy, source.start_virsh("migrate", GUEST, proxy.uri) as virsh:
        finish.wait_reached()
        since = virsh.kill() / 1e9
        finish.opened.set()
        wait_runs_only_at(source, pair.destination, since)
    check_stayed(pair, serial_tap)


def test_controller_killed_when_finish_ran_and_its_reply_was_under_way(
    pair: TwoDaemons, serial_tap: SerialTap
) -> None:
    gate = Gate(FINISH, Kind.REPLY)
    source = pair.source
    with through(pair, gate) as proxy, source.start_virsh("migrate", GUEST, proxy.uri) as virsh:
        gate.wait_reached()
        since = virsh.kill() / 1e9
        gate.opened.set()
        wait_runs_only_at(pair.destination, source, since)
    check_moved(pair, serial_tap)


def test_a_confirm_that_says_cancelled_though_the_guest_runs_there(
    pair: TwoDaemons, serial_tap: SerialTap
) -> None:
    """virsh, whose Finish got no reply, believes that it failed. The source asks first. (W2)"""

    def lose_reply(packet: Packet) -> bytes:
        if packet.is_reply(FINISH):
            raise Cut
        return packet.data

    ways = pair.source.root.with_name("s.sock"), pair.destination.root.with_name("d.sock")
    with (
        Proxy(ways[0], pair.source.socket) as to_source,
        Proxy(ways[1], pair.destination.socket, lose_reply) as to_destination,
        start_virsh(to_source.uri, "migrate", "--live", GUEST, to_destination.uri) as virsh,
    ):
        to_source.wait_packet(lambda packet: packet.is_call(CONFIRM))
        virsh.wait()
    assert pair.source.guests("--all") == set()
    check_moved(pair, serial_tap)


@pytest.mark.parametrize("which", ["source", "destination"])
def test_the_destination_is_away_and_a_daemon_starts_again(
    which: str, pair: TwoDaemons, finish: Gate, serial_tap: SerialTap
) -> None:
    """Without an answer the guest stays held; it runs once there is one, over any restart."""
    source, destination = pair.source, pair.destination
    lose_destination(pair, finish)
    refused = source.virsh("resume", GUEST)
    assert refused.code
    assert "another host" in refused.err
    if which == "source":
        source.kill()
        source.start()
        assert source.state(GUEST).startswith("paused")
    destination.start()
    wait_for(lambda: runs_at(source), "the answer")
    check_stayed(pair, serial_tap)


def test_a_restart_in_doubt_does_not_forget_who_has_it(
    pair: TwoDaemons, serial_tap: SerialTap
) -> None:
    """The source starts again while the guest runs there, hears so, and starts no copy of its own
    from the definition that is still here."""
    gate = Gate(FINISH, Kind.REPLY)
    source, destination = pair.source, pair.destination
    source.define(source.said("dumpxml", GUEST, "--inactive"))
    with through(pair, gate) as proxy, source.start_virsh("migrate", GUEST, proxy.uri) as virsh:
        gate.wait_reached()
        source.kill()
        virsh.kill()
        gate.opened.set()
    source.start()
    wait_for(lambda: not source.qemus(), "the copy given up")
    assert "it runs on host beta" in source.refused("start", GUEST)
    assert runs_at(destination)
    serial_tap.wait_more_ticks(3).check_one_history()


def test_the_source_is_away_while_the_guest_begins_to_run_there(
    pair: TwoDaemons, serial_tap: SerialTap
) -> None:
    """It comes back, asks, and gives its copy up."""
    gate = Gate(FINISH, Kind.REPLY)
    source = pair.source
    with through(pair, gate) as proxy, source.start_virsh("migrate", GUEST, proxy.uri) as virsh:
        gate.wait_reached()
        source.kill()
        gate.opened.set()
        virsh.wait()
    assert runs_at(pair.destination)
    source.start()
    wait_for(lambda: not source.qemus(), "the copy given up")
    check_moved(pair, serial_tap)


@pytest.mark.parametrize(("action", "left"), [("--take-back", 1), ("--give-up", 0)])
def test_a_lost_destination_is_reconciled_by_force(
    action: str, left: int, pair: TwoDaemons, finish: Gate
) -> None:
    """Without force it only shows what is known, and says what the unsafe ways risk."""
    source = pair.source
    assert sterna(source.root, "reconcile", GUEST).check().out == (f"{GUEST} is not in doubt\n")
    lose_destination(pair, finish)
    shown = sterna(source.root, "reconcile", GUEST)
    assert shown.code == Exit.IN_DOUBT
    for words in ("memory sent completely", "beta", "tcp://127.0.0.1:", "--take-back --force"):
        assert words in shown.out
    refused = sterna(source.root, "reconcile", GUEST, action)
    assert refused.code == Exit.FAILED
    assert "wants force" in refused.err
    assert source.state(GUEST).startswith("paused")
    settled = sterna(source.root, "reconcile", GUEST, action, "--force").check()
    assert settled.out.endswith("by force\n")
    assert len(source.qemus()) == left
    assert runs_at(source) == bool(left)


def test_a_guest_that_was_handed_over_is_not_started_again(
    pair: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    """Its old definition is still there; only when the holder has no use for it may it be used."""
    source, destination = pair.source, pair.destination
    source.define(source.said("dumpxml", GUEST, "--inactive"))
    source.virsh(*migrate_words(destination)).check()
    assert "it runs on host beta" in source.refused("start", GUEST)
    shown = sterna(source.root, "reconcile", GUEST).check().out
    assert shown == f"{GUEST} was handed over to beta\n"
    destination.kill()
    assert "nobody knows whether it runs there" in source.refused("start", GUEST)
    refused = sterna(source.root, "reconcile", GUEST, "--take-back")
    assert refused.code == Exit.FAILED
    assert "wants force" in refused.err
    destination.start()
    assert source.qemus() == []
    serial_tap.wait_more_ticks(3).check_one_history()
    destination.said("destroy", GUEST)
    source.said("start", GUEST)
    assert runs_at(source)
    assert "it runs on host alpha" in destination.refused(
        "create", destination.file("again.xml", source.said("dumpxml", GUEST))
    )


# -- the door --------------------------------------------------------------------------------------


def test_the_door_opens_for_the_first_guest_and_is_kept(pair: TwoDaemons) -> None:
    assert door_port(pair.source) is None
    assert door_port(pair.destination) is None
    pair.source.virsh(*migrate_words(pair.destination)).check()
    assert door_port(pair.source) is None
    port = door_port(pair.destination)
    assert port is not None
    pair.destination.stop()
    pair.destination.start()
    assert door_port(pair.destination) == port
    with socket.create_connection(("127.0.0.1", port), 5) as asker:
        asker.settimeout(5)
        # Sterna's program, the first procedure, and nothing that it could read.
        asker.sendall(HEADER.pack(HEADER.size, 0x53746572, 1, 1, 0, 1, 0))
        [length] = struct.unpack(">I", asker.recv(4, socket.MSG_WAITALL))
        answer = HEADER.unpack(struct.pack(">I", length) + asker.recv(HEADER.size - 4))
        assert answer[-1] == 1, "an error, and not the guest's end"
    assert runs_at(pair.destination)
