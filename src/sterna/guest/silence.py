"""A QEMU that does not answer, for people: frozen by a signal, or hanging."""

from __future__ import annotations

from sterna.guest.running import Running
from sterna.host.process import is_stopped


def silent_s(running: Running) -> float:
    """How long it has owed an answer that was given up waiting for; 0 if it owes none."""
    return running.monitor.silent_s if running.monitor is not None else 0.0


def in_words(running: Running) -> str:
    """Why it does not answer, and since when; empty if it does. Asks nothing of QEMU (L6)."""
    if running.process is not None and is_stopped(running.pid):
        return (
            f"frozen: a signal has stopped its QEMU (process {running.pid}), so the guest stands"
            f" still until 'kill -CONT {running.pid}'"
        )
    silent = silent_s(running)
    return f"its QEMU has not answered for {silent:.0f} s" if silent else ""
