from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sterna.errors import InternalError, InvalidArg, OperationFailed
from sterna.host import node
from sterna.host.topology import cache_banks, cells

Tree = Callable[[dict[str, object]], Path]
SECOND = 1_000_000_000


def test_size_of_a_machine_with_two_cells(two_cells: Path) -> None:
    info = node.node_info(two_cells)
    assert (info.memory_kib, info.cpus, info.mhz) == (8192, 8, 2596)
    assert (info.nodes, info.sockets, info.cores, info.threads) == (2, 1, 2, 2)


def test_lopsided_machine_is_shown_flat(two_cells: Path, tree: Tree) -> None:
    root = tree({"sys/devices/system/cpu/online": "0-6"})
    info = node.node_info(root)
    assert (info.cpus, info.nodes, info.sockets, info.cores, info.threads) == (7, 1, 1, 7, 1)


def test_kernel_without_numa_is_one_cell(tree: Tree) -> None:
    root = tree(
        {
            "proc/meminfo": "MemTotal: 2048 kB\nMemFree: 1024 kB",
            "sys/devices/system/cpu/online": "0-1",
            "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": 1500000,
        }
    )
    info = node.node_info(root)
    assert (info.memory_kib, info.cpus, info.mhz, info.nodes, info.cores) == (2048, 2, 1500, 1, 2)
    assert [cell.distances for cell in cells(root)] == [{0: 10}]


def test_cpu_map(two_cells: Path, tree: Tree) -> None:
    root = tree({"sys/devices/system/cpu/online": "0-2,7"})
    assert node.cpu_map(root) == node.CpuMap(8, 4, bytes([0b10000111]))


def test_cpu_stats_are_nanoseconds(two_cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "_NS_PER_TICK", SECOND // 100)
    assert node.cpu_stats(node.ALL, two_cells) == {
        "kernel": 10 * SECOND // 100,
        "user": 11 * SECOND // 100,
        "idle": SECOND,
        "iowait": 7 * SECOND // 100,
    }
    assert node.cpu_stats(0, two_cells)["idle"] == SECOND // 2
    with pytest.raises(InvalidArg, match="no CPU 7"):
        node.cpu_stats(7, two_cells)


def test_memory_stats(two_cells: Path) -> None:
    whole = {"total": 8192, "free": 4096, "buffers": 10, "cached": 20}
    assert node.memory_stats(node.ALL, two_cells) == whole
    assert node.memory_stats(1, two_cells) == {"total": 4096, "free": 1024}
    with pytest.raises(InvalidArg, match="cell 2"):
        node.memory_stats(2, two_cells)


def test_free_memory_in_bytes(two_cells: Path) -> None:
    assert node.free_memory(two_cells) == 2048 * 1024
    assert node.cells_free_memory(0, 9, two_cells) == [1024 * 1024, 1024 * 1024]
    assert node.cells_free_memory(1, 1, two_cells) == [1024 * 1024]
    with pytest.raises(InternalError, match=r"start cell 4 out of range \(0-1\)"):
        node.cells_free_memory(4, 1, two_cells)


def test_free_pages_by_cell_then_size(two_cells: Path) -> None:
    assert node.free_pages([4, 2048], 0, 2, two_cells) == [256, 0, 256, 1]
    with pytest.raises(OperationFailed, match="page size 3 is not available on node 0"):
        node.free_pages([3], 0, 1, two_cells)


def test_huge_pages_are_not_base_pages_too(two_cells: Path) -> None:
    base, huge = cells(two_cells)[0].pages
    assert (base.size_kib, base.total) == (4, (4096 - 2048) // 4)
    assert (huge.size_kib, huge.total, huge.free) == (2048, 1, 0)


def test_last_level_caches(two_cells: Path) -> None:
    banks = cache_banks(two_cells)
    assert [(bank.id, bank.level, bank.kind, bank.size_kib) for bank in banks] == [
        (0, 3, "both", 32768),
        (1, 3, "both", 32768),
    ]
    assert banks[1].cpus == {2, 3, 6, 7}


def test_this_very_machine_answers() -> None:
    info = node.node_info()
    assert info.cpus == info.nodes * info.sockets * info.cores * info.threads
    assert node.cpu_stats()["idle"] > 0
    assert node.free_memory() > 0
