from __future__ import annotations

import os
from collections.abc import Set
from pathlib import Path
from types import SimpleNamespace

import pytest

from sterna.config import DomainDef, parse_domain
from sterna.errors import SystemCallError
from sterna.guest.pinning import emulator_cpus, pin, vcpu_cpus
from sterna.guest.running import Running


def definition(inside: str = "", vcpu: str = "<vcpu>2</vcpu>") -> DomainDef:
    return parse_domain(
        f"<domain type='qemu'><name>g</name><memory>1024</memory>{vcpu}{inside}"
        "<os><type arch='x86_64'>hvm</type></os></domain>"
    )


PINNED = definition(
    "<cputune><vcpupin vcpu='0' cpuset='1,3'/></cputune>", "<vcpu cpuset='0-3,^2'>2</vcpu>"
)


def running(made: DomainDef) -> Running:
    found = Running(1, made, Path("/nonexistent"), Path("/nonexistent"))
    found.process = SimpleNamespace(pid=os.getpid())  # type: ignore[assignment]  # only its pid
    found.vcpu_threads = {0: 101, 1: 102}
    return found


def test_a_vcpus_own_pin_goes_before_the_guests() -> None:
    assert vcpu_cpus(PINNED, 0) == {1, 3}
    assert vcpu_cpus(PINNED, 1) == emulator_cpus(PINNED) == {0, 1, 3}
    free = definition()
    assert vcpu_cpus(free, 0) is emulator_cpus(free) is None


def test_every_thread_is_bound() -> None:
    bound: dict[int, Set[int]] = {}
    pin(running(PINNED), bound.__setitem__)
    assert bound[101] == {1, 3}
    assert bound[102] == {0, 1, 3}
    assert bound[os.getpid()] == {0, 1, 3}


def test_nothing_asked_nothing_done() -> None:
    def never(thread: int, _cpus: Set[int]) -> None:
        raise AssertionError(thread)

    pin(running(definition()), never)


def test_a_thread_that_ended_meanwhile_is_no_failure() -> None:
    def gone(_thread: int, _cpus: Set[int]) -> None:
        raise ProcessLookupError

    pin(running(PINNED), gone)


def test_a_cpu_that_is_not_there() -> None:
    def refuse(_thread: int, _cpus: Set[int]) -> None:
        raise OSError(22, "Invalid argument")

    with pytest.raises(
        SystemCallError, match="cannot set CPU affinity on process 101: Invalid argument"
    ):
        pin(running(PINNED), refuse)
