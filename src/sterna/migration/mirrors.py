"""The source's block jobs: each disk mirrored over NBD to the destination's, and taken down again.

Commands and their order are those libvirt 9.0 was observed to use. The job of one disk goes
through `running` and `ready` to `concluded` (QMP reference, `JobStatus`); ended without force while
the guest stands, source and copy are equal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sterna.errors import OperationFailed, OperationTimeout
from sterna.guest.ports import Monitor
from sterna.guest.surroundings import MONITOR_S
from sterna.migration.core import events as on
from sterna.migration.disks import CopiedDisk, server_address
from sterna.migration.uri import Endpoint
from sterna.qemu.qmp_errors import QmpError
from sterna.qemu.qmp_session import Event
from sterna.rpc.enums import MigrateFlag

log = logging.getLogger("sterna.migration.source")

END_S: Final = 10.0
"""How long ended jobs may take to conclude. With the guest stopped only what is in flight is left;
by force nothing is."""


BURST_BYTES: Final = 16 << 20
"""What QEMU sends in one go before it rests to keep to a speed. With a low one that rest would look
like a stall, so no more than a second's worth is sent."""


class Mirrors:
    """The copied disks of one outgoing migration. One piece of work at a time."""

    def __init__(self, qemu: Monitor, disks: Iterable[CopiedDisk]) -> None:
        self._qemu = qemu
        self._disks = {disk.export: disk for disk in disks}
        self._status: dict[str, str] = {}
        self._told_ready = False
        self._ending = False
        self._changed = asyncio.Event()
        self._busy = asyncio.Lock()
        self._last = {"total": 0, "remaining": 0, "transferred": 0}

    @property
    def any(self) -> bool:
        return bool(self._disks)

    def heard(self, event: Event) -> on.DisksReady | on.DiskFailed | None:
        """What QEMU says of its jobs; returns what the core should know of that."""
        data = event.data
        if event.name == "JOB_STATUS_CHANGE" and data.get("id") in self._disks:
            self._status[data["id"]] = data["status"]
            self._changed.set()
            return self._ready()
        if event.name != "BLOCK_JOB_COMPLETED" or self._ending:
            return None
        disk = self._disks.get(data.get("device", ""))
        if disk is None:
            return None
        # A mirror goes on until it is told to end.
        why = data.get("error", "it ended before it was told to")
        return on.DiskFailed(f"migration of disk {disk.target} failed: {why}")

    def _ready(self) -> on.DisksReady | None:
        if self._told_ready or any(self._status.get(id) != "ready" for id in self._disks):
            return None
        self._told_ready = True
        return on.DisksReady()

    # -- work ------------------------------------------------------------------------------------

    async def start(
        self, place: Endpoint, flags: MigrateFlag, speed_bps: int, tls: Mapping[str, str]
    ) -> None:
        """Begin to copy every disk to `place`, each as fast as `speed_bps`, 0 for no limit; `tls`
        names QEMU's certificates and the peer's name, if it shall use them.

        Raises: SternaError; what was begun is dropped by `drop`.
        """
        async with self._busy:
            for disk in self._disks.values():
                if self._ending:
                    raise OperationFailed("the copying of disks was given up")
                await self._connect(disk, place, tls)
                await self._start(disk, flags, speed_bps)

    async def _connect(self, disk: CopiedDisk, place: Endpoint, tls: Mapping[str, str]) -> None:
        storage, top = _nodes(disk)
        await self._ask(
            "blockdev-add",
            {
                "node-name": storage,
                "driver": "nbd",
                "server": server_address(place),
                "export": disk.export,
                "read-only": False,
                "discard": "unmap",
                **tls,
            },
        )
        await self._ask("blockdev-add", {"node-name": top, "driver": "raw", "file": storage})

    async def _start(self, disk: CopiedDisk, flags: MigrateFlag, speed_bps: int) -> None:
        _, top = _nodes(disk)
        mirror = {
            "job-id": disk.export,
            "device": disk.node,
            "target": top,
            "speed": speed_bps,
            "sync": "top" if MigrateFlag.NON_SHARED_INC in flags else "full",
            "auto-finalize": True,
            "auto-dismiss": False,
        }
        if speed_bps:
            mirror["buf-size"] = min(BURST_BYTES, speed_bps)
        if MigrateFlag.NON_SHARED_SYNCHRONOUS_WRITES in flags:
            mirror["copy-mode"] = "write-blocking"
        await self._ask("blockdev-mirror", mirror)

    async def settle(self) -> None:
        """The guest stands: end every copy where both sides are equal.

        Raises: OperationFailed (9): one ended otherwise; OperationTimeout (68); SternaError.
        """
        async with self._busy:
            self._ending = True
            await self.progress()
            for id in self._disks:
                await self._ask("block-job-cancel", {"device": id})
            await self._concluded(self._disks)
            jobs = {job["id"]: job for job in await self._ask("query-jobs")}
            for id, disk in self._disks.items():
                if "error" in jobs[id]:
                    text = f"migration of disk {disk.target} failed: {jobs[id]['error']}"
                    raise OperationFailed(text)
                await self._ask("job-dismiss", {"id": id})
            await self._forget_nodes()
            self._last["transferred"], self._last["remaining"] = self._last["total"], 0

    async def drop(self) -> None:
        """Take down whatever there is of them, begun by us or by a daemon before us. Raises:
        SternaError: QEMU does not answer."""
        self._ending = True
        self._changed.set()
        async with self._busy:
            jobs = await self._jobs()
            for id, status in jobs.items():
                if status not in ("concluded", "null"):
                    await self._quietly("block-job-cancel", {"device": id, "force": True})
            try:
                await self._concluded(jobs)
            except OperationTimeout:
                log.error("migration.mirrors_left jobs=%s", ",".join(jobs))
            for id in jobs:
                await self._quietly("job-dismiss", {"id": id})
            await self._forget_nodes()

    async def progress(self) -> Mapping[str, int]:
        """Bytes as `query-migrate` would count them: total, remaining, transferred."""
        reply = await self._ask("query-block-jobs")
        mine = [job for job in reply if job["device"] in self._disks]
        if mine:
            total, done = sum(job["len"] for job in mine), sum(job["offset"] for job in mine)
            self._last = {"total": total, "remaining": total - done, "transferred": done}
        return self._last

    async def _jobs(self) -> dict[str, str]:
        reply = await self._ask("query-jobs")
        found = {job["id"]: job["status"] for job in reply if job["id"] in self._disks}
        self._status.update(found)
        return found

    async def _concluded(self, ids: Iterable[str]) -> None:
        try:
            async with asyncio.timeout(END_S):
                while any(self._status.get(id) not in ("concluded", "null") for id in ids):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise OperationTimeout("QEMU did not end the copying of disks") from None

    async def _forget_nodes(self) -> None:
        nodes = await self._ask("query-named-block-nodes", {"flat": True})
        known = {node["node-name"] for node in nodes}
        for disk in self._disks.values():
            for name in reversed(_nodes(disk)):
                if name in known:
                    await self._quietly("blockdev-del", {"node-name": name})

    async def _quietly(self, command: str, arguments: Mapping[str, Any]) -> None:
        try:
            await self._ask(command, arguments)
        except QmpError as exc:
            log.warning("migration.mirror_not_dropped command=%s error=%r", command, exc.detail)

    async def _ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        return await self._qemu.execute(command, arguments, timeout_s=MONITOR_S)


def _nodes(disk: CopiedDisk) -> tuple[str, str]:
    """The copy's nodes: its connection, and what is mirrored to."""
    return f"migration-{disk.target}-storage", f"migration-{disk.target}-format"
