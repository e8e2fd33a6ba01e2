"""What a test does with a host, whichever daemon it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from support.clients import Ran, Started, start_virsh, virsh
from support.processes import Process


class Host(ABC):
    """One host that virsh can talk to.

    Attributes:
        root: a directory; what tests write for this host goes beside it.
        uri: for clients on this machine, through the unix socket.
        socket: that socket.
    """

    root: Path
    name: str
    uri: str
    socket: Path

    @abstractmethod
    def qemus(self) -> list[Process]:
        """Its QEMU processes that have a guest."""

    def virsh(self, *words: str, timeout_s: float = 30, stdin: str = "") -> Ran:
        """Run virsh against it; the caller judges the exit code (`.check()`)."""
        return virsh(self.uri, *words, timeout_s=timeout_s, stdin=stdin)

    def said(self, *words: str, timeout_s: float = 30) -> str:
        """What virsh printed, stripped; AssertionError if it failed."""
        return self.virsh(*words, timeout_s=timeout_s).check().out.strip()

    def refused(self, *words: str, timeout_s: float = 30) -> str:
        """What virsh complained of; AssertionError if it succeeded."""
        ran = self.virsh(*words, timeout_s=timeout_s)
        assert ran.code, f"virsh {' '.join(words)} succeeded: {ran.out}"
        return ran.err.strip()

    def start_virsh(self, *words: str) -> Started:
        """virsh beside the test."""
        return start_virsh(self.uri, *words)

    def file(self, name: str, text: str) -> str:
        """A file for a command of virsh; its path."""
        path = self.root.with_name(f"{self.root.name}.{name}")
        path.write_text(text)
        return str(path)

    def create(self, xml: str, *options: str) -> None:
        """`virsh create` of this XML."""
        self.virsh("create", self.file("create.xml", xml), *options, timeout_s=60).check()

    def define(self, xml: str) -> None:
        self.virsh("define", self.file("define.xml", xml)).check()

    def state(self, guest: str) -> str:
        """As `domstate --reason` says it: `running (booted)`."""
        return self.said("domstate", guest, "--reason")

    def job(self, guest: str) -> dict[str, str]:
        """domjobinfo's fields; empty when there is no guest."""
        told = self.virsh("domjobinfo", guest).out
        pairs = (line.partition(":") for line in told.splitlines() if ":" in line)
        return {name.strip(): value.strip() for name, _, value in pairs}

    def is_sending(self, guest: str) -> bool:
        """Whether memory of an outgoing migration has left."""
        return float(self.job(guest).get("Data processed", "0 B").split()[0]) > 0

    def guests(self, *options: str) -> set[str]:
        """Names as `virsh list` has them."""
        return set(self.said("list", "--name", *options).splitlines())
