"""Image files in a directory, as a storage pool of type `dir` shows them."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sterna.host.xmltext import XmlText

FILE, DIRECTORY = 0, 2
_QCOW2: Final = struct.Struct(">4sIQIIQ")
"""Magic, version, offset and length of the backing file's name, cluster bits, size."""
NAME_BYTES_MAX: Final = 1023


@dataclass(frozen=True, slots=True)
class Volume:
    """One entry of the directory. Sizes are bytes; `capacity` is what a guest would see."""

    name: str
    path: str
    kind: int
    format: str
    capacity: int
    allocation: int
    physical: int
    stat: os.stat_result
    backing: str | None = None


def look(path: Path) -> Volume | None:
    """What a path shows as; None for what is neither file, block device nor directory.

    Raises: OSError.
    """
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        return Volume(path.name, str(path), DIRECTORY, "dir", 0, 0, 0, found)
    if not stat.S_ISREG(found.st_mode):
        return None
    allocation = found.st_blocks * 512
    image_format, capacity, backing = _read_header(path, found.st_size)
    return Volume(
        path.name,
        str(path),
        FILE,
        image_format,
        capacity,
        allocation,
        found.st_size,
        found,
        backing,
    )


def _read_header(path: Path, size: int) -> tuple[str, int, str | None]:
    """Format, capacity and backing file."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_QCOW2.size)
            if len(head) < _QCOW2.size or head[:4] != b"QFI\xfb":
                return "raw", size, None
            _, _, offset, length, _, capacity = _QCOW2.unpack(head)
            backing = None
            if offset and 0 < length <= NAME_BYTES_MAX:
                stream.seek(offset)
                name = stream.read(length).decode(errors="replace")
                backing = os.path.normpath(path.parent / name)
            return "qcow2", capacity, backing
    except PermissionError:
        return "raw", size, None


def scan(directory: Path) -> list[Volume]:
    """Everything in a directory that can be shown, by name. Raises: OSError."""
    found = []
    for path in sorted(directory.iterdir()):
        try:
            volume = look(path)
        except OSError:
            continue  # it went meanwhile, or is a link to nowhere
        if volume is not None:
            found.append(volume)
    return found


def space(directory: Path) -> tuple[int, int, int]:
    """Bytes of the file system: all, used, free. Raises: OSError."""
    found = os.statvfs(directory)
    capacity = found.f_blocks * found.f_frsize
    free = found.f_bfree * found.f_frsize
    return capacity, capacity - free, free


def pool_xml(name: str, uuid: str, directory: Path, *, active: bool) -> str:
    """The pool's definition; sizes and permissions while it is active."""
    capacity, allocation, available = space(directory) if active else (0, 0, 0)
    text = XmlText()
    with text.element("pool", type="dir"):
        text.leaf("name", name)
        text.leaf("uuid", uuid)
        text.leaf("capacity", capacity, unit="bytes")
        text.leaf("allocation", allocation, unit="bytes")
        text.leaf("available", available, unit="bytes")
        with text.element("source"):
            pass
        with text.element("target"):
            text.leaf("path", directory)
            if active:
                _permissions(text, directory.stat())
    return str(text)


def volume_xml(volume: Volume) -> str:
    """A volume, as libvirt 9.0 shows one of a directory (observed)."""
    text = XmlText()
    with text.element("volume", type="dir" if volume.kind == DIRECTORY else "file"):
        text.leaf("name", volume.name)
        text.leaf("key", volume.path)
        text.leaf("capacity", volume.capacity, unit="bytes")
        text.leaf("allocation", volume.allocation, unit="bytes")
        if volume.kind == FILE:
            text.leaf("physical", volume.physical, unit="bytes")
        with text.element("target"):
            text.leaf("path", volume.path)
            text.leaf("format", type=volume.format)
            _permissions(text, volume.stat)
            _times(text, volume.stat)
        if volume.backing is not None:
            with text.element("backingStore"):
                text.leaf("path", volume.backing)
    return str(text)


def _permissions(text: XmlText, found: os.stat_result) -> None:
    with text.element("permissions"):
        text.leaf("mode", f"0{stat.S_IMODE(found.st_mode):o}")
        text.leaf("owner", found.st_uid)
        text.leaf("group", found.st_gid)


def _times(text: XmlText, found: os.stat_result) -> None:
    with text.element("timestamps"):
        for name, at in (
            ("atime", found.st_atime_ns),
            ("mtime", found.st_mtime_ns),
            ("ctime", found.st_ctime_ns),
        ):
            text.leaf(name, f"{at // 10**9}.{at % 10**9:09}")
