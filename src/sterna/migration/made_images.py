"""The destination's images: checked before anything starts, made where there are none, and removed
again if the guest does not come.

Each is written down before it exists, with its migration. So whichever way that ends, and whoever
dies meanwhile, its decision says whether the image stays (L4): `committed`, or it goes. What was
there before is never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sterna.config.model import Disk
from sterna.errors import InvalidArg, OperationFailed, OperationUnsupported, SystemCallError
from sterna.migration.cookie import DiskOffer
from sterna.qemu import image_files
from sterna.store.errors import StoreFailed
from sterna.store.ports import MadeImage, Store

log = logging.getLogger("sterna.migration.images")


@dataclass(frozen=True, slots=True)
class Target:
    """One disk that is to be received.

    `size` is the source's capacity, `space` what the copy may take, both in bytes.
    """

    path: str
    format: str
    size: int
    space: int


def targets(disks: Iterable[Disk], offered: Iterable[DiskOffer]) -> list[Target]:
    """What the source wants to send, for the disks that have a file or device here.

    Raises: InvalidArg (8): a disk of which the source has not said how large it is.
    """
    by_target = {offer.target: offer for offer in offered}
    found: list[Target] = []
    for disk in disks:
        offer, path = by_target.get(disk.target), disk.path
        if offer is None:
            raise InvalidArg(f"disk target {disk.target} not found")
        if path is None or disk.type not in ("file", "block"):
            continue
        if not path.startswith("/"):
            raise InvalidArg(f"image '{path}' of disk '{disk.target}' has no absolute path")
        image_format = (disk.driver.type if disk.driver is not None else None) or "raw"
        found.append(Target(path, image_format, offer.capacity, offer.space))
    return found


async def missing(wanted: Iterable[Target], *, incremental: bool) -> list[Target]:
    """Look at every image; returns those that have to be made.

    Raises: OperationUnsupported (84): none is there to copy the difference to, or it cannot be
        made; OperationFailed (9): what is there does not fit, or there is not enough space;
        SystemCallError (38): no directory, or no right to look.
    """
    absent: list[Target] = []
    for target in wanted:
        kind = await asyncio.to_thread(_mode, target.path)
        if kind is not None:
            await _check_fits(target, kind)
            continue
        if incremental:
            raise OperationUnsupported(
                f"incremental copy needs the image '{target.path}' at the destination"
            )
        if target.format not in image_files.FORMATS:
            raise OperationUnsupported(
                f"cannot create image '{target.path}' in format '{target.format}'"
            )
        absent.append(target)
    await asyncio.to_thread(_check_space, absent)
    return absent


def _mode(path: str) -> int | None:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise SystemCallError(f"cannot access storage file '{path}'", errno=exc.errno or 0) from exc


async def _check_fits(target: Target, mode: int) -> None:
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise OperationFailed(f"'{target.path}' is no image file and no block device")
    found = await image_files.inspect(target.path)
    if found.format != target.format:
        raise OperationFailed(
            f"image '{target.path}' is in format '{found.format}', not '{target.format}'"
        )
    if found.size != target.size:
        raise OperationFailed(
            f"image '{target.path}' has {found.size} bytes, the source's {target.size}"
        )


def _check_space(absent: Iterable[Target]) -> None:
    needed: dict[int, int] = defaultdict(int)
    for target in absent:
        directory = os.path.dirname(target.path)
        try:
            device, free = os.stat(directory).st_dev, os.statvfs(directory)
        except OSError as exc:
            text = f"cannot create image '{target.path}'"
            raise SystemCallError(text, errno=exc.errno or 0) from exc
        needed[device] += target.space
        room = free.f_bavail * free.f_frsize
        if needed[device] > room:
            raise OperationFailed(
                f"not enough space for image '{target.path}': {needed[device]} bytes are needed"
                f" there, {room} are free"
            )


class MadeImages:
    """The images that are made for one migration."""

    def __init__(self, store: Store, migration: str, uuid: UUID) -> None:
        self._store, self._migration, self._uuid = store, migration, uuid
        self.absent: list[Target] = []
        self._made: list[str] = []

    async def make(self) -> None:
        """Make what is `absent`. Raises: SternaError; `settle` removes what was made by then."""
        for target in self.absent:
            image = MadeImage(target.path, self._migration, self._uuid)
            self._made.append(target.path)
            await self._store.put_made_image(image)
            inode = await asyncio.to_thread(image_files.reserve, target.path)
            await self._store.put_made_image(
                MadeImage(target.path, self._migration, self._uuid, inode)
            )
            await image_files.fill(target.path, target.format, target.size)
            log.info("image.made mig=%s path=%s bytes=%d", self._migration, *_brief(target))

    async def settle(self) -> None:
        """The migration is over here: keep or remove them, as was decided. Nobody starts anything
        with them before this has returned."""
        if self._made:
            mine = [image for image in await _known(self._store) if image.path in self._made]
            await _settle(self._store, mine)


def _brief(target: Target) -> tuple[str, int]:
    return target.path, target.size


async def settle_all(store: Store) -> None:
    """After a daemon's death: keep or remove what it had made."""
    await _settle(store, await _known(store))


async def _known(store: Store) -> list[MadeImage]:
    try:
        return list(await store.made_images())
    except StoreFailed as exc:
        log.error("image.unknown error=%r", exc.detail)
        return []


async def _settle(store: Store, images: Iterable[MadeImage]) -> None:
    for image in images:
        try:
            if not await _is_committed(store, image):
                await asyncio.to_thread(_remove, image)
            await store.forget_made_image(image.path)
        except (StoreFailed, OSError) as exc:
            # The next daemon tries again.
            log.error("image.left path=%s error=%r", image.path, str(exc))


async def _is_committed(store: Store, image: MadeImage) -> bool:
    """To ask decides: an image must not go that a decision still to come would need. (L4)"""
    try:
        decision = await store.decide(image.migration, "aborted", image.uuid)
    except StoreFailed:
        # A full disk, say. Writes keep their order, so whatever was to be decided is by now.
        standing = await store.decision(image.migration)
        return standing is not None and standing.verdict == "committed"
    return decision.verdict == "committed"


def _remove(image: MadeImage) -> None:
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(image.path)
        # Without an inode its daemon died as it made it: then it is empty.
        ours = found.st_ino == image.inode if image.inode else found.st_size == 0
        if ours and stat.S_ISREG(found.st_mode):
            os.unlink(image.path)
            log.info("image.removed mig=%s path=%s", image.migration, image.path)
