"""May this guest migrate, and is it safe? Asked by Begin, before anything is touched.

Rules and texts are those of libvirt 9.0 (observed).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from sterna.config import DomainDef
from sterna.config.model import Disk
from sterna.errors import ConfigUnsupported, MigrateUnsafe, OperationInvalid
from sterna.guest.actor import Guest
from sterna.guest.jobs import Operation
from sterna.guest.running import Running
from sterna.guest.states import PausedReason, State
from sterna.guest.surroundings import MONITOR_S
from sterna.migration import qmp
from sterna.rpc.enums import MigrateFlag

SHARED_FILE_SYSTEMS: Final = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "ceph",
        "gfs2",
        "ocfs2",
        "lustre",
        "gpfs",
        "fuse.glusterfs",
        "fuse.quobyte",
        "fuse.ceph",
        "fuse.sshfs",
    }
)
MOUNTS: Final = Path("/proc/self/mountinfo")


def check_free(guest: Guest) -> Running:
    """Refuse a guest that does not run, or that somebody's connection owns.

    Raises: OperationInvalid (55).
    """
    running = guest.live_or_refuse()
    job = guest.job
    # One that has arrived is only being tidied up after: whoever sends it on at once just waits.
    if running.incoming or (job is not None and job.operation is Operation.MIGRATION_OUT):
        raise OperationInvalid(
            f"another migration job is already running for domain '{guest.name}'"
        )
    if guest.surroundings.autokill.find(guest.uuid) is not None:
        # Its life belongs to a connection here, which does not exist on the other host.
        raise OperationInvalid("domain is marked for auto destroy")
    return running


async def check_movable(guest: Guest, running: Running, flags: MigrateFlag) -> None:
    """Refuse what QEMU, or the guest's state, keeps here.

    Raises: OperationInvalid (55); QmpError, MonitorGone, MonitorTimeout.
    """
    reasons = (await qmp.query(running.qemu)).get("blocked-reasons")
    if reasons:
        raise OperationInvalid(f"cannot migrate domain: {'; '.join(reasons)}")
    broken = guest.state is State.PAUSED and guest.reason is PausedReason.IOERROR
    if MigrateFlag.ABORT_ON_ERROR in flags and broken:
        raise OperationInvalid("cannot migrate domain with I/O error")
    if running.definition.devices.disks and await running.qemu.execute(
        "query-block-jobs", timeout_s=MONITOR_S
    ):
        raise OperationInvalid("domain has active block job")


def check_safe(definition: DomainDef, copied: Collection[str]) -> None:
    """Refuse disks that the destination cannot see; `copied` are the targets of those it gets.

    Raises: MigrateUnsafe (81).
    """
    mounts = _mounts()
    for disk in definition.devices.disks:
        if disk.target not in copied and not _is_safe(disk, mounts):
            raise MigrateUnsafe("Migration without shared storage is unsafe")


def _is_safe(disk: Disk, mounts: list[tuple[str, str]]) -> bool:
    path = disk.path
    if disk.readonly or not path or disk.type in ("network", "block"):
        return True
    if disk.type == "nvme":
        return False
    # QEMU drops its caches when it activates an image (since 3.0), so the cache mode is no matter.
    return disk.type == "file" and _file_system(path, mounts) in SHARED_FILE_SYSTEMS


def _mounts() -> list[tuple[str, str]]:
    """Mount points, the longest first, and their file systems. Of equals the newest counts."""
    found: dict[str, str] = {}
    for line in MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) > 4 and after:
            found[fields[4].replace("\\040", " ")] = after.split(" ")[0]
    return sorted(found.items(), key=lambda mount: len(mount[0]), reverse=True)


def _file_system(path: str, mounts: list[tuple[str, str]]) -> str:
    real = Path(path).resolve()
    for point, kind in mounts:
        if real.is_relative_to(point):
            return kind
    return ""


def check_same_machine(source: DomainDef, target: DomainDef) -> None:
    """Refuse a destination XML that describes another machine than the one that runs.

    Raises: ConfigUnsupported (67).
    """
    if source.uuid != target.uuid:
        text = f"Target domain uuid {target.uuid} does not match source {source.uuid}"
        raise ConfigUnsupported(text)
    for what, ours, theirs in (
        ("virt type", source.type, target.type),
        ("max memory", source.memory, target.memory),
        ("vCPU max", source.vcpu, target.vcpu),
        ("disk count", len(source.devices.disks), len(target.devices.disks)),
        ("net card count", len(source.devices.interfaces), len(target.devices.interfaces)),
        ("serial port count", len(source.devices.serials), len(target.devices.serials)),
        ("console count", len(source.devices.consoles), len(target.devices.consoles)),
        ("channel count", len(source.devices.channels), len(target.devices.channels)),
        ("controller count", len(source.devices.controllers), len(target.devices.controllers)),
        ("input device count", len(source.devices.inputs), len(target.devices.inputs)),
    ):
        if ours != theirs:
            raise ConfigUnsupported(f"Target domain {what} {theirs} does not match source {ours}")
    for here, there in zip(source.devices.disks, target.devices.disks, strict=True):
        if (here.target, here.bus) != (there.target, there.bus):
            text = f"Target disk {there.target} does not match source {here.target}"
            raise ConfigUnsupported(text)
