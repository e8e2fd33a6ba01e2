"""What running guests' statistics are made of, fetched with a short deadline and remembered (L6).

A guest whose monitor does not answer in time is answered for from its last reading. /proc is read
directly: small files, one read each, never waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sterna.config.model import Disk
from sterna.errors import SternaError
from sterna.guest.asking import ask_all
from sterna.guest.running import BlockReading, Running

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

DEADLINE_S: Final = 0.25
"""A monitor that is well answers in well under a millisecond."""


async def read_blocks(running: Running, *, deadline_s: float = DEADLINE_S) -> None:
    """Refresh the block readings of one life; after the deadline the old ones stay."""
    if not running.definition.devices.disks:
        return
    with contextlib.suppress(SternaError):
        both = [("query-blockstats", None), ("query-block", None)]
        reply, sizes = await ask_all(running.qemu, both, timeout_s=deadline_s)
        running.readings.blocks = _blocks(running, reply, sizes)


async def read_many(guests: list[Guest]) -> None:
    """Refresh the block readings of many guests at once, within one deadline."""
    lives = [guest.running for guest in guests if guest.running is not None]
    async with asyncio.TaskGroup() as asking:
        for running in lives:
            if running.definition.devices.disks:
                asking.create_task(read_blocks(running))


def _blocks(running: Running, reply: Any, sizes: Any) -> dict[str, BlockReading]:
    by_device = {_device_of(item): item for item in reply}
    images = {_device_of(item): (item.get("inserted") or {}).get("image") for item in sizes}
    found = {}
    for disk in running.definition.devices.disks:
        alias = disk.alias or ""
        for name in (alias, f"drive-{alias}"):
            if name in by_device:
                found[alias] = _block(by_device[name], images.get(name))
                break
    return found


def _device_of(item: Mapping[str, Any]) -> str:
    """The alias in an answer: QEMU names a disk's device by its path in the object tree."""
    path = str(item.get("qdev") or "")
    if path.startswith("/machine/peripheral/"):
        return path.split("/")[3]
    return path or str(item.get("device") or "")


def _block(item: Mapping[str, Any], image: Mapping[str, Any] | None) -> BlockReading:
    stats = item["stats"]
    highest = stats.get("wr_highest_offset")
    parent = (item.get("parent") or {}).get("stats") or {}
    return BlockReading(
        rd_reqs=stats["rd_operations"],
        rd_bytes=stats["rd_bytes"],
        rd_times=stats["rd_total_time_ns"],
        wr_reqs=stats["wr_operations"],
        wr_bytes=stats["wr_bytes"],
        wr_times=stats["wr_total_time_ns"],
        fl_reqs=stats["flush_operations"],
        fl_times=stats["flush_total_time_ns"],
        allocation=parent.get("wr_highest_offset", highest),
        capacity=image.get("virtual-size") if image else None,
        physical=image.get("actual-size") if image else None,
    )


def block_of(running: Running, disk: Disk) -> BlockReading:
    """The last reading of a disk; zeros if there never was one."""
    return running.readings.blocks.get(disk.alias or "", BlockReading())


async def read_balloon(running: Running, *, deadline_s: float = DEADLINE_S) -> None:
    """Refresh what the guest's balloon driver reports, if it has one."""
    balloon = running.definition.devices.memballoon
    if balloon is None or balloon.model in (None, "none") or not balloon.alias:
        return
    path = {"path": f"/machine/peripheral/{balloon.alias}", "property": "guest-stats"}
    with contextlib.suppress(SternaError):
        reply = await running.qemu.execute("qom-get", path, timeout_s=deadline_s)
        if reply.get("last-update"):
            running.readings.balloon_at = int(reply["last-update"])
            running.readings.balloon = {
                name: value
                for name, value in reply.get("stats", {}).items()
                if 0 <= value < UNKNOWN_STAT
            }


UNKNOWN_STAT: Final = 2**64 - 1
"""QEMU's word for a figure the guest did not report."""
