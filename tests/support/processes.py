"""Looking at processes from outside, through /proc: who is there and what they hold."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

MARK = "STERNA_TEST_MARK"
"""Environment variable that our daemons pass to all they start; its value names one test's host."""

LISTEN_STATE = "0A"
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    name: str
    argv: tuple[str, ...]

    @property
    def is_qemu(self) -> bool:
        return self.name.startswith("qemu-system")


def read(path: Path) -> bytes:
    """What is there, or nothing: processes come and go while we look."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def processes() -> Iterable[Process]:
    """Every live process; zombies are dead."""
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal():
            continue
        stat = read(directory / "stat").decode(errors="replace")
        if not stat or stat.rpartition(")")[2].split()[0] in "ZX":
            continue
        argv = read(directory / "cmdline").decode(errors="replace").split("\0")[:-1]
        yield Process(int(directory.name), stat.partition("(")[2].rpartition(")")[0], tuple(argv))


def marked(mark: str, root: Path) -> list[Process]:
    """Live processes of one test host, however it started them.

    Each has the host's mark in its environment, or is a QEMU (whose environment is a clean one)
    with an open file, its log at least, below the host's root.
    """
    wanted, ours = f"{MARK}={mark}".encode(), f"{root}/"
    return [
        process
        for process in processes()
        if process.pid != os.getpid()
        and (
            wanted in read(Path(f"/proc/{process.pid}/environ")).split(b"\0")
            or any(ours in word for word in process.argv)
            or (process.is_qemu and holds_files_below(process.pid, ours))
        )
    ]


def holds_files_below(pid: int, directory: str) -> bool:
    return any(target.startswith(directory) for target in open_files(pid).values())


def open_files(pid: int) -> dict[int, str]:
    """The descriptors of a process and what they are."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found[int(entry.name)] = str(entry.readlink())
    return found


def kinds_of_files(pid: int) -> Counter[str]:
    """How many descriptors of each kind a process has; sockets and pipes without their numbers."""
    return Counter(
        target if target.startswith("/") else target.split(":[")[0]
        for target in open_files(pid).values()
    )


def listening_ports(pids: Iterable[int]) -> set[int]:
    """TCP ports on which any of these processes listens, each in its network namespace."""
    ports = set()
    for pid in pids:
        inodes = {
            target.removeprefix("socket:[").removesuffix("]")
            for target in open_files(pid).values()
            if target.startswith("socket:[")
        }
        for table in ("tcp", "tcp6") if inodes else ():
            for line in read(Path(f"/proc/{pid}/net/{table}")).decode().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN_STATE and fields[9] in inodes:
                    ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def resident_kib(pid: int) -> int:
    """VmRSS."""
    for line in read(Path(f"/proc/{pid}/status")).decode().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def processor_s(pid: int) -> float:
    """Processor time it has used, in user and in kernel mode."""
    fields = read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watched:
    """A process held by a pidfd: no other one can be mistaken for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def fileno(self) -> int:
        """Readable once the process is gone."""
        return self._pidfd

    @property
    def alive(self) -> bool:
        return not select.select([self._pidfd], [], [], 0)[0]

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def wait_gone(self, timeout_s: float = 20) -> int:
        """The moment it was seen gone (monotonic clock, ns). TimeoutError if it stays."""
        if not select.select([self._pidfd], [], [], timeout_s)[0]:
            raise TimeoutError(f"process {self.pid} is still there after {timeout_s} s")
        return time.monotonic_ns()

    def close(self) -> None:
        os.close(self._pidfd)


def end_all(found: Iterable[Process]) -> None:
    """SIGKILL each of them and wait until it is gone."""
    for process in found:
        with contextlib.suppress(ProcessLookupError):
            watched = Watched(process.pid)
            watched.signal(signal.SIGKILL)
            watched.wait_gone()
            watched.close()


def wait_for(
    ask: Callable[[], Answer], what: str, timeout_s: float = 20, every_s: float = 0.01
) -> Answer:
    """The first true answer, for what no descriptor tells; TimeoutError if there is none."""
    deadline = time.monotonic() + timeout_s
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s} s: {what} (last answer: {answer!r})")
        time.sleep(every_s)
    return answer
