"""A person at a guest's console or channel: one session at a time, unless taken over by force."""

from __future__ import annotations

import os
import socket
import termios
import tty
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sterna.config import DomainDef
from sterna.config.model import Chardev
from sterna.errors import ConfigUnsupported, InternalError, OperationFailed, SystemCallError
from sterna.qemu.qmp_client import short_address

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

FORCE: Final = 1
"""Flag: end the session that is there."""


class Session:
    """One open console: a non-blocking descriptor for both directions.

    The holder reads and writes it, and calls `close` when done. `on_taken` is called, synchronously
    and once, if another session takes it over or the guest stops: close then.
    """

    def __init__(self, fd: int, forget: Callable[[], None], on_taken: Callable[[], None]) -> None:
        self.fd = fd
        self._forget = forget
        self._on_taken = on_taken
        self._open = True

    def close(self) -> None:
        """End it; more than once is harmless."""
        if self._open:
            self._open = False
            self._forget()
            os.close(self.fd)

    def take(self) -> None:
        """End it because somebody else comes, or the guest is gone."""
        if self._open:
            self._on_taken()
            self.close()


class Consoles:
    """All sessions of a host."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[object, str], Session] = {}

    def open_console(
        self, guest: Guest, name: str | None, flags: int, on_taken: Callable[[], None]
    ) -> Session:
        """Open a console or serial port by alias; without one, the first there is.

        Raises: OperationInvalid (55) not running; InternalError (1) no such device;
        OperationFailed (9) somebody has it; ConfigUnsupported (67) not of a kind that opens.
        """
        running = guest.live_or_refuse()
        device = _find_console(running.definition, name)
        return self._open(guest, device, flags, on_taken, "console session")

    def open_channel(
        self, guest: Guest, name: str | None, flags: int, on_taken: Callable[[], None]
    ) -> Session:
        """The same for a channel, by alias or target name."""
        running = guest.live_or_refuse()
        for channel in running.definition.devices.channels:
            if name in (None, channel.alias, channel.target_name):
                return self._open(guest, channel, flags, on_taken, "channel stream")
        raise InternalError(f"cannot find channel {name}")

    def _open(
        self, guest: Guest, device: Chardev, flags: int, on_taken: Callable[[], None], word: str
    ) -> Session:
        running = guest.live_or_refuse()
        key = (running, device.alias or "")
        standing = self._sessions.get(key)
        if standing is not None:
            if not flags & FORCE:
                raise OperationFailed(f"Active {word} exists for this domain")
            standing.take()

        def forget() -> None:
            self._sessions.pop(key, None)
            unwatch()

        session = Session(_descriptor(device), forget, on_taken)
        self._sessions[key] = session
        unwatch = running.when_stopped(lambda _ending: session.take())
        return session


def _find_console(live: DomainDef, name: str | None) -> Chardev:
    devices = live.devices
    candidates = [*devices.serials, *devices.consoles, *devices.parallels]
    if name is None:
        candidates = [*devices.consoles[:1], *devices.serials[:1]]
    for device in candidates:
        if name in (None, device.alias):
            return device
    what = "default" if name is None else name
    raise InternalError(f"cannot find character device {what}")


def _descriptor(device: Chardev) -> int:
    path = device.path
    if device.type == "pty" and path:
        return _open_pty(path)
    if device.type == "unix" and path:
        return _open_unix(path)
    if device.type == "dev" and path:
        return _open_pty(path)
    raise ConfigUnsupported(f"character device {device.alias} is not using a PTY or a socket")


def _open_pty(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise SystemCallError(f"unable to open tty {path}", errno=exc.errno or 0) from exc
    try:
        # The person's own terminal does the line editing; this one must pass every byte.
        tty.setraw(fd, termios.TCSANOW)
    except termios.error:
        os.close(fd)
        raise SystemCallError(f"{path} is no terminal") from None
    return fd


def _open_unix(path: str) -> int:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with short_address(Path(path)) as address:
            sock.connect(address)
    except OSError as exc:
        sock.close()
        raise SystemCallError(f"unable to connect to {path}", errno=exc.errno or 0) from exc
    return sock.detach()
