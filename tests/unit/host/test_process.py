from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sterna.host import process

Tree = Callable[[dict[str, object]], Path]

# A name with a space and a parenthesis: the fields after it must still be found.
STAT = "42 (CPU 0/) KVM) S 1 42 42 0 -1 4194304 9 0 0 0 150 50 0 0 20 0 4 0 777 99 1000 " + (
    "0 " * 14 + "3 " + "0 " * 13
)


def test_process_of_a_fake_proc(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_NS_PER_TICK", 10_000_000)
    monkeypatch.setattr(process, "_PAGE_KIB", 4)
    found = process.process_stats(42, tree({"proc/42/stat": STAT}))
    assert found == process.ProcessStats(1_500_000_000, 500_000_000, 4000, 777)
    assert found.cpu_ns == 2_000_000_000


def test_threads_in_the_order_asked(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_NS_PER_TICK", 10_000_000)
    root = tree(
        {
            "proc/42/task/43/stat": STAT,
            "proc/42/task/43/schedstat": "123456789 555 17",
            "proc/42/task/44/stat": STAT,
        }
    )
    assert process.thread_stats(42, [44, 99, 43], root) == [
        process.ThreadStats(2_000_000_000, 0, 3),
        None,
        process.ThreadStats(123456789, 555, 3),
    ]


def test_a_gone_process_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProcessLookupError):
        process.process_stats(42, tmp_path)


def test_ourselves() -> None:
    found = process.process_stats(os.getpid())
    assert found.rss_kib > 1000
    (thread,) = process.thread_stats(os.getpid(), [threading.get_native_id()])
    assert thread is not None
    assert thread.cpu_ns > 0
