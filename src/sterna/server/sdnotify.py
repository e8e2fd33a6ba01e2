"""The few words of the service manager's protocol that a daemon needs (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket

LISTEN_FDS_START = 3
"""First descriptor that is passed in, by sd_listen_fds(3)."""


def notify(*words: str) -> bool:
    """Tell the service manager; False where there is none. Never raises: it must not matter."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path[0] == "@" else path
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out,
    ):
        out.sendto("\n".join(words).encode(), address)
        return True
    return False


def watchdog_interval_s() -> float | None:
    """How often WATCHDOG=1 is due: half of what the service manager allows; None if it asks not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    allowed_us = os.environ.get("WATCHDOG_USEC", "")
    return int(allowed_us) / 2_000_000 if allowed_us.isdecimal() and int(allowed_us) else None


def listen_fds() -> list[int]:
    """Sockets the service manager opened for us, close-on-exec set; consumed once."""
    count = os.environ.pop("LISTEN_FDS", "")
    pid = os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    fds = list(range(LISTEN_FDS_START, LISTEN_FDS_START + int(count)))
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds
