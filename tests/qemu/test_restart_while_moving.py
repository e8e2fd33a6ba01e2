"""A source's daemon that ends while a guest is on its way, and is started again."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from qemu.moving import GUEST, LONG, SLOWLY, check_moved, is_copying, migrate_words
from support.daemon import Daemon
from support.fixtures import MakeGuest, TwoDaemons
from support.processes import wait_for
from support.serial import SerialTap

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]


@pytest.mark.parametrize("end", [Daemon.kill, Daemon.stop])
def test_the_guest_runs_on_and_moves_later(
    end: Callable[[Daemon], int],
    two_daemons: TwoDaemons,
    serial_tap: SerialTap,
    tick_guest_xml: MakeGuest,
) -> None:
    source, destination = two_daemons.source, two_daemons.destination
    source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks(5)
    with source.start_virsh(*migrate_words(destination, *SLOWLY)) as controller:
        wait_for(lambda: is_copying(source), "memory on its way")
        end(source)
        assert controller.wait().code != 0
    wait_for(lambda: destination.qemus() == [], "the destination's end")
    source.start()
    wait_for(lambda: source.state(GUEST).startswith("running"), "the guest to run")
    serial_tap.wait_more_ticks(10).check_one_history()
    source.virsh(*migrate_words(destination), timeout_s=60).check()
    check_moved(two_daemons, serial_tap)


def test_the_guest_runs_on_without_its_daemon(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    """Nobody would take the destination's word, and the controller hangs. The guardian ends the
    migration, so that the guest need not stand until somebody starts the daemon. (L2, W5)"""
    source, destination = two_daemons.source, two_daemons.destination
    source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks(5)
    with source.start_virsh(*migrate_words(destination, *SLOWLY)) as controller:
        wait_for(lambda: is_copying(source), "memory on its way")
        controller.process.send_signal(signal.SIGSTOP)
        source.kill()
        wait_for(lambda: destination.qemus() == [], "the destination's end")
        serial_tap.wait_more_ticks(50)
    assert "guardian.kept" in source.log_text()
    source.start()
    assert source.state(GUEST).startswith("running")
    source.virsh(*migrate_words(destination), timeout_s=60).check()
    check_moved(two_daemons, serial_tap)
