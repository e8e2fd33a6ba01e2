"""What clients ask about the machine itself: size, load, memory, pages.

Everything is read afresh from /proc and /sys at each call; each takes well under a millisecond, so
nothing here waits or caches (L6).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sterna.errors import ErrorDomain, InternalError, InvalidArg, OperationFailed
from sterna.host.files import ROOT, cpu_bitmap, kib_fields, read_int, read_text
from sterna.host.topology import Cell, cells, online_cpus, present_cpus

ALL = -1
"""The wire's number for "all CPUs" and "all cells together"."""

_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """NODE_GET_INFO. sockets are per node, cores per socket, threads per core."""

    model: str
    memory_kib: int
    cpus: int
    mhz: int
    nodes: int
    sockets: int
    cores: int
    threads: int


@dataclass(frozen=True, slots=True)
class CpuMap:
    """NODE_GET_CPU_MAP: CPUs present, how many are online, and which, as the wire's bitmap."""

    present: int
    online: int
    bitmap: bytes


def node_info(root: Path = ROOT) -> NodeInfo:
    """Return the host's size as NODE_GET_INFO reports it."""
    found = cells(root)
    count = sum(len(cell.cpus) for cell in found)
    nodes = sum(1 for cell in found if cell.cpus)
    sockets = max((len({cpu.socket for cpu in cell.cpus}) for cell in found), default=1)
    cores = 1
    threads = 1
    for cell in found:
        per_socket: dict[int, set[tuple[int, int]]] = {}
        for cpu in cell.cpus:
            per_socket.setdefault(cpu.socket, set()).add((cpu.die, cpu.core))
            threads = max(threads, len(cpu.siblings))
        cores = max(cores, *(len(found_cores) for found_cores in per_socket.values()), 1)
    if nodes * sockets * cores * threads != count:
        # Clients multiply these to learn the number of CPUs. A lopsided machine (CPUs offline,
        # cells of unequal size) is therefore shown flat (libvirt's documented way out).
        nodes, sockets, cores, threads = 1, 1, count, 1
    return NodeInfo(
        model=platform.machine(),
        memory_kib=sum(cell.memory_kib for cell in found),
        cpus=count,
        mhz=cpu_mhz(root),
        nodes=nodes,
        sockets=sockets,
        cores=cores,
        threads=threads,
    )


def cpu_mhz(root: Path = ROOT) -> int:
    """Return the first CPU's present speed in MHz, 0 if the kernel doesn't say."""
    for line in read_text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "cpu MHz":
            return int(float(value))
    return read_int(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq") // 1000


def cpu_map(root: Path = ROOT) -> CpuMap:
    """Return which CPUs run."""
    present = max(present_cpus(root), default=0) + 1
    online = online_cpus(root)
    return CpuMap(present, len(online), cpu_bitmap(online, present))


def cpu_stats(cpu: int = ALL, root: Path = ROOT) -> dict[str, int]:
    """Return nanoseconds spent since boot: kernel, user, idle, iowait; of one CPU or of `ALL`.

    Raises:
        InvalidArg: there is no such CPU, or it is offline.
    """
    wanted = "cpu" if cpu == ALL else f"cpu{cpu}"
    for line in read_text(root / "proc/stat").splitlines():
        words = line.split()
        if words and words[0] == wanted:
            user, nice, system, idle, iowait, irq, softirq = (int(word) for word in words[1:8])
            ticks = {
                "kernel": system + irq + softirq,
                "user": user + nice,
                "idle": idle,
                "iowait": iowait,
            }
            return {name: value * _NS_PER_TICK for name, value in ticks.items()}
    raise InvalidArg(f"this host runs no CPU {cpu}", domain=ErrorDomain.NONE)


def memory_stats(cell: int = ALL, root: Path = ROOT) -> dict[str, int]:
    """Return KiB: total, free and, for the whole host only, buffers and cached.

    Raises:
        InvalidArg: there is no such cell.
    """
    if cell == ALL:
        fields = kib_fields(read_text(root / "proc/meminfo"))
        names = ("MemTotal", "MemFree", "Buffers", "Cached")
        return {name.removeprefix("Mem").lower(): fields.get(name, 0) for name in names}
    for found in cells(root):
        if found.id == cell:
            return {"total": found.memory_kib, "free": found.free_kib}
    raise InvalidArg(f"this host has no NUMA cell {cell}", domain=ErrorDomain.NONE)


def free_memory(root: Path = ROOT) -> int:
    """Return the free bytes of all cells."""
    return sum(cell.free_kib for cell in cells(root)) * 1024


def _cells_from(start: int, count: int, root: Path) -> list[Cell]:
    found = cells(root)
    last = max(cell.id for cell in found)
    if not 0 <= start <= last:
        raise InternalError(f"start cell {start} out of range (0-{last})", domain=ErrorDomain.NONE)
    return [cell for cell in found if start <= cell.id < start + count]


def cells_free_memory(start: int, count: int, root: Path = ROOT) -> list[int]:
    """Return the free bytes of up to `count` cells from `start` on.

    Raises:
        InternalError: `start` is no cell's number (the text is libvirt 9.0's).
    """
    return [cell.free_kib * 1024 for cell in _cells_from(start, count, root)]


def free_pages(sizes_kib: Sequence[int], start: int, count: int, root: Path = ROOT) -> list[int]:
    """Return how many pages are free: for each cell from `start` on, for each of `sizes_kib`.

    Raises:
        InternalError: `start` is no cell's number.
        OperationFailed: a cell has no pages of that size.
    """
    counts = []
    for cell in _cells_from(start, count, root):
        pools = {pool.size_kib: pool.free for pool in cell.pages}
        for size in sizes_kib:
            if size not in pools:
                raise OperationFailed(
                    f"page size {size} is not available on node {cell.id}", domain=ErrorDomain.NONE
                )
            counts.append(pools[size])
    return counts
