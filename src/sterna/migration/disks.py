"""Disks that are copied along: which, what both sides call them, and where they are received.

Names of exports, jobs and nodes are those of libvirt 9.0 (observed), so that either side may be it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sterna.config import DomainDef
from sterna.config.model import Disk
from sterna.errors import InternalError, InvalidArg, OperationFailed
from sterna.guest.ports import Monitor
from sterna.guest.surroundings import MONITOR_S
from sterna.migration import uri
from sterna.migration.cookie import DiskOffer, Nbd
from sterna.migration.flags import COPIES_STORAGE
from sterna.migration.params import Request


@dataclass(frozen=True, slots=True)
class CopiedDisk:
    """One disk, in a guest that runs or waits for its migration.

    Attributes:
        target: its name in the guest, `vda`.
        node: QEMU's block node of its top image.
        export: what the destination calls it; at the source the job's id.
    """

    target: str
    node: str
    export: str


def copied(definition: DomainDef, request: Request) -> list[Disk]:
    """The disks that this migration copies: those that were named, or every one that has an image
    on this host which the guest may write and shares with nobody.

    Raises: InvalidArg (8) for a name that no such disk has.
    """
    if not request.flags & COPIES_STORAGE:
        return []
    candidates = {
        disk.target: disk for disk in definition.devices.disks if not disk.readonly and _has(disk)
    }
    for target in request.disks:
        if target not in candidates:
            raise InvalidArg(f"disk target {target} not found")
    if request.disks:
        return [disk for target, disk in candidates.items() if target in request.disks]
    local = (disk for disk in candidates.values() if disk.type in ("file", "block"))
    return [disk for disk in local if not disk.shareable]


def _has(disk: Disk) -> bool:
    return disk.path is not None or (disk.type == "network" and disk.source is not None)


def as_copied(disk: Disk) -> CopiedDisk:
    """Raises: InternalError (1) for a disk that QEMU was not started with."""
    if disk.source is None or disk.source.index is None or disk.alias is None:
        raise InternalError(f"disk '{disk.target}' has no block node")
    node = f"libvirt-{disk.source.index}-format"
    return CopiedDisk(disk.target, node, f"drive-{disk.alias}")


async def offers(qemu: Monitor, disks: list[CopiedDisk]) -> tuple[DiskOffer, ...]:
    """What cookie 1 says of the disks. Raises: QmpError, MonitorGone, MonitorTimeout."""
    if not disks:
        return ()
    reply = await qemu.execute("query-named-block-nodes", {"flat": True}, timeout_s=MONITOR_S)
    images: Mapping[str, Any] = {node["node-name"]: node["image"] for node in reply}
    return tuple(_offer(disk, images[disk.node]) for disk in disks)


def _offer(disk: CopiedDisk, image: Mapping[str, Any]) -> DiskOffer:
    size = image["virtual-size"]
    # With a backing image more may move than this one holds.
    whole = "backing-filename" in image or "actual-size" not in image
    return DiskOffer(disk.target, size, size if whole else min(size, image["actual-size"]))


def sent_to(request: Request, target: uri.Endpoint, nbd: Nbd | None) -> uri.Endpoint:
    """Where the source sends disks to.

    Raises: InvalidArg (8), ArgumentUnsupported (74): disks_uri is none; OperationFailed (9): the
        destination has not said where it receives them.
    """
    if request.disks_uri is not None:
        place = uri.parse(request.disks_uri)
    elif target.scheme == "tcp":
        place = uri.Endpoint("tcp", target.host)
    else:
        raise InvalidArg("a disks URI is needed where no host is named that receives")
    if place.scheme == "tcp" and place.port is None:
        if nbd is None or nbd.port is None:
            raise OperationFailed("the destination has not said at which port it receives disks")
        place = replace(place, port=nbd.port)
    return place


def receives_at(request: Request, address: str, take_port: Callable[[str], int]) -> uri.Endpoint:
    """Where a destination receives disks; `address` if nobody says otherwise.

    Raises: InvalidArg (8), ArgumentUnsupported (74); as `take_port`.
    """
    wanted = uri.Endpoint("tcp", address)
    if request.disks_uri is not None:
        wanted = uri.parse(request.disks_uri)
    if wanted.scheme == "unix" or wanted.port is not None:
        return wanted
    return replace(wanted, port=request.disks_port or take_port(wanted.host))


def server_address(place: uri.Endpoint) -> dict[str, Any]:
    """QEMU's `SocketAddress`, as blockdev-add takes it."""
    if place.scheme == "unix":
        return {"type": "unix", "path": place.path}
    return {"type": "inet", "host": place.host.strip("[]"), "port": str(place.port)}


async def export(
    qemu: Monitor, disks: Iterable[CopiedDisk], place: uri.Endpoint, tls: Mapping[str, str]
) -> None:
    """Let the source write them; `tls` names QEMU's certificates, if it shall use them.

    Raises: QmpError, MonitorGone, MonitorTimeout.
    """
    kind, *data = server_address(place).items()
    address = {"type": kind[1], "data": dict(data)}
    await qemu.execute("nbd-server-start", {"addr": address, **tls}, timeout_s=MONITOR_S)
    for disk in disks:
        what = {
            "type": "nbd",
            "id": f"libvirt-nbd-{disk.node}",
            "node-name": disk.node,
            "writable": True,
            "name": disk.export,
        }
        await qemu.execute("block-export-add", what, timeout_s=MONITOR_S)
