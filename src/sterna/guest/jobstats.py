"""What a long operation says of itself: numbers for `domjobinfo`, and where they come from.

Names, units and order are those of the protocol's job statistics (libvirt 9.0, observed); a value
that is None is not known and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any, Self


class JobType(IntEnum):
    NONE = 0
    BOUNDED = 1
    UNBOUNDED = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5


class JobOperation(IntEnum):
    UNKNOWN = 0
    START = 1
    SAVE = 2
    RESTORE = 3
    MIGRATION_IN = 4
    MIGRATION_OUT = 5
    SNAPSHOT = 6
    SNAPSHOT_REVERT = 7
    DUMP = 8
    BACKUP = 9
    SNAPSHOT_DELETE = 10


@dataclass(frozen=True, slots=True)
class JobStats:
    """One reading. Times in ms, sizes in bytes, dirty rate in pages a second.

    Field names are the wire's parameter names; their order here is their order there.
    """

    type: JobType
    operation: JobOperation
    time_elapsed: int = 0
    time_elapsed_net: int | None = None
    downtime: int | None = None
    downtime_net: int | None = None
    setup_time: int | None = None
    data_total: int = 0
    data_processed: int = 0
    data_remaining: int = 0
    memory_total: int = 0
    memory_processed: int = 0
    memory_remaining: int = 0
    memory_bps: int | None = None
    memory_constant: int | None = None
    memory_normal: int | None = None
    memory_normal_bytes: int | None = None
    memory_dirty_rate: int | None = None
    memory_iteration: int | None = None
    memory_postcopy_requests: int | None = None
    memory_page_size: int | None = None
    disk_total: int = 0
    disk_processed: int = 0
    disk_remaining: int = 0
    disk_bps: int | None = None
    compression_cache: int | None = None
    compression_bytes: int | None = None
    compression_pages: int | None = None
    compression_cache_misses: int | None = None
    compression_overflow: int | None = None
    auto_converge_throttle: int | None = None
    errmsg: str | None = None

    def params(self) -> Iterator[tuple[str, int | str]]:
        """Name and value of everything known except `type`, in the wire's order."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "type" and value is not None:
                yield field.name, int(value) if isinstance(value, IntEnum) else value

    def finished(self, type: JobType, **more: int | str | None) -> Self:
        """The same numbers as those of an operation that is over."""
        return replace(self, type=type, **more)  # type: ignore[arg-type]  # values per field name

    @classmethod
    def of_migration(
        cls,
        operation: JobOperation,
        reply: Mapping[str, Any],
        *,
        time_elapsed: int,
        type: JobType = JobType.UNBOUNDED,
    ) -> Self:
        """From QEMU's `query-migrate`. `time_elapsed` is ours: QEMU's starts later."""
        ram: Mapping[str, Any] = reply.get("ram") or {}
        disk: Mapping[str, Any] = reply.get("disk") or {}
        xbzrle: Mapping[str, Any] = reply.get("xbzrle-cache") or {}
        total, remaining = ram.get("total", 0), ram.get("remaining", 0)
        processed = ram.get("transferred", 0)
        disk_total, disk_remaining = disk.get("total", 0), disk.get("remaining", 0)
        disk_processed = disk.get("transferred", 0)
        rate = int(ram.get("mbps", 0) * 1_000_000 / 8)
        return cls(
            type=type,
            operation=operation,
            time_elapsed=time_elapsed,
            downtime=reply.get("downtime", reply.get("expected-downtime")),
            setup_time=reply.get("setup-time"),
            data_total=total + disk_total,
            data_processed=processed + disk_processed,
            data_remaining=remaining + disk_remaining,
            memory_total=total,
            memory_processed=processed,
            memory_remaining=remaining,
            memory_bps=rate or None,
            memory_constant=ram.get("duplicate"),
            memory_normal=ram.get("normal"),
            memory_normal_bytes=ram.get("normal-bytes"),
            memory_dirty_rate=ram.get("dirty-pages-rate"),
            memory_iteration=ram.get("dirty-sync-count"),
            memory_postcopy_requests=ram.get("postcopy-requests"),
            memory_page_size=ram.get("page-size"),
            disk_total=disk_total,
            disk_processed=disk_processed,
            disk_remaining=disk_remaining,
            compression_cache=xbzrle.get("cache-size"),
            compression_bytes=xbzrle.get("bytes"),
            compression_pages=xbzrle.get("pages"),
            compression_cache_misses=xbzrle.get("cache-miss"),
            compression_overflow=xbzrle.get("overflow"),
            auto_converge_throttle=reply.get("cpu-throttle-percentage") or None,
        )
