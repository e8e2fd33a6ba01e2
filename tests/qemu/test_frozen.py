"""A QEMU that is stopped by a signal: it is shown as such, and holds up nobody else. (L6)"""

from __future__ import annotations

import os
import signal
import time

import pytest

from qemu.moving import GUEST, LONG, SLOWLY, check_moved, check_stayed, is_copying, migrate_words
from support.clients import sterna
from support.daemon import Daemon
from support.fixtures import Hosts, MakeGuest, TwoDaemons
from support.processes import wait_for
from support.serial import SerialTap

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

SILENCE_S = 2
"""Set for these tests; five seconds by default."""


@pytest.fixture
def pair(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> TwoDaemons:
    config = tmp_path_factory.mktemp("config") / "sternad.toml"
    config.write_text(f"peer_silence_s = {SILENCE_S}\n")
    options = ("--config", str(config))
    return TwoDaemons(hosts.start("alpha", *options), hosts.start("beta", *options))


def freeze(daemon: Daemon) -> int:
    [qemu] = daemon.qemus()
    os.kill(qemu.pid, signal.SIGSTOP)
    return qemu.pid


def test_it_is_shown_and_holds_up_nobody(
    hosts: Hosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    daemon = hosts.start("alpha")
    daemon.create(tick_guest_xml(GUEST))
    serial_tap.wait_more_ticks(3)
    pid = freeze(daemon)
    assert f"kill -CONT {pid}" in daemon.said("dominfo", GUEST)
    assert daemon.said("domcontrol", GUEST).startswith("occupied")
    assert "frozen: a signal has stopped its QEMU" in sterna(daemon.root, "show", GUEST).check().out
    began = time.monotonic()
    daemon.said("list")
    daemon.said("domstate", GUEST)
    other = tick_guest_xml("other").replace(f" path='{serial_tap.path}'", " path='/dev/null'")
    daemon.create(other.replace("<serial type='unix'>", "<serial type='null'>"))
    assert time.monotonic() - began < 10
    os.kill(pid, signal.SIGCONT)
    assert "kill -CONT" not in daemon.said("dominfo", GUEST)
    assert daemon.said("domcontrol", GUEST) == "ok"
    serial_tap.wait_more_ticks(3).check_one_history()


def test_a_destination_that_freezes_is_given_up(
    pair: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    """It takes nothing any more, and its kernel goes on saying that it lives. (I12)"""
    pair.source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks(5)
    with pair.source.start_virsh(*migrate_words(pair.destination, *SLOWLY)) as virsh:
        wait_for(lambda: is_copying(pair.source), "memory on its way")
        freeze(pair.destination)
        told = virsh.wait().err
    # In whose words depends on who notices first: the kernel's timeout, or our look at the bytes.
    assert "domain 'mover' runs on here" in told
    check_stayed(pair, serial_tap)
    pair.source.virsh(*migrate_words(pair.destination), timeout_s=60).check()
    check_moved(pair, serial_tap)
