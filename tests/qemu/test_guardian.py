"""The destination's daemon, its guardian, or both die: no orphan, and no decided guest is hurt."""

from __future__ import annotations

import os
import signal
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu.moving import GUEST, LONG, QUICK, SLOWLY, check_moved, is_copying, migrate_words
from support import dying_daemon
from support.clients import Started, start_virsh
from support.daemon import Daemon
from support.fixtures import Hosts, MakeGuest, TwoDaemons
from support.processes import Process, Watched, resident_kib, wait_for
from support.proxy import Packet, Proxy
from support.serial import SerialTap

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

REAP_MS_MEDIAN_MAX = 50
REAP_MS_MAX = 300
CONFIRM = 307
ROUNDS = 5


def guardians(daemon: Daemon) -> list[Process]:
    return [p for p in daemon.processes() if any("guardian_program" in word for word in p.argv)]


def guardian(daemon: Daemon) -> int:
    [found] = guardians(daemon)
    return found.pid


@pytest.fixture
def copying(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> Iterator[tuple[TwoDaemons, Watched, Started]]:
    """A migration in the middle of Perform: the hosts, the incoming QEMU, the controller."""
    two_daemons.source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks(5)
    words = migrate_words(two_daemons.destination, *SLOWLY)
    with two_daemons.source.start_virsh(*words) as controller:
        yield two_daemons, incoming(two_daemons), controller


def incoming(hosts: TwoDaemons) -> Watched:
    """The QEMU that the guest is being copied to."""
    [qemu] = wait_for(hosts.destination.qemus, "incoming QEMU")
    wait_for(lambda: is_copying(hosts.source), "memory on its way")
    return Watched(qemu.pid)


def check_runs_on(hosts: TwoDaemons, tap: SerialTap) -> None:
    """It goes on where it was, and nothing is at the destination."""
    wait_for(lambda: hosts.source.state(GUEST).startswith("running"), "the guest at its source")
    assert hosts.destination.qemus() == []
    assert hosts.destination.guests("--all") == set()
    tap.wait_more_ticks(10).check_one_history()


@pytest.mark.timing
def test_the_undecided_die_at_once_with_the_daemon(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    """L3, by the clock."""
    hosts, took_ms = two_daemons, []
    hosts.source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks(5)
    for _ in range(ROUNDS):
        with hosts.source.start_virsh(*migrate_words(hosts.destination, *SLOWLY)) as controller:
            watched = incoming(hosts)
            killed_ns = hosts.destination.kill()
            took_ms.append((watched.wait_gone() - killed_ns) / 1e6)
            watched.close()
            controller.wait()
        hosts.destination.start()
        check_runs_on(hosts, serial_tap)
    assert statistics.median(took_ms) <= REAP_MS_MEDIAN_MAX, took_ms
    assert max(took_ms) <= REAP_MS_MAX, took_ms


def test_stopped_in_good_order_it_leaves_nothing(
    copying: tuple[TwoDaemons, Watched, Started], serial_tap: SerialTap
) -> None:
    """The connections end with the daemon, and with them what they answer for."""
    hosts, watched, controller = copying
    assert hosts.destination.stop() == 0
    watched.wait_gone(1)
    watched.close()
    assert guardians(hosts.destination) == []
    controller.wait()
    hosts.destination.start()
    check_runs_on(hosts, serial_tap)


def test_a_guardian_that_dies_is_replaced(
    copying: tuple[TwoDaemons, Watched, Started], serial_tap: SerialTap
) -> None:
    """The new one knows of the guest that is under way."""
    hosts, watched, controller = copying
    first = guardian(hosts.destination)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: [p.pid for p in guardians(hosts.destination)] not in ([], [first]), "another")
    assert "guardian.died" in hosts.destination.log_text()
    assert watched.alive
    hosts.destination.kill()
    watched.wait_gone(5)
    watched.close()
    controller.wait()
    hosts.destination.start()
    check_runs_on(hosts, serial_tap)


def test_both_die_and_the_next_start_cleans_up(
    copying: tuple[TwoDaemons, Watched, Started], serial_tap: SerialTap
) -> None:
    hosts, watched, controller = copying
    hosts.destination.freeze()  # or it would replace it
    os.kill(guardian(hosts.destination), signal.SIGKILL)
    hosts.destination.kill()
    assert watched.alive
    hosts.destination.start()
    watched.wait_gone(1)
    watched.close()
    controller.wait()
    check_runs_on(hosts, serial_tap)
    # Name, uuid and port are free again.
    hosts.source.virsh("migrate-setspeed", GUEST, "1000").check()
    hosts.source.virsh(*migrate_words(hosts.destination), timeout_s=60).check()
    check_moved(hosts, serial_tap)


def lose_confirm(packet: Packet) -> bytes | None:
    """The controller's word that it failed, which is wrong, never reaches the source. (W1)"""
    return None if packet.is_call(CONFIRM) else packet.data


@pytest.mark.parametrize("moment", dying_daemon.MOMENTS)
def test_killed_at_a_moment(
    moment: str, hosts: Hosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    """Before the decision it takes its QEMU with it; after it the guest runs there, at last."""
    prefix = [sys.executable, str(Path(dying_daemon.__file__)), moment]
    pair = TwoDaemons(hosts.start("alpha"), hosts.start("beta", prefix=prefix))
    source, destination = pair.source, pair.destination
    source.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks(5)
    # Held from here on: it may be gone before we look for it again.
    watched, decided = Watched(guardian(destination)), moment in ("committed", "running")
    rule = lose_confirm if decided else None
    with (
        Proxy(source.root.with_name("p.sock"), source.socket, rule) as proxy,
        start_virsh(proxy.uri, *migrate_words(destination)),
    ):
        wait_for(lambda: not destination.alive, "its death")
        watched.wait_gone(5)
        watched.close()
        wait_for(lambda: len(destination.qemus()) == decided, "one QEMU there, or none")
        destination.kill()  # it is dead; this collects it
    destination.argv = destination.argv[len(prefix) :]
    destination.start()
    if decided:
        wait_for(lambda: destination.state(GUEST).startswith("running"), "the guest here")
        # It asks by itself, and gives its copy up.
        wait_for(lambda: not source.qemus(), "the source's copy given up")
        assert source.guests("--all") == set()
    else:
        check_runs_on(pair, serial_tap)
    serial_tap.wait_more_ticks(10).check_one_history()


def test_it_is_small(hosts: Hosts) -> None:
    """Measured: 10 MB, of which 4 MB are its own."""
    daemon = hosts.start("alpha")
    assert resident_kib(guardian(daemon)) < 16_000
