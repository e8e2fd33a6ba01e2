"""An abort at any moment of any way to migrate: the guest runs on, and nothing is left there."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from qemu.moving import GUEST, check_moved, check_stayed
from support.clients import STERNA, Started
from support.fixtures import MakeGuest, TwoHosts, from_environment
from support.serial import SerialTap
from support.tick_guest import TickParameters

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(600)]

MOMENTS = from_environment("STERNA_ABORT_MOMENTS", 3)
LASTS_S = 0.9
"""A migration of this guest at this speed takes about so long, with its client's start."""
SHAPE = TickParameters(region_mib=16, dirty_mib_s=1, check_mib_s=32)
SPEED = ("--bandwidth", "40")


@dataclass(frozen=True)
class Road:
    name: str
    options: tuple[str, ...]


ROADS = (
    Road("direct", ("--direct",)),
    Road("peer-to-peer", ()),
    Road("tunnelled", ("--tunnelled",)),
    Road("parallel", ("--parallel=2",)),
    Road("compressed", ("--compress", "xbzrle")),
    Road("post-copy", ("--postcopy",)),
)


@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.name)
def test_an_abort_at_many_moments(
    two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest, road: Road
) -> None:
    """One that comes too late finds the guest at the destination, and it goes back from there."""
    two_hosts.source.create(tick_guest_xml(GUEST, SHAPE))
    serial_tap.wait_more_ticks(5)
    hosts = two_hosts
    for moment in range(MOMENTS):
        words = ["migrate", "-c", hosts.source.uri, GUEST, hosts.destination.uri, *SPEED]
        with Started([*STERNA, *words, *road.options]) as moving:
            time.sleep(LASTS_S * (moment + 1) / (MOMENTS + 1))
            hosts.source.virsh("domjobabort", GUEST)
            ended = moving.wait(30)
        if ended.code:
            assert ended.code == 5, ended.err
            check_stayed(hosts, serial_tap)
        else:
            check_moved(hosts, serial_tap)
            hosts = TwoHosts(hosts.destination, hosts.source)
