"""The file a saved guest lies in.

Layout, all of it ours::

    16 bytes   magic "STERNA-SAVE-1\\n\\0\\0"
    8 bytes    length of the header, big-endian
    N bytes    header: JSON object, UTF-8
               xml      live definition, with everything needed to build the same machine
               running  whether its CPUs ran, so whether they shall when it is restored
               uuid, name
    padding    zero bytes up to a multiple of 4096
    rest       QEMU's migration stream

A file is written under another name and renamed when it is whole, so that there is no half one.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sterna.config.document import XML_BYTES_MAX
from sterna.errors import OperationFailed, SystemCallError

MAGIC: Final = b"STERNA-SAVE-1\n\0\0"
ALIGN: Final = 4096
HEADER_BYTES_MAX: Final = 2 * XML_BYTES_MAX
"""JSON escapes make a text longer; a longer header is not one of ours."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is known about a saved guest without loading it."""

    name: str
    uuid: str
    xml: str
    running: bool


def write_header(fd: int, header: Header) -> None:
    """Write it at the start of an empty file and leave the offset where the stream begins."""
    body = json.dumps(
        {"name": header.name, "uuid": header.uuid, "xml": header.xml, "running": header.running}
    ).encode()
    head = MAGIC + len(body).to_bytes(8, "big") + body
    head += bytes(-len(head) % ALIGN)
    view = memoryview(head)
    while view:
        view = view[os.write(fd, view) :]


def read_header(fd: int, path: Path) -> Header:
    """Read it and leave the offset where the stream begins.

    Raises: OperationFailed (9) if this is no image of ours.
    """
    head = os.read(fd, len(MAGIC) + 8)
    size = int.from_bytes(head[len(MAGIC) :], "big")
    if head[: len(MAGIC)] != MAGIC or size > HEADER_BYTES_MAX:
        raise OperationFailed(f"image magic is incorrect: '{path}' is no saved guest of ours")
    body = b""
    while len(body) < size and (part := os.read(fd, size - len(body))):
        body += part
    try:
        fields = json.loads(body)
        header = Header(
            str(fields["name"]), str(fields["uuid"]), str(fields["xml"]), bool(fields["running"])
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise OperationFailed(f"image header of '{path}' is damaged") from exc
    os.lseek(fd, -(-(len(MAGIC) + 8 + size) // ALIGN) * ALIGN, os.SEEK_SET)
    return header


def look(path: Path) -> Header:
    """The header of an image.

    Raises: SystemCallError (38), OperationFailed (9).
    """
    fd = open_image(path)
    try:
        return read_header(fd, path)
    finally:
        os.close(fd)


def open_image(path: Path) -> int:
    """A descriptor for reading.

    Raises: SystemCallError (38), OperationFailed (9) for what is no file.
    """
    try:
        # A pipe that nobody writes to must not hold anybody up.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise SystemCallError(f"Failed to open file '{path}'", errno=exc.errno or 0) from exc
    kind = os.fstat(fd).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
        os.close(fd)
        raise OperationFailed(f"'{path}' is no saved guest of ours: not a regular file")
    os.set_blocking(fd, True)
    return fd


def create_image(part: Path, path: Path) -> int:
    """A descriptor for writing a new file, readable by its owner alone: it holds a guest's memory.

    `path` is what it will be called, for the error.

    Raises: SystemCallError (38).
    """
    try:
        part.unlink(missing_ok=True)
        return os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise SystemCallError(f"Failed to create file '{path}'", errno=exc.errno or 0) from exc


def keep_image(fd: int, part: Path, path: Path) -> None:
    """Make a whole file lasting, under its name. Blocks for as long as the disk needs."""
    try:
        os.fsync(fd)
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as exc:
        raise SystemCallError(f"Failed to write file '{path}'", errno=exc.errno or 0) from exc
