"""The QMP commands of a migration, in the order in which they must come.

Names and meaning are those of QEMU's QMP reference (7.2); the order is the one libvirt 9.0 was
observed to use, but for late-block-activate, which stays off (docs/explanation/migration.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sterna.errors import InternalError, OperationInvalid
from sterna.guest.ports import Monitor
from sterna.guest.surroundings import MONITOR_S
from sterna.migration.tuning import MIB
from sterna.qemu.qmp_errors import QmpError

KNOWN_CAPABILITIES: Final = (
    "xbzrle",
    "auto-converge",
    "rdma-pin-all",
    "postcopy-ram",
    "compress",
    "pause-before-switchover",
    "late-block-activate",
    "multifd",
    "dirty-bitmaps",
    "return-path",
    "zero-copy-send",
)
"""Those a peer is told of, in libvirt's order. `events` is on from launch."""

_RESTORED: Final = (
    "compress-level",
    "compress-threads",
    "decompress-threads",
    "cpu-throttle-initial",
    "cpu-throttle-increment",
    "tls-creds",
    "tls-hostname",
    "max-bandwidth",
    "max-postcopy-bandwidth",
    "downtime-limit",
    "xbzrle-cache-size",
    "multifd-channels",
    "multifd-compression",
    "multifd-zlib-level",
    "multifd-zstd-level",
)
"""Parameters that a migration may change."""

UNLIMITED_BPS: Final = 9223372036853727232
"""What libvirt 9.0 sets for "no limit": the largest whole number of MiB that QEMU takes."""


async def supported_capabilities(qemu: Monitor) -> tuple[str, ...]:
    """Which of the known capabilities this QEMU has."""
    reply = await qemu.execute("query-migrate-capabilities", timeout_s=MONITOR_S)
    have = {item["capability"] for item in reply}
    return tuple(name for name in KNOWN_CAPABILITIES if name in have)


async def original_parameters(qemu: Monitor) -> dict[str, Any]:
    """The parameters that will be put back when the migration is over (I22)."""
    reply = await qemu.execute("query-migrate-parameters", timeout_s=MONITOR_S)
    return {name: reply[name] for name in _RESTORED if name in reply}


async def set_capabilities(qemu: Monitor, have: Iterable[str], wanted: Iterable[str]) -> None:
    """Switch the wanted ones on, all other known ones off."""
    on = frozenset(wanted)
    states = [{"capability": name, "state": name in on} for name in have]
    await qemu.execute("migrate-set-capabilities", {"capabilities": states}, timeout_s=MONITOR_S)


async def set_parameters(qemu: Monitor, values: Mapping[str, Any]) -> None:
    if values:
        await qemu.execute("migrate-set-parameters", values, timeout_s=MONITOR_S)


async def query(qemu: Monitor) -> dict[str, Any]:
    """`query-migrate`; an empty answer while QEMU knows of no migration."""
    reply: dict[str, Any] = await qemu.execute("query-migrate", timeout_s=MONITOR_S)
    return reply


async def close_channels(qemu: Monitor) -> None:
    """Close the data connections that QEMU made itself, for a migration that is being cancelled.

    QEMU 7.2 waits, after `migrate_cancel`, for channels whose peer takes nothing any more
    (verified); `yank` is its own remedy.
    """
    with contextlib.suppress(QmpError):  # it knows of none: they are closed
        yanked = {"instances": [{"type": "migration"}]}
        await qemu.execute("yank", yanked, timeout_s=MONITOR_S)


async def cancel(qemu: Monitor, *, waits: bool) -> None:
    """End the outgoing migration; `waits`: it was told to wait at the switchover.

    QEMU 7.2 looks whether it was cancelled, and then waits for `migrate-continue` all the same: a
    cancel in between leaves it waiting for ever, with its guest stopped. Told to go on from the
    state in which it then is, it sees the cancel. (3 of 60 cancels at the switchover met that
    moment; of 300 that were followed by this, none hung.)
    """
    await qemu.execute("migrate_cancel", timeout_s=MONITOR_S)
    if waits:
        with contextlib.suppress(QmpError):  # it is in no such state: it has heard
            state = {"state": "cancelling"}
            await qemu.execute("migrate-continue", state, timeout_s=MONITOR_S)


async def check_ready(qemu: Monitor, *, has_disks: bool) -> None:
    """Refuse a guest that `cont` could not start, while that is still the source's luck.

    QEMU activates the images when the last byte is in and only logs a failure; the block graph then
    shows a device without the permission to write. (Verified with QEMU 7.2: a guest device's edge
    is called "root" and has "write" once its image is ours.)

    Raises: OperationInvalid (55), InternalError (1); QmpError, MonitorGone, MonitorTimeout.
    """
    status = await _ask(qemu, "query-status")
    if status["status"] in ("internal-error", "shutdown", "inmigrate", "finish-migrate"):
        raise OperationInvalid(f"guest cannot be started: QEMU is in state '{status['status']}'")
    if has_disks:
        graph = await _ask(qemu, "x-debug-query-block-graph")
        not_ours = _not_activated(graph, await _ask(qemu, "query-named-block-nodes", flat=True))
        if not_ours:
            nodes = ", ".join(not_ours)
            raise InternalError(f'Failed to get "write" lock: {nodes} could not be activated')


async def _ask(qemu: Monitor, command: str, **arguments: Any) -> Any:
    return await qemu.execute(command, arguments or None, timeout_s=MONITOR_S)


def _not_activated(graph: dict[str, Any], nodes: list[dict[str, Any]]) -> list[str]:
    """Writable nodes that a guest device uses without the permission to write."""
    writable = {node["node-name"] for node in nodes if not node["ro"]}
    names = {node["id"]: node.get("name", "") for node in graph["nodes"]}
    devices = {node["id"] for node in graph["nodes"] if node["type"] == "block-backend"}
    return sorted(
        names[edge["child"]]
        for edge in graph["edges"]
        if edge["parent"] in devices
        and names[edge["child"]] in writable
        and "write" not in edge["perm"]
    )


def bandwidth_bps(mib: int) -> int:
    """QEMU's `max-bandwidth` for a speed in MiB/s; 0 is no limit."""
    return mib * MIB if mib else UNLIMITED_BPS
