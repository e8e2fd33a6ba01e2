"""What a running QEMU costs: CPU time, memory, and the times of its vCPU threads.

Made for statistics of many guests in one call: each figure is one read of one small file in /proc,
without a directory listing (Linux: proc.rst; scheduler/sched-stats.rst for schedstat).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sterna.host.files import ROOT

_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
_STAT_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """One process, all its threads together. `start_ticks` tells it from a later one of its pid."""

    user_ns: int
    system_ns: int
    rss_kib: int
    start_ticks: int

    @property
    def cpu_ns(self) -> int:
        """User and system time together."""
        return self.user_ns + self.system_ns


@dataclass(frozen=True, slots=True)
class ThreadStats:
    """One thread: time on a CPU, time it was ready but waited for one, the CPU it was last on."""

    cpu_ns: int
    delay_ns: int
    cpu: int


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _STAT_BYTES_MAX)
    finally:
        os.close(fd)


def _stat_fields(path: str, pid: int) -> list[bytes]:
    """Return the fields of a stat file from the state on (field 3 of proc.rst is index 0)."""
    try:
        # The command's name stands in parentheses and may itself hold spaces and parentheses.
        return _read(path).rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError) as gone:
        raise ProcessLookupError(pid) from gone


def is_stopped(pid: int, root: Path = ROOT) -> bool:
    """Whether a signal or a debugger has stopped it (proc(5): state T or t)."""
    try:
        return _stat_fields(f"{root}/proc/{pid}/stat", pid)[0] in (b"T", b"t")
    except ProcessLookupError:
        return False


def process_stats(pid: int, root: Path = ROOT) -> ProcessStats:
    """Return what a process has used so far.

    Raises:
        ProcessLookupError: it is gone.
    """
    fields = _stat_fields(f"{root}/proc/{pid}/stat", pid)
    return ProcessStats(
        user_ns=int(fields[11]) * _NS_PER_TICK,
        system_ns=int(fields[12]) * _NS_PER_TICK,
        rss_kib=int(fields[21]) * _PAGE_KIB,
        start_ticks=int(fields[19]),
    )


def thread_stats(pid: int, threads: Iterable[int], root: Path = ROOT) -> list[ThreadStats | None]:
    """Return the times of the given threads, in their order; None for one that is gone."""
    return [_thread(pid, thread, root) for thread in threads]


def _thread(pid: int, thread: int, root: Path) -> ThreadStats | None:
    folder = f"{root}/proc/{pid}/task/{thread}"
    try:
        fields = _stat_fields(f"{folder}/stat", thread)
    except ProcessLookupError:
        return None
    ticks = int(fields[11]) + int(fields[12])
    try:
        ran, delayed, _ = _read(f"{folder}/schedstat").split()
    except (OSError, ValueError):
        # A kernel without CONFIG_SCHED_INFO: ticks are all there is.
        return ThreadStats(ticks * _NS_PER_TICK, 0, int(fields[36]))
    return ThreadStats(int(ran), int(delayed), int(fields[36]))
