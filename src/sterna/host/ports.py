"""TCP ports to hand to QEMU: free now, and promised to nobody else on this machine.

QEMU binds a port a few dozen milliseconds after it was chosen. Until then only a claim keeps the
other guests of this daemon, and the other daemons of this machine, away from it: a name among the
kernel's abstract unix sockets, which belong to the network namespace, as ports do, and vanish with
their process (unix(7)).
"""

from __future__ import annotations

import contextlib
import errno
import socket

from sterna.errors import ErrorDomain, SystemCallError


class PortClaim:
    """A port that is ours until released. Made by `claim_port`."""

    def __init__(self, port: int, holder: socket.socket) -> None:
        self.port = port
        self._holder = holder

    def release(self) -> None:
        """Let others have the port; a second time is harmless."""
        self._holder.close()


def claim_port(address: str, first: int, last: int) -> PortClaim | None:
    """Claim the lowest port that can be bound at `address` now; None if there is none.

    A program that isn't Sterna may bind it before QEMU does: then QEMU says so.

    Raises:
        SystemCallError: `address` isn't one of this host's.
    """
    for port in range(first, last + 1):
        with contextlib.ExitStack() as undo:
            holder = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            if _claimed(holder, port) and _free(address, port):
                undo.pop_all()
                return PortClaim(port, holder)
    return None


def _claimed(holder: socket.socket, port: int) -> bool:
    try:
        holder.bind(f"\0sterna-port-{port}")
    except OSError as failed:
        if failed.errno == errno.EADDRINUSE:
            return False
        raise
    return True


def _free(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As QEMU does: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as failed:
            if failed.errno == errno.EADDRINUSE:
                return False
            what = f"Unable to bind to {address} port {port}"
            raise SystemCallError(
                what, errno=failed.errno or 0, domain=ErrorDomain.NONE
            ) from failed
    return True
