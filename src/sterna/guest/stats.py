"""Statistics as clients ask for them. Names and order are those of libvirt 9.0 (observed)."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sterna.config.model import Disk
from sterna.errors import InvalidArg, OperationInvalid
from sterna.guest import readings
from sterna.guest.definitions import memory_max_kib, memory_now_kib, vcpus_max, vcpus_now
from sterna.guest.running import BlockReading, Running
from sterna.host.netstat import InterfaceCounters, interface_counters
from sterna.host.process import ProcessStats, ThreadStats, process_stats, thread_stats

if TYPE_CHECKING:
    from sterna.guest.actor import Guest


class StatsGroup(IntFlag):
    STATE = 1
    CPU_TOTAL = 2
    BALLOON = 4
    VCPU = 8
    INTERFACE = 16
    BLOCK = 32
    PERF = 64
    IOTHREAD = 128
    MEMORY = 256
    DIRTYRATE = 512
    VM = 1024


SERVED: Final = (
    StatsGroup.STATE
    | StatsGroup.CPU_TOTAL
    | StatsGroup.BALLOON
    | StatsGroup.VCPU
    | StatsGroup.INTERFACE
    | StatsGroup.BLOCK
    | StatsGroup.IOTHREAD
    | StatsGroup.DIRTYRATE
)


class Kind(IntFlag):
    """The wire's type of a value."""

    INT = 1
    UINT = 2
    LLONG = 3
    ULLONG = 4
    STRING = 7


class Stat(NamedTuple):
    """One named value, with the type the wire gives it."""

    name: str
    kind: Kind
    value: int | str


class MemoryTag:
    """Numbers of the memory statistics."""

    SWAP_IN, SWAP_OUT, MAJOR_FAULT, MINOR_FAULT, UNUSED, AVAILABLE, ACTUAL, RSS = range(8)
    USABLE, LAST_UPDATE, DISK_CACHES, HUGETLB_PGALLOC, HUGETLB_PGFAIL = range(8, 13)


@dataclass(frozen=True, slots=True)
class Info:
    """`dominfo`: state, memory in KiB, vcpus and CPU time in ns."""

    state: int
    max_memory: int
    memory: int
    vcpus: int
    cpu_time: int


@dataclass(frozen=True, slots=True)
class VcpuInfo:
    """One vcpu: number, state (0 offline, 1 running, 2 blocked), CPU time in ns, host CPU."""

    number: int
    state: int
    cpu_time: int
    cpu: int


@dataclass(frozen=True, slots=True)
class BlockInfo:
    """Sizes of one disk in bytes."""

    capacity: int
    allocation: int
    physical: int


# -- all groups of many guests --------------------------------------------------------------------


async def all_stats(guests: list[Guest], groups: int = 0) -> list[tuple[Guest, list[Stat]]]:
    """The groups asked for (0: all) of each guest. Answers within `readings.DEADLINE_S`, however
    the guests fare (L6)."""
    wanted = StatsGroup(groups & int(SERVED)) if groups else SERVED
    if wanted & StatsGroup.BLOCK:
        await readings.read_many(guests)
    counters = interface_counters() if wanted & StatsGroup.INTERFACE else {}
    return [(guest, list(_of(guest, wanted, counters))) for guest in guests]


def _of(
    guest: Guest, wanted: StatsGroup, counters: Mapping[str, InterfaceCounters]
) -> Iterator[Stat]:
    running = guest.running if guest.running and guest.running.process else None
    process = _process(running)
    if wanted & StatsGroup.STATE:
        yield Stat("state.state", Kind.INT, int(guest.state))
        yield Stat("state.reason", Kind.INT, int(guest.reason))
    if wanted & StatsGroup.CPU_TOTAL and process is not None:
        yield from _cpu(process)
    if wanted & StatsGroup.BALLOON:
        yield from _balloon(guest, running, process)
    if wanted & StatsGroup.VCPU:
        yield from _vcpu(guest, running)
    if wanted & StatsGroup.INTERFACE and running is not None:
        yield from _net(running, counters)
    if wanted & StatsGroup.BLOCK:
        yield from _block(guest, running)
    if wanted & StatsGroup.IOTHREAD and running is not None and running.definition.iothreads:
        yield Stat("iothread.count", Kind.UINT, running.definition.iothreads)
    if wanted & StatsGroup.DIRTYRATE and running is not None:
        yield Stat("dirtyrate.calc_status", Kind.INT, 0)
        yield Stat("dirtyrate.calc_start_time", Kind.LLONG, 0)
        yield Stat("dirtyrate.calc_period", Kind.INT, 0)
        yield Stat("dirtyrate.calc_mode", Kind.STRING, "page-sampling")


def _process(running: Running | None) -> ProcessStats | None:
    if running is None:
        return None
    try:
        return process_stats(running.pid)
    except ProcessLookupError:
        return None


def _cpu(process: ProcessStats) -> Iterator[Stat]:
    yield Stat("cpu.time", Kind.ULLONG, process.cpu_ns)
    yield Stat("cpu.user", Kind.ULLONG, process.user_ns)
    yield Stat("cpu.system", Kind.ULLONG, process.system_ns)


def _balloon(guest: Guest, running: Running | None, process: ProcessStats | None) -> Iterator[Stat]:
    yield Stat("balloon.current", Kind.ULLONG, memory_now_kib(guest.current))
    yield Stat("balloon.maximum", Kind.ULLONG, memory_max_kib(guest.current))
    if running is not None and process is not None:
        yield Stat("balloon.last-update", Kind.ULLONG, running.readings.balloon_at)
        yield Stat("balloon.rss", Kind.ULLONG, process.rss_kib)


def _vcpu(guest: Guest, running: Running | None) -> Iterator[Stat]:
    yield Stat("vcpu.current", Kind.UINT, vcpus_now(guest.current))
    yield Stat("vcpu.maximum", Kind.UINT, vcpus_max(guest.current))
    if running is None:
        return
    for number, thread in _threads(running):
        yield Stat(f"vcpu.{number}.state", Kind.INT, 1)
        if thread is not None:
            yield Stat(f"vcpu.{number}.time", Kind.ULLONG, thread.cpu_ns)
            yield Stat(f"vcpu.{number}.wait", Kind.ULLONG, 0)
            yield Stat(f"vcpu.{number}.delay", Kind.ULLONG, thread.delay_ns)


def _threads(running: Running) -> Iterator[tuple[int, ThreadStats | None]]:
    known = sorted(running.vcpu_threads.items())
    times = thread_stats(running.pid, [thread for _, thread in known])
    yield from zip((number for number, _ in known), times, strict=True)


def _net(running: Running, counters: Mapping[str, InterfaceCounters]) -> Iterator[Stat]:
    interfaces = running.definition.devices.interfaces
    yield Stat("net.count", Kind.UINT, len(interfaces))
    for index, interface in enumerate(interfaces):
        if not interface.target:
            continue  # type user: nothing on the host to count with
        yield Stat(f"net.{index}.name", Kind.STRING, interface.target)
        counted = counters.get(interface.target)
        if counted is None:
            continue
        c = counted.from_guest()
        for word, values in (
            ("rx", (c.rx_bytes, c.rx_packets, c.rx_errors, c.rx_drops)),
            ("tx", (c.tx_bytes, c.tx_packets, c.tx_errors, c.tx_drops)),
        ):
            for what, value in zip(("bytes", "pkts", "errs", "drop"), values, strict=True):
                yield Stat(f"net.{index}.{word}.{what}", Kind.ULLONG, value)


def _block(guest: Guest, running: Running | None) -> Iterator[Stat]:
    disks = guest.current.devices.disks
    yield Stat("block.count", Kind.UINT, len(disks))
    for index, disk in enumerate(disks):
        head = f"block.{index}"
        yield Stat(f"{head}.name", Kind.STRING, disk.target)
        if disk.path:
            yield Stat(f"{head}.path", Kind.STRING, disk.path)
        if running is None:
            continue
        if disk.source is not None and disk.source.index is not None:
            yield Stat(f"{head}.backingIndex", Kind.UINT, disk.source.index)
        r = readings.block_of(running, disk)
        for word, reqs, size, times in (
            ("rd", r.rd_reqs, r.rd_bytes, r.rd_times),
            ("wr", r.wr_reqs, r.wr_bytes, r.wr_times),
        ):
            yield Stat(f"{head}.{word}.reqs", Kind.ULLONG, reqs)
            yield Stat(f"{head}.{word}.bytes", Kind.ULLONG, size)
            yield Stat(f"{head}.{word}.times", Kind.ULLONG, times)
        yield Stat(f"{head}.fl.reqs", Kind.ULLONG, r.fl_reqs)
        yield Stat(f"{head}.fl.times", Kind.ULLONG, r.fl_times)
        for word, bytes_ in (
            ("allocation", r.allocation),
            ("capacity", r.capacity),
            ("physical", r.physical),
        ):
            if bytes_ is not None and disk.path:
                yield Stat(f"{head}.{word}", Kind.ULLONG, bytes_)


# -- one thing of one guest -----------------------------------------------------------------------


def info(guest: Guest) -> Info:
    """What `dominfo` shows; reads /proc, waits for nothing."""
    current = guest.current
    process = _process(guest.running)
    return Info(
        state=int(guest.state),
        max_memory=memory_max_kib(current),
        memory=memory_now_kib(current),
        vcpus=vcpus_now(current),
        cpu_time=process.cpu_ns if process is not None else 0,
    )


def vcpus(guest: Guest) -> list[VcpuInfo]:
    """What each running vcpu does. Raises: OperationInvalid (55) if the guest does not run."""
    running = guest.running
    if running is None:
        raise OperationInvalid("cannot retrieve vcpu information for inactive domain")
    return [
        VcpuInfo(number, 1, thread.cpu_ns, thread.cpu)
        if thread is not None
        else VcpuInfo(number, 0, 0, 0)
        for number, thread in _threads(running)
    ]


async def memory_stats(guest: Guest) -> list[tuple[int, int]]:
    """Pairs of `MemoryTag` and value: KiB, or a plain number for faults and times.

    Raises: OperationInvalid (55).
    """
    running = guest.live_or_refuse()
    await readings.read_balloon(running)
    process = _process(running)
    said = running.readings.balloon
    found = [(MemoryTag.ACTUAL, memory_now_kib(running.definition))]
    for tag, name, unit in (
        (MemoryTag.SWAP_IN, "stat-swap-in", 1024),
        (MemoryTag.SWAP_OUT, "stat-swap-out", 1024),
        (MemoryTag.MAJOR_FAULT, "stat-major-faults", 1),
        (MemoryTag.MINOR_FAULT, "stat-minor-faults", 1),
        (MemoryTag.UNUSED, "stat-free-memory", 1024),
        (MemoryTag.AVAILABLE, "stat-total-memory", 1024),
        (MemoryTag.USABLE, "stat-available-memory", 1024),
    ):
        if name in said:
            found.append((tag, said[name] // unit))
    found.append((MemoryTag.LAST_UPDATE, running.readings.balloon_at))
    if "stat-disk-caches" in said:
        found.append((MemoryTag.DISK_CACHES, said["stat-disk-caches"] // 1024))
    if process is not None:
        found.append((MemoryTag.RSS, process.rss_kib))
    return found


async def block_stats(guest: Guest, path: str) -> BlockReading:
    """Counters of one disk, by target or source; of all together for "".

    Raises: OperationInvalid (55), InvalidArg (8).
    """
    running = guest.live_or_refuse()
    disks = [find_disk(guest, path)] if path else running.definition.devices.disks
    await readings.read_blocks(running)
    each = [readings.block_of(running, disk) for disk in disks]
    names = ("rd_reqs", "rd_bytes", "rd_times", "wr_reqs", "wr_bytes", "wr_times")
    sums: dict[str, Any] = {
        name: sum(getattr(reading, name) for reading in each)
        for name in (*names, "fl_reqs", "fl_times")
    }
    return BlockReading(**sums)


def find_disk(guest: Guest, path: str) -> Disk:
    """The disk with that target or source. Raises: InvalidArg (8)."""
    for disk in guest.current.devices.disks:
        if path and path in (disk.target, disk.path):
            return disk
    raise InvalidArg(f"invalid path: {path}")


def interface_stats(guest: Guest, device: str) -> InterfaceCounters:
    """Counters of one interface, by its name on the host or its MAC, as the guest sees them.

    Raises: OperationInvalid (55), InvalidArg (8).
    """
    running = guest.live_or_refuse()
    for interface in running.definition.devices.interfaces:
        if interface.target and device in (interface.target, interface.mac):
            counted = interface_counters().get(interface.target)
            if counted is not None:
                return counted.from_guest()
    raise InvalidArg(f"'{device}' is not a known interface")


async def block_info(guest: Guest, path: str) -> BlockInfo:
    """Sizes of one disk: QEMU's word while it runs, else the file's.

    Raises: InvalidArg (8), SternaError.
    """
    try:
        disk = find_disk(guest, path)
    except InvalidArg:
        raise InvalidArg(f"invalid path {path} not assigned to domain") from None
    if not disk.path:
        raise InvalidArg(f"disk '{disk.target}' does not currently have a source assigned")
    running = guest.running
    if running is not None and running.monitor is not None:
        await readings.read_blocks(running)
        r = readings.block_of(running, disk)
        if r.capacity is not None:
            physical = await asyncio.to_thread(_physical, Path(disk.path))
            return BlockInfo(r.capacity, r.physical or 0, physical)
    return await asyncio.to_thread(_sizes, Path(disk.path), disk)


def _physical(path: Path) -> int:
    """The size of a file, or of a block device."""
    try:
        # A pipe without a writer must not hold us.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.lseek(fd, 0, os.SEEK_END)
        finally:
            os.close(fd)
    except OSError as exc:
        raise InvalidArg(f"cannot stat file '{path}': {exc.strerror}") from exc


def _sizes(path: Path, disk: Disk) -> BlockInfo:
    physical = _physical(path)
    found = path.stat()
    allocated = physical if stat.S_ISBLK(found.st_mode) else found.st_blocks * 512
    capacity = physical
    if disk.driver is not None and disk.driver.type == "qcow2":
        with path.open("rb") as stream:
            head = stream.read(32)
        # QEMU's docs/interop/qcow2.txt: magic at 0, virtual size at 24, big-endian.
        if head[:4] == b"QFI\xfb":
            capacity = int.from_bytes(head[24:32], "big")
    return BlockInfo(capacity, allocated, physical)
