"""Who takes part: two hosts that virsh can talk to, each with a daemon whose memory is measured."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from support.daemon import Daemon
from support.processes import Process, processor_s, resident_kib
from support.real_libvirtd import RealLibvirtd, available, two_libvirtds


@dataclass(frozen=True, slots=True)
class Side:
    """One host of a contender."""

    uri: str
    qemus: Callable[[], list[Process]]
    memory_kib: Callable[[], int]
    cpu_s: Callable[[], float]


Pair = tuple[Side, Side]
Opener = Callable[[Path], AbstractContextManager[Pair]]


@contextlib.contextmanager
def sterna(directory: Path) -> Iterator[Pair]:
    daemons = [Daemon(directory / name, name=name) for name in ("a", "b")]

    def side(daemon: Daemon) -> Side:
        def memory_kib() -> int:
            return sum(resident_kib(p.pid) for p in daemon.processes() if not p.is_qemu)

        def cpu_s() -> float:
            return sum(processor_s(p.pid) for p in daemon.processes() if not p.is_qemu)

        return Side(daemon.uri, daemon.qemus, memory_kib, cpu_s)

    try:
        for daemon in daemons:
            daemon.start()
        yield side(daemons[0]), side(daemons[1])
    finally:
        for daemon in daemons:
            daemon.end_everything()


@contextlib.contextmanager
def libvirtd(directory: Path) -> Iterator[Pair]:
    def side(host: RealLibvirtd) -> Side:
        return Side(
            *(host.uri, host.qemus),
            memory_kib=lambda: resident_kib(host.pid),
            cpu_s=lambda: processor_s(host.pid),
        )

    with two_libvirtds(directory) as (first, second):
        yield side(first), side(second)


def contenders() -> dict[str, Opener]:
    """By name, those that can run here."""
    found: dict[str, Opener] = {"Sterna": sterna}
    if available():
        found["libvirtd"] = libvirtd
    return found
