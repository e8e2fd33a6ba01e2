"""Image files as a whole, with qemu-img: what one is, and a new empty one."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from typing import Any, Final

from sterna.errors import InternalError, OperationUnsupported, SystemCallError

FORMATS: Final = ("raw", "qcow2")
"""Those in which a new image can be made."""
QEMU_IMG_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an existing image is; `size` is the guest's, in bytes."""

    format: str
    size: int


async def inspect(path: str) -> ImageInfo:
    """What the file or device at `path` is, by its content. Nothing it refers to is opened.

    Raises: InternalError (1), in qemu-img's words.
    """
    # -U: another process may have it open for writing.
    reply: dict[str, Any] = json.loads(await _qemu_img("info", "-U", "--output=json", path))
    return ImageInfo(reply["format"], reply["virtual-size"])


def reserve(path: str) -> int:
    """Make an empty file, readable by its owner alone; what exists is never touched.

    Returns its inode.

    Raises: SystemCallError (38): there is something at `path`, or it cannot be made.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise SystemCallError(f"cannot create image '{path}'", errno=exc.errno or 0) from exc
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


async def fill(path: str, image_format: str, size: int) -> None:
    """Turn a reserved file into an empty image of `size` bytes.

    Raises: OperationUnsupported (84): not in that format; InternalError (1), in qemu-img's words.
    """
    if image_format not in FORMATS:
        raise OperationUnsupported(f"cannot create image '{path}' in format '{image_format}'")
    await _qemu_img("create", "-q", "-f", image_format, path, str(size))


async def _qemu_img(*words: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *("qemu-img", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(QEMU_IMG_S):
            said, complaint = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise
    if process.returncode:
        raise InternalError(complaint.decode(errors="replace").strip())
    return said
