"""Counters of network interfaces, all from one read of /proc/net/dev."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sterna.host.files import ROOT, read_text


@dataclass(frozen=True, slots=True)
class InterfaceCounters:
    """Since the interface exists: bytes, packets, errors, drops, as the host sees them."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_drops: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_drops: int

    def from_guest(self) -> InterfaceCounters:
        """Return the counters of a tap as its guest sees them: what the host sent, it received."""
        return InterfaceCounters(
            self.tx_bytes,
            self.tx_packets,
            self.tx_errors,
            self.tx_drops,
            self.rx_bytes,
            self.rx_packets,
            self.rx_errors,
            self.rx_drops,
        )


def interface_counters(root: Path = ROOT) -> dict[str, InterfaceCounters]:
    """Return the counters of every interface in this network namespace, by name.

    One call serves the interfaces of all guests. An interface that isn't in the answer is gone.
    """
    found = {}
    for line in read_text(root / "proc/net/dev").splitlines():
        name, colon, rest = line.partition(":")
        words = rest.split()
        if colon and len(words) >= 16:
            rx, tx = (int(word) for word in words[:4]), (int(word) for word in words[8:12])
            found[name.strip()] = InterfaceCounters(*rx, *tx)
    return found
