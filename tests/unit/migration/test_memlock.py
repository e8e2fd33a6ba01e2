"""How much memory QEMU may lock, tried on a process of our own."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sterna.config import parse_domain
from sterna.errors import SystemCallError
from sterna.migration import memlock

GUEST = "<domain type='qemu'><name>x</name><memory unit='KiB'>4</memory>{}</domain>"


@pytest.fixture
def pid() -> Iterator[int]:
    """A process that may lock 1 KiB by itself and 8 KiB at most."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    resource.prlimit(process.pid, resource.RLIMIT_MEMLOCK, (1 << 10, 1 << 13))
    yield process.pid
    process.communicate(b"\n")


def test_the_guests_size(pid: int) -> None:
    before = memlock.allow(pid, parse_domain(GUEST.format("")))
    assert before == (1 << 10, 1 << 13)
    assert resource.prlimit(pid, resource.RLIMIT_MEMLOCK) == (4 << 10, 1 << 13)
    memlock.restore(pid, before)
    assert resource.prlimit(pid, resource.RLIMIT_MEMLOCK) == before


def test_enough_already(pid: int) -> None:
    tuned = "<memtune><hard_limit unit='KiB'>1</hard_limit></memtune>"
    assert memlock.allow(pid, parse_domain(GUEST.format(tuned))) is None


def test_a_process_that_has_gone(pid: int) -> None:
    with pytest.raises(SystemCallError, match="cannot limit locked memory of process 999999999"):
        memlock.allow(999999999, parse_domain(GUEST.format("")))
