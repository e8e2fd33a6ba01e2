"""Making and copying image files, with qemu-img."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sterna.config.document import parse_xml
from sterna.config.values import size_bytes
from sterna.errors import (
    ConfigUnsupported,
    InternalError,
    StorageVolExists,
    SystemCallError,
    XmlError,
)
from sterna.host.volumes import Volume
from sterna.server.pools import STORAGE, Pool, check_active, volume

FORMATS: Final = ("raw", "qcow2")
CREATE_S: Final = 60.0
COPY_S: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a volume's XML asks for."""

    name: str
    format: str
    capacity: int
    backing: str | None = None
    backing_format: str | None = None
    allocation: int = 0


def read_volume(xml: str) -> Wanted:
    """Raises: XmlDetail, XmlError, InvalidArg, ConfigUnsupported."""
    root = parse_xml(xml, "storage_volume_definition")
    if root.tag != "volume":
        raise XmlError(f"unexpected root element <{root.tag}>, expecting <volume>", domain=STORAGE)
    name = root.findtext("name") or ""
    if not name or "/" in name or "\n" in name or name in (".", ".."):
        raise XmlError(f"invalid storage volume name {name!r}", domain=STORAGE)
    capacity, allocation = (
        size_bytes(size.text or "0", size.get("unit"), "B") if size is not None else 0
        for size in (root.find("capacity"), root.find("allocation"))
    )
    place = root.find("target/format")
    image_format = (place.get("type") if place is not None else None) or "raw"
    if image_format not in FORMATS:
        raise ConfigUnsupported(f"volumes of format '{image_format}' are not supported")
    if root.find("target/encryption") is not None:
        raise ConfigUnsupported("encrypted volumes are not supported")
    backing = root.findtext("backingStore/path")
    below = root.find("backingStore/format")
    below_format = below.get("type") if below is not None else None
    return Wanted(name, image_format, capacity, backing, below_format, allocation)


async def create(pool: Pool, wanted: Wanted, *, metadata: bool = False) -> Volume:
    """Make an empty image; with `metadata` what describes its content is written at once.

    Raises: StorageVolExists (90), InternalError, SystemCallError.
    """
    words = ["create", "-q", "-f", wanted.format]
    if metadata and wanted.format == "qcow2":
        words += ["-o", "preallocation=metadata"]
    if wanted.format == "raw" and wanted.allocation >= wanted.capacity > 0:
        words += ["-o", "preallocation=falloc"]
    if wanted.backing is not None:
        words += ["-b", wanted.backing, "-F", wanted.backing_format or "raw"]
    return await _make(pool, wanted, words, [str(wanted.capacity)], CREATE_S)


async def copy(pool: Pool, wanted: Wanted, source: Volume) -> Volume:
    """Make an image of another one's content. Raises: as `create`."""
    words = ["convert", "-q", "-f", source.format, "-O", wanted.format, source.path]
    return await _make(pool, wanted, words, [], COPY_S)


async def delete(found: Volume) -> None:
    """Raises: SystemCallError."""
    try:
        await asyncio.to_thread(os.rmdir if found.format == "dir" else os.unlink, found.path)
    except OSError as exc:
        raise SystemCallError(
            f"cannot unlink file '{found.path}'", errno=exc.errno or 0, domain=STORAGE
        ) from exc


async def _make(
    pool: Pool, wanted: Wanted, words: list[str], last: list[str], within_s: float
) -> Volume:
    check_active(pool)
    path = Path(pool.path) / wanted.name
    await asyncio.to_thread(_reserve, path)
    process = await asyncio.create_subprocess_exec(
        *("qemu-img", *words, str(path), *last),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(within_s):
            _, complaint = await process.communicate()
        if process.returncode:
            raise InternalError(complaint.decode(errors="replace").strip(), domain=STORAGE)
    except BaseException:
        if process.returncode is None:
            process.kill()
        await asyncio.to_thread(path.unlink, missing_ok=True)
        raise
    return await volume(pool, wanted.name)


def _reserve(path: Path) -> None:
    """Make the file, readable by its owner alone: what exists is never overwritten."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise StorageVolExists(f"storage volume '{path.name}' exists already") from None
    except OSError as exc:
        raise SystemCallError(
            f"cannot create path '{path}'", errno=exc.errno or 0, domain=STORAGE
        ) from exc
