"""What the tests of migrations share: a guest to move, and how virsh is asked to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from support.fixtures import TwoHosts
from support.host import Host
from support.processes import wait_for
from support.serial import SerialTap
from support.tick_guest import TickParameters

GUEST = "mover"
# Copied in a moment, yet with enough pages to be wrong in.
QUICK = TickParameters(region_mib=16, dirty_mib_s=4, check_mib_s=32)
# With `--bandwidth 4` on its way for more than ten seconds: whatever is to happen meanwhile can.
LONG = TickParameters(region_mib=64, dirty_mib_s=1, check_mib_s=16)
SLOWLY = ("--bandwidth", "4")


def migrate_words(destination: Host, *options: str, live: bool = True) -> list[str]:
    """virsh's words, after `-c SOURCE`."""
    return ["migrate", *(["--live"] if live else []), GUEST, destination.uri, *options]


def job(host: Host) -> dict[str, str]:
    return host.job(GUEST)


def is_copying(host: Host) -> bool:
    return host.is_sending(GUEST)


def check_moved(hosts: TwoHosts, tap: SerialTap, *, name: str = GUEST) -> None:
    """The guest runs at the destination and only there, and had one history."""
    assert hosts.destination.state(name) == "running (migrated)"
    assert len(hosts.destination.qemus()) == 1
    # QEMU is gone when virsh returns: Confirm waits for it.
    assert hosts.source.qemus() == []
    tap.wait_more_ticks(10).check_one_history()


def check_stayed(hosts: TwoHosts, tap: SerialTap) -> None:
    """The guest runs at the source and only there, and had one history."""
    wait_for(lambda: not job(hosts.source) or "None" in job(hosts.source)["Job type"], "job's end")
    assert hosts.source.state(GUEST).startswith("running")
    assert hosts.destination.qemus() == []
    assert hosts.destination.guests("--all") == set()
    tap.wait_more_ticks(10).check_one_history()


@contextlib.contextmanager
def slow_migration(hosts: TwoHosts, *options: str) -> Iterator[None]:
    """While this context lasts a migration is copying memory; it is aborted at the end."""
    words = migrate_words(hosts.destination, *SLOWLY, *options)
    with hosts.source.start_virsh(*words) as controller:
        wait_for(lambda: is_copying(hosts.source), "memory on its way")
        try:
            yield
        finally:
            hosts.source.virsh("domjobabort", GUEST)
            controller.wait()
