"""Where this host's CPUs, memory and caches are: NUMA cells, sockets, cores, page pools.

Facts come from /sys/devices/system (Linux: cputopology.rst, sysfs-devices-node).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sterna.host.files import ROOT, format_cpu_list, kib_fields, parse_cpu_list, read_int, read_text

BASE_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(frozen=True, slots=True)
class Cpu:
    """One logical CPU and its place. `siblings` are the threads of its core, itself included."""

    id: int
    socket: int
    die: int
    core: int
    siblings: frozenset[int]


@dataclass(frozen=True, slots=True)
class PagePool:
    """Pages of one size in one cell: how many there are, how many are free."""

    size_kib: int
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One NUMA cell. `distances` maps every cell's id to the distance from here (10 = local)."""

    id: int
    memory_kib: int
    free_kib: int
    pages: tuple[PagePool, ...]
    distances: dict[int, int]
    cpus: tuple[Cpu, ...]


@dataclass(frozen=True, slots=True)
class CacheBank:
    """One cache at the highest level, shared by `cpus`."""

    id: int
    level: int
    kind: str
    size_kib: int
    cpus: frozenset[int]


def present_cpus(root: Path = ROOT) -> frozenset[int]:
    """Return the CPUs this host has, offline ones included."""
    return parse_cpu_list(read_text(root / "sys/devices/system/cpu/present", "0"))


def online_cpus(root: Path = ROOT) -> frozenset[int]:
    """Return the CPUs that run."""
    return parse_cpu_list(read_text(root / "sys/devices/system/cpu/online", "0"))


def read_cpu(number: int, root: Path = ROOT) -> Cpu:
    """Return the place of one CPU; a kernel that doesn't say puts each on a core of its own."""
    folder = root / f"sys/devices/system/cpu/cpu{number}/topology"
    siblings = read_text(folder / "thread_siblings_list", str(number))
    # The kernel writes -1 (or 65535) for a level that the machine doesn't have.
    die = read_int(folder / "die_id")
    return Cpu(
        id=number,
        socket=max(read_int(folder / "physical_package_id"), 0),
        die=die if 0 <= die < 65535 else 0,
        core=read_int(folder / "core_id", number),
        siblings=parse_cpu_list(siblings),
    )


def _huge_pools(folder: Path) -> tuple[PagePool, ...]:
    pools = []
    if folder.is_dir():
        for pool in folder.iterdir():
            size = pool.name.removeprefix("hugepages-").removesuffix("kB")
            if size.isdigit():
                total = read_int(pool / "nr_hugepages")
                pools.append(PagePool(int(size), total, read_int(pool / "free_hugepages")))
    return tuple(sorted(pools, key=lambda pool: pool.size_kib))


def _cell(
    number: int,
    meminfo: str,
    huge: tuple[PagePool, ...],
    distances: dict[int, int],
    cpus: tuple[Cpu, ...],
) -> Cell:
    fields = kib_fields(meminfo)
    total, free = fields.get("MemTotal", 0), fields.get("MemFree", 0)
    # Memory set aside for huge pages is no longer counted as base pages (libvirt 9.0, observed).
    base = total - sum(pool.size_kib * pool.total for pool in huge)
    base_pool = PagePool(BASE_PAGE_KIB, max(base, 0) // BASE_PAGE_KIB, free // BASE_PAGE_KIB)
    return Cell(number, total, free, (base_pool, *huge), distances, cpus)


def cells(root: Path = ROOT) -> tuple[Cell, ...]:
    """Return the NUMA cells in order of their id; a kernel without NUMA is one cell, 0."""
    nodes = root / "sys/devices/system/node"
    ids = sorted(parse_cpu_list(read_text(nodes / "online")))
    online = online_cpus(root)
    if not ids:
        huge = _huge_pools(root / "sys/kernel/mm/hugepages")
        cpus = tuple(read_cpu(number, root) for number in sorted(online))
        return (_cell(0, read_text(root / "proc/meminfo"), huge, {0: 10}, cpus),)
    found = []
    for number in ids:
        folder = nodes / f"node{number}"
        distances = [int(word) for word in read_text(folder / "distance").split()]
        members = parse_cpu_list(read_text(folder / "cpulist")) & online
        found.append(
            _cell(
                number,
                read_text(folder / "meminfo"),
                _huge_pools(folder / "hugepages"),
                dict(zip(ids, distances, strict=False)),
                tuple(read_cpu(cpu, root) for cpu in sorted(members)),
            )
        )
    return tuple(found)


_CACHE_KINDS = {"Unified": "both", "Data": "data", "Instruction": "code"}


def cache_banks(root: Path = ROOT) -> tuple[CacheBank, ...]:
    """Return the last-level caches, one for each group of CPUs that shares one."""
    banks: dict[tuple[int, str], CacheBank] = {}
    for number in sorted(online_cpus(root)):
        folder = root / f"sys/devices/system/cpu/cpu{number}/cache"
        for index in sorted(folder.glob("index[0-9]*")) if folder.is_dir() else []:
            size = read_text(index / "size")
            bank = CacheBank(
                id=read_int(index / "id"),
                level=read_int(index / "level"),
                kind=_CACHE_KINDS.get(read_text(index / "type"), "both"),
                size_kib=int(size[:-1]) if size.endswith("K") and size[:-1].isdigit() else 0,
                cpus=parse_cpu_list(read_text(index / "shared_cpu_list", str(number))),
            )
            banks.setdefault((bank.level, format_cpu_list(bank.cpus) + bank.kind), bank)
    # Only a level shared by several CPUs can be divided between guests: that is from 3 upwards
    # on the machines libvirt shows it for (libvirt 9.0, observed).
    return tuple(
        bank for bank in sorted(banks.values(), key=lambda b: (b.level, b.id)) if bank.level >= 3
    )
