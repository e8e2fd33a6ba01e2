"""Which of the host's CPUs a guest's threads may use.

Done with sched_setaffinity, so it needs neither root nor control groups.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Set
from pathlib import Path

from sterna.config.bitmaps import parse_set
from sterna.config.model import DomainDef
from sterna.errors import ErrorDomain, SystemCallError
from sterna.guest.running import Running


def vcpu_cpus(definition: DomainDef, vcpu: int) -> set[int] | None:
    """The host CPUs a vCPU may run on; None for any."""
    pins = definition.cputune.vcpupins if definition.cputune is not None else []
    own = next((pin.cpuset for pin in pins if pin.vcpu == vcpu), None)
    return _parsed(own or definition.vcpu_cpuset)


def emulator_cpus(definition: DomainDef) -> set[int] | None:
    """The host CPUs QEMU's other threads may run on; None for any."""
    own = definition.cputune.emulatorpin if definition.cputune is not None else None
    return _parsed(own or definition.vcpu_cpuset)


def _parsed(cpuset: str | None) -> set[int] | None:
    return parse_set(cpuset) if cpuset else None


def pin(running: Running, set_affinity: Callable[[int, Set[int]], None] | None = None) -> None:
    """Bind the threads of a QEMU whose CPUs don't run yet, as its definition says.

    Raises:
        SystemCallError: a CPU isn't there, or isn't ours to use.
    """
    bind = set_affinity or os.sched_setaffinity
    definition, vcpus = running.definition, running.vcpu_threads
    for number, thread in vcpus.items():
        _bind(bind, [thread], vcpu_cpus(definition, number))
    others = emulator_cpus(definition)
    if others is not None:
        _bind(bind, _threads(running.pid) - set(vcpus.values()), others)


def _threads(pid: int) -> set[int]:
    return {int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()}


def _bind(
    bind: Callable[[int, Set[int]], None], threads: Iterable[int], cpus: set[int] | None
) -> None:
    if cpus is None:
        return
    for thread in threads:
        try:
            bind(thread, cpus)
        except ProcessLookupError:
            # QEMU's helper threads come and go.
            continue
        except OSError as failed:
            what = f"cannot set CPU affinity on process {thread}"
            errno = failed.errno or 0
            raise SystemCallError(what, errno=errno, domain=ErrorDomain.NONE) from failed
