"""Which of the host's CPUs a guest's threads may use.

Done with sched_setaffinity, so it needs neither root nor control groups.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Set
from pathlib import Path
from typing import TYPE_CHECKING

from sterna.config.bitmaps import format_set, parse_set
from sterna.config.model import DomainDef
from sterna.config.model.tuning import Cputune, VcpuPin
from sterna.errors import ErrorDomain, InvalidArg, SystemCallError
from sterna.guest import modify
from sterna.guest.definitions import vcpus_max
from sterna.guest.flags import Affect
from sterna.guest.jobs import Call
from sterna.guest.running import Running

if TYPE_CHECKING:
    from sterna.guest.actor import Guest


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
    try:
        return {int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()}
    except FileNotFoundError:
        return set()  # it has just ended, and its end is told elsewhere


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


# -- what a client asks for --------------------------------------------------------------------


async def set_vcpu_pin(
    guest: Guest,
    vcpu: int,
    cpus: set[int],
    affect: Affect = Affect.CURRENT,
    api: str = "remoteDispatchDomainPinVcpuFlags",
) -> None:
    """Let a vCPU run on these host CPUs only.

    Raises: InvalidArg (8): none named, or no such vCPU; OperationInvalid (55); SystemCallError.
    """
    _refuse_none(cpus)

    def change(definition: DomainDef) -> None:
        tune = definition.cputune = definition.cputune or Cputune()
        others = [pin for pin in tune.vcpupins if pin.vcpu != vcpu]
        pins = [*others, VcpuPin(vcpu=vcpu, cpuset=format_set(cpus))]
        tune.vcpupins = sorted(pins, key=lambda pin: pin.vcpu or 0)

    async def work() -> None:
        running, stored = modify.affected(guest, affect)
        if running is not None:
            _refuse_beyond(vcpu, running.definition, "live")
        if stored is not None:
            _refuse_beyond(vcpu, stored, "persistent")
        if running is not None:
            thread = running.vcpu_threads.get(vcpu)
            _bind(os.sched_setaffinity, [thread] if thread is not None else [], cpus)
        await _write_down(guest, running, stored, change)

    await guest.do(Call.MODIFY, api, work)


async def set_emulator_pin(guest: Guest, cpus: set[int], affect: Affect = Affect.CURRENT) -> None:
    """Let QEMU's threads that are no vCPUs run on these host CPUs only.

    Raises: as `set_vcpu_pin`.
    """
    _refuse_none(cpus)

    def change(definition: DomainDef) -> None:
        tune = definition.cputune = definition.cputune or Cputune()
        tune.emulatorpin = format_set(cpus)

    async def work() -> None:
        running, stored = modify.affected(guest, affect)
        if running is not None:
            others = _threads(running.pid) - set(running.vcpu_threads.values())
            _bind(os.sched_setaffinity, others, cpus)
        await _write_down(guest, running, stored, change)

    await guest.do(Call.MODIFY, "remoteDispatchDomainPinEmulator", work)


def _refuse_none(cpus: set[int]) -> None:
    if not cpus:
        raise InvalidArg("Empty cpu list for pinning")


def _refuse_beyond(vcpu: int, definition: DomainDef, which: str) -> None:
    count = vcpus_max(definition)
    if vcpu >= count:
        raise InvalidArg(f"vcpu {vcpu} is out of range of {which} cpu count {count}")


async def _write_down(
    guest: Guest,
    running: Running | None,
    stored: DomainDef | None,
    change: Callable[[DomainDef], None],
) -> None:
    if running is not None:
        change(running.definition)
        running.definition_changed()
        guest.post_status()
    if stored is not None:
        await modify.change_stored(guest, change)
