from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sterna.host.netstat import InterfaceCounters, interface_counters

NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop ...
    lo:    10       1    0    0    0     0          0         0       10       1    0    0 0 0 0 0
 vnet0:    20       2    3    4    0     0          0         0       50       6    7    8 0 0 0 0
"""


def test_counters_of_all_interfaces(tree: Callable[[dict[str, object]], Path]) -> None:
    found = interface_counters(tree({"proc/net/dev": NET_DEV}))
    assert set(found) == {"lo", "vnet0"}
    assert found["vnet0"] == InterfaceCounters(20, 2, 3, 4, 50, 6, 7, 8)


def test_a_guest_receives_what_its_tap_sends() -> None:
    host_side = InterfaceCounters(1, 2, 3, 4, 5, 6, 7, 8)
    assert host_side.from_guest() == InterfaceCounters(5, 6, 7, 8, 1, 2, 3, 4)


def test_this_very_machine_has_a_loopback() -> None:
    assert "lo" in interface_counters()
