"""After a test nothing may be left: no process, socket, port, tap, descriptor or file of a host."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter
from pathlib import Path

from support.daemon import Daemon
from support.processes import kinds_of_files, listening_ports

SETTLE_S = 3.0
"""How long what is being torn down may take to be gone; the daemon's own promises are tighter."""

# What grows with use and is no leak: the store's files, compiled modules, devices opened once.
HARMLESS = ("/dev/null", "/dev/urandom", "/memfd:", "anon_inode:[eventpoll]")


DOOR = re.compile(r"decision\.listening .*?\bport=(\d+)")


def own_tap() -> str:
    """A name for a tap that a test makes in the namespace which it shares with other workers'."""
    return f"st{os.getpid()}"


def taps() -> set[str]:
    """Names of the tap devices in our network namespace, without other workers' own."""
    found = {path.parent.name for path in Path("/sys/class/net").glob("*/tun_flags")}
    return {name for name in found if name == own_tap() or not re.fullmatch(r"st\d+", name)}


def guests_files(daemon: Daemon) -> set[str]:
    """What lies below the run directory, apart from the daemon's sockets, locks and pid file."""
    run = daemon.root / "run"
    return {
        str(path.relative_to(run))
        for path in run.rglob("*")
        if path.parent != run and not path.is_dir() and not path.name.endswith(".lock")
    }


def grown_files(daemon: Daemon) -> Counter[str]:
    """Descriptors the daemon has more of than when it started, by kind."""
    now = kinds_of_files(daemon.pid)
    grown = now - daemon.files_at_start
    return Counter(
        {
            kind: count
            for kind, count in grown.items()
            if not kind.startswith((*HARMLESS, str(daemon.root)))
        }
    )


def door_port(daemon: Daemon) -> int | None:
    """The one port that a host opens and keeps: where sources ask what it decided."""
    said = DOOR.findall(daemon.log_path.read_text(errors="replace"))
    return int(said[-1]) if said else None


def leaks_of(daemon: Daemon) -> list[str]:
    """What is left now of a host without guests; empty if nothing."""
    found = [f"process {p.pid}: {' '.join(p.argv)[:120]}" for p in daemon.qemus()]
    if daemon.alive:
        pids = [process.pid for process in daemon.processes()]
        door = door_port(daemon)
        ports = listening_ports(pids)
        grown = grown_files(daemon)
        # Loopback is one address, so the door is one socket.
        grown.subtract({"socket": 1 if door in ports else 0})
        found += [f"{count} more {kind}" for kind, count in grown.items() if count > 0]
        extra = ports - {daemon.tcp_port, daemon.tls_port, door}
        found += [f"listening port {port}" for port in sorted(extra)]
    found += [f"file run/{name}" for name in sorted(guests_files(daemon))]
    return found


def check_no_leaks(daemon: Daemon, taps_before: set[str] | None = None) -> None:
    """AssertionError naming all that is still there once things have settled."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        found = leaks_of(daemon)
        if taps_before is not None:
            found += [f"tap {name}" for name in sorted(taps() - taps_before)]
        if not found:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"{daemon.name} left behind:\n  " + "\n  ".join(found))
        time.sleep(0.02)


def remove_guests(daemon: Daemon) -> None:
    """Destroy and undefine every guest, as a tidy person would at the end of the day."""
    with contextlib.suppress(AssertionError):
        for name in daemon.virsh("list", "--name").check().lines:
            daemon.virsh("destroy", name)
        for name in daemon.virsh("list", "--all", "--name").check().lines:
            daemon.virsh("undefine", name, "--nvram", "--managed-save")
