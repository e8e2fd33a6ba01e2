"""Where a daemon keeps its things, and the lock that keeps a second daemon away from them.

Three layouts: everything below `--root DIR`; the system's places for root; the user's XDG
directories for anyone else. Nothing outside them is written.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self


class PlacesError(Exception):
    """A directory cannot be used, or another daemon has it; the text says which."""


@dataclass(frozen=True, slots=True)
class Places:
    """The paths of one daemon.

    Attributes:
        run: sockets and what dies with a reboot.
        state: what must be kept.
        log: logs of the daemon's guests.
        cache: what can be made again.
    """

    run: Path
    state: Path
    log: Path
    cache: Path

    @classmethod
    def below(cls, root: Path) -> Self:
        """Everything below one directory."""
        return cls(root / "run", root, root / "log", root / "cache")

    @classmethod
    def system(cls) -> Self:
        """The system's places."""
        return cls(
            Path("/run/sterna"),
            Path("/var/lib/sterna"),
            Path("/var/log/sterna"),
            Path("/var/cache/sterna"),
        )

    @classmethod
    def user(cls) -> Self:
        """The user's places, by the XDG base directory specification."""
        home = Path.home()
        state = Path(os.environ.get("XDG_STATE_HOME") or home / ".local/state") / "sterna"
        cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "sterna"
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        # Without a runtime directory the cache is where libvirt's session sockets are, too.
        return cls(
            Path(runtime) / "sterna" if runtime else cache / "run", state, state / "log", cache
        )

    @classmethod
    def chosen(cls, root: Path | None) -> Self:
        """The layout for `--root` as it was given, and the user we are."""
        if root is not None:
            return cls.below(root)
        return cls.system() if os.geteuid() == 0 else cls.user()

    @property
    def socket(self) -> Path:
        """The read-write socket."""
        return self.run / "libvirt-sock"

    @property
    def socket_read_only(self) -> Path:
        return self.run / "libvirt-sock-ro"

    @property
    def lock(self) -> Path:
        return self.run / "sternad.lock"

    @property
    def store(self) -> Path:
        """The one SQLite file."""
        return self.state / "sterna.db"

    @property
    def passwords(self) -> Path:
        """Who may come in with a password."""
        return self.state / "passwords"

    @property
    def qemu_run(self) -> Path:
        """Monitor sockets."""
        return self.run / "qemu"

    @property
    def qemu_log(self) -> Path:
        """One log a guest."""
        return self.log / "qemu"

    @property
    def nvram(self) -> Path:
        return self.state / "nvram"

    @property
    def save(self) -> Path:
        """Images of managed save."""
        return self.state / "save"

    def make(self) -> None:
        """Make the directories. Those with guests' memory, disks and monitors are ours alone.

        Raises:
            PlacesError: one cannot be made or written.
        """
        for path, mode in (
            (self.state, 0o755),
            (self.run, 0o755),
            (self.log, 0o755),
            (self.cache, 0o755),
            (self.qemu_log, 0o700),
            (self.qemu_run, 0o711),
            (self.nvram, 0o711),
            (self.save, 0o700),
        ):
            try:
                path.mkdir(mode=mode, parents=True, exist_ok=True)
            except OSError as error:
                raise PlacesError(f"cannot make {path}: {error.strerror}") from error
            if not os.access(path, os.W_OK | os.X_OK):
                raise PlacesError(f"cannot write in {path}")


class Lock:
    """Keeps two daemons from one set of places. Held until closed, or until the process is gone."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def take(cls, places: Places) -> Self:
        """Take the lock.

        Raises:
            PlacesError: another daemon holds it; the text names its pid.
        """
        try:
            fd = os.open(places.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise PlacesError(f"cannot open {places.lock}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise PlacesError(
                f"another sternad (pid {holder}) already runs with {places.state}"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return cls(fd)

    def release(self) -> None:
        """Let the next one in. The file stays: removing it would let two hold 'the' lock."""
        os.close(self._fd)
