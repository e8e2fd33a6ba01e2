"""Two hosts of ours, and wires between them and the client that can be cut.

As root each host has a network namespace, and a cable for its clients and one for other hosts, all
of which end in ours: a cable that is cut loses packets silently. Otherwise all is loopback.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from faults import dying
from support import tick_guest
from support.daemon import Daemon
from support.leaks import remove_guests

STORE_SIZE: Final = "24m"
IP_TIMEOUT_S: Final = 20


def alone_argv() -> list[str]:
    """What to put before a command so that it has network and mounts of its own; empty where we
    may not: a container's root, or no root."""
    alone = ["unshare", "--net", "--mount"]
    with tempfile.TemporaryDirectory(prefix="st-") as directory:
        trial = [*alone, "mount", "-t", "tmpfs", "sterna-faults", directory]
        try:
            tried = subprocess.run(trial, capture_output=True, check=False)
        except FileNotFoundError:
            return []
    return alone if tried.returncode == 0 else []


def ip(*words: str, inside: int | None = None) -> None:
    """The command `ip`, in the namespace of that process."""
    where = ("nsenter", "--target", str(inside), "--net") if inside is not None else ()
    subprocess.run([*where, "ip", *words], check=True, timeout=IP_TIMEOUT_S)


class Cable:
    """From us (10.9.N.1) to a host (10.9.N.2). Cut, it takes frames and delivers none: neither end
    is told."""

    def __init__(self, number: int, host: int) -> None:
        self.ours, self.theirs = f"10.9.{number}.1", f"10.9.{number}.2"
        self._bridge, self._port = f"bridge{number}", f"port{number}"
        end = f"eth{number}"
        # An address of its own: it would take the port's, and answer for it when that is cut off.
        ip(
            *("link", "add", "name", self._bridge, "address", f"02:00:00:00:09:{number:02x}"),
            *("type", "bridge"),
        )
        ip("link", "add", "name", self._port, "type", "veth", "peer", "name", end)
        ip("link", "set", "dev", end, "netns", str(host))
        ip("address", "add", f"{self.ours}/24", "dev", self._bridge)
        ip("link", "set", "dev", self._bridge, "up")
        ip("link", "set", "dev", self._port, "up")
        ip("address", "add", f"{self.theirs}/24", "dev", end, inside=host)
        ip("link", "set", "dev", end, "up", inside=host)
        self.heal()

    def remove(self) -> None:
        ip("link", "delete", self._bridge)
        ip("link", "delete", self._port)

    def cut(self) -> None:
        ip("link", "set", "dev", self._port, "nomaster")

    def heal(self) -> None:
        ip("link", "set", "dev", self._port, "master", self._bridge)


class Place:
    """Where one host lives: its namespace, its cables, its disk."""

    def __init__(self, root: Path, number: int, *, alone: bool) -> None:
        self.clients: Cable | None = None
        self.hosts: Cable | None = None
        self.prefix: list[str] = []
        self._holder: subprocess.Popen[bytes] | None = None
        root.mkdir()
        if not alone:
            return
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={STORE_SIZE},mode=755", "sterna-faults", root],
            check=True,
        )
        words = ("sh", "-c", "ip link set lo up && echo && exec sleep infinity")
        self._holder = subprocess.Popen(
            ["unshare", "--net", *words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._holder.stdout is not None
        self._holder.stdout.readline()
        self.clients = Cable(2 * number + 1, self._holder.pid)
        self.hosts = Cable(2 * number + 2, self._holder.pid)
        self.prefix = ["nsenter", "--target", str(self._holder.pid), "--net"]

    def route(self) -> None:
        """Let it reach the other host by itself, through us."""
        assert self.hosts is not None
        assert self._holder is not None
        ip("route", "add", "default", "via", self.hosts.ours, inside=self._holder.pid)

    def end(self) -> None:
        for cable in (self.clients, self.hosts):
            if cable is not None:
                cable.remove()
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()


class World:
    """Two running hosts. `alone`: we have a network and a mount namespace of our own."""

    def __init__(self, *, alone: bool) -> None:
        self.alone = alone
        self.directory = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
        self.directory.chmod(0o755)
        self.elf = tick_guest.build(self.directory)
        self._places: list[Place] = []
        if alone:
            ip("link", "set", "dev", "lo", "up")
        try:
            self.source = self._host("alpha")
            self.destination = self._host("beta")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def hosts(self) -> tuple[Daemon, Daemon]:
        return self.source, self.destination

    def place(self, host: Daemon) -> Place:
        return self._places[self.hosts.index(host)]

    def _host(self, name: str) -> Daemon:
        root = self.directory / name
        place = Place(root, len(self._places), alone=self.alone)
        self._places.append(place)
        cache = Path("build/faults/cache").absolute()
        cache.mkdir(parents=True, exist_ok=True)
        (root / "cache").symlink_to(cache)
        daemon = Daemon(
            root,
            name=name,
            prefix=(*place.prefix, sys.executable, str(Path(dying.__file__))),
            address=place.clients.theirs if place.clients else "127.0.0.1",
            migration_address=place.hosts.theirs if place.hosts else "127.0.0.1",
        )
        daemon.start()
        return daemon

    def reset(self) -> None:
        """No guest, both daemons alive."""
        for host in self.hosts:
            (host.root / dying.FILE).unlink(missing_ok=True)
            if not host.alive:
                host.restart()
            remove_guests(host)

    def close(self) -> None:
        for name in ("source", "destination"):
            if (host := getattr(self, name, None)) is not None:
                host.end_everything()
        for place in self._places:
            place.end()
        for root in (self.directory / "alpha", self.directory / "beta"):
            if os.path.ismount(root):
                subprocess.run(["umount", "--lazy", root], check=False)
        with contextlib.suppress(OSError):
            shutil.rmtree(self.directory)
