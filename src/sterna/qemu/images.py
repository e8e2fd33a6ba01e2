"""Backing chains of disk images, read from the images' own headers.

QEMU would follow a chain by itself, but then it guesses a backing image's format where the
header does not tell, and a guest that may write its own header could have any file of the host
opened (CVE-2008-2004). So the chain is found out here and told to QEMU layer by layer; a backing
image whose format isn't recorded is refused, as libvirt does.

Fact: the qcow2 header, QEMU docs/interop/qcow2.txt.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass

from sterna.config.model import BackingStore, Disk, DiskSource, DomainDef
from sterna.errors import ConfigUnsupported, SystemCallError

CHAIN_LENGTH_MAX = 200
"""Layers of one disk. libvirt has the same limit; QEMU gets slow long before."""

_HEADER = struct.Struct(">4sIQI")  # magic, version, offset and length of the backing file's name
_HEADER_BYTES_MAX = 1 << 16
_NAME_BYTES_MAX = 1023
_FORMAT_EXTENSION = 0xE2792ACA


@dataclass(frozen=True, slots=True)
class Backing:
    """What an image's header says of the image below it; no `path`: there is none."""

    path: str | None = None
    format: str | None = None


def read_backing(path: str, image_format: str) -> Backing:
    """The backing image named by an image's header.

    Only qcow2 is read; other formats are taken to have none.

    Raises: SystemCallError if the image cannot be read; ConfigUnsupported if it is not in the
        format it is said to be in, or its header is broken.
    """
    if image_format != "qcow2":
        return Backing()
    try:
        with open(path, "rb") as stream:
            header = stream.read(_HEADER_BYTES_MAX)
    except OSError as error:
        raise SystemCallError(
            f"Cannot access storage file '{path}'", errno=error.errno or 0
        ) from error
    if len(header) < _HEADER.size or header[:4] != b"QFI\xfb":
        raise ConfigUnsupported(f"image '{path}' is not in format qcow2")
    _, version, offset, length = _HEADER.unpack_from(header)
    if offset == 0 or length == 0:
        return Backing()
    if length > _NAME_BYTES_MAX or offset + length > len(header):
        raise ConfigUnsupported(f"image '{path}' has a broken header")
    name = header[offset : offset + length].decode(errors="surrogateescape")
    start = struct.unpack_from(">I", header, 100)[0] if version >= 3 and len(header) > 104 else 72
    return Backing(_resolve(path, name), _recorded_format(header, start, offset))


def _resolve(path: str, name: str) -> str:
    name = name.removeprefix("file:")
    if name.startswith("json:") or (":" in name.split("/", 1)[0]):
        raise ConfigUnsupported(f"backing image '{name}' of '{path}' is not a local file")
    return os.path.normpath(os.path.join(os.path.dirname(path), name))


def _recorded_format(header: bytes, start: int, end: int) -> str | None:
    """The format in the header's extensions, which lie between the header and the name."""
    place = start
    while place + 8 <= min(end, len(header)):
        kind, length = struct.unpack_from(">II", header, place)
        if kind == 0:
            return None
        if kind == _FORMAT_EXTENSION:
            return header[place + 8 : place + 8 + length].decode(errors="replace")
        place += 8 + (length + 7) // 8 * 8
    return None


def resolve_chains(d: DomainDef) -> None:
    """Fill in the backing images of every disk of a definition that is about to run.

    Reads a few pages of each image: call it in a thread. Disks whose chain the definition tells,
    remote disks and empty drives are left alone.

    Raises: SystemCallError, ConfigUnsupported: as `read_backing`.
    """
    for disk in d.devices.disks:
        path = disk.path
        if disk.type not in ("file", "block") or path is None or disk.backing is not None:
            continue
        image_format = disk.driver.type if disk.driver is not None else None
        disk.backing = _chain(disk, path, image_format or "raw")


def _chain(disk: Disk, path: str, image_format: str) -> BackingStore:
    seen = [os.path.realpath(path)]
    found: list[tuple[str, str, str]] = []
    while True:
        backing = read_backing(path, image_format)
        if backing.path is None:
            break
        if backing.format is None:
            raise ConfigUnsupported(
                f"Requested operation is not valid: format of backing image '{backing.path}' of "
                f"image '{path}' was not specified in the image metadata"
            )
        path, image_format = backing.path, backing.format
        real = os.path.realpath(path)
        if real in seen or len(seen) > CHAIN_LENGTH_MAX:
            raise ConfigUnsupported(f"backing chain of disk '{disk.target}' never ends")
        seen.append(real)
        found.append((_kind(path), path, image_format))
    result = BackingStore()
    for kind, file, image in reversed(found):
        source = DiskSource(dev=file) if kind == "block" else DiskSource(file=file)
        result = BackingStore(type=kind, format=image, source=source, backing=result)
    return result


def _kind(path: str) -> str:
    try:
        return "block" if stat.S_ISBLK(os.stat(path).st_mode) else "file"
    except OSError as error:
        raise SystemCallError(
            f"Cannot access storage file '{path}'", errno=error.errno or 0
        ) from error
