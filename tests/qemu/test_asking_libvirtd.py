"""A source that drives to a libvirtd asks that, in its own protocol, what became of the guest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu.moving import GUEST, QUICK
from support.clients import STERNA, Started
from support.daemon import Daemon
from support.fixtures import Hosts, MakeGuest
from support.host import Host
from support.processes import wait_for
from support.proxy import Gate, Kind, Proxy
from support.real_libvirtd import available, two_libvirtds
from support.serial import SerialTap

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.clients,
    pytest.mark.skipif(not available(), reason="needs root and libvirtd"),
    pytest.mark.timeout(120),
]

FINISH = 306


@pytest.fixture
def libvirtd(short_dir: Path) -> Iterator[Host]:
    with two_libvirtds(short_dir) as (one, _):
        yield one


@pytest.fixture
def sterna(hosts: Hosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> Daemon:
    """The guest runs there."""
    daemon = hosts.start("alpha")
    daemon.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks()
    return daemon


def cut_at(gate: Gate, sterna: Daemon, libvirtd: Host, directory: Path) -> Started:
    """The client's end of a migration whose link between the daemons is cut at the gate."""
    with Proxy(directory / "proxy", libvirtd.socket, gate) as proxy:
        data = f"unix://{directory}/data.sock"
        words = ("migrate", "-c", sterna.uri, GUEST, proxy.uri, "--migrate-uri", data)
        with Started([*STERNA, *words]) as moving:
            gate.wait_reached()
            gate.opened.set()
            # It may be answered only once the source can ask again.
            ended = moving.wait(60)
    assert ended.code in (0, 5), ended.err
    return moving


def test_finishs_answer_is_lost(
    sterna: Daemon, libvirtd: Host, serial_tap: SerialTap, short_dir: Path
) -> None:
    """It runs there: the source gives its copy up, though nobody has told it so."""
    moving = cut_at(Gate(FINISH, Kind.REPLY), sterna, libvirtd, short_dir)
    assert moving.process.returncode == 0
    wait_for(lambda: sterna.qemus() == [], "the source's end")
    assert libvirtd.state(GUEST) == "running (migrated)"
    serial_tap.wait_more_ticks(10).check_one_history()


def test_finish_itself_is_lost(
    sterna: Daemon, libvirtd: Host, serial_tap: SerialTap, short_dir: Path
) -> None:
    """libvirtd ends it there: then, and not before, it runs on here."""
    moving = cut_at(Gate(FINISH), sterna, libvirtd, short_dir)
    assert moving.process.returncode == 5
    wait_for(lambda: sterna.state(GUEST).startswith("running"), "its running on")
    assert libvirtd.qemus() == []
    serial_tap.wait_more_ticks(10).check_one_history()
