"""The file of a saved guest: written, read, and refused when it is something else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sterna.errors import OperationFailed, SystemCallError
from sterna.guest.saveimage import (
    ALIGN,
    MAGIC,
    Header,
    create_image,
    keep_image,
    look,
    open_image,
    read_header,
    write_header,
)

HEADER = Header("web", "u", "<domain>é" + "x" * 5000 + "</domain>", True)


def written(path: Path) -> None:
    part = path.with_name(".part")
    fd = create_image(part, part)
    write_header(fd, HEADER)
    os.write(fd, b"stream")
    keep_image(fd, part, path)
    os.close(fd)


def test_a_header_survives_and_the_stream_follows_aligned(tmp_path: Path) -> None:
    path = tmp_path / "a.save"
    written(path)
    assert look(path) == HEADER
    fd = open_image(path)
    read_header(fd, path)
    assert os.lseek(fd, 0, os.SEEK_CUR) % ALIGN == 0
    assert os.read(fd, 100) == b"stream"
    os.close(fd)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"LibvirtQemudSave" + bytes(100),
        MAGIC + (2**40).to_bytes(8, "big"),
        MAGIC + (4).to_bytes(8, "big") + b"[1]x",
        MAGIC + (99).to_bytes(8, "big") + b"{}",
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.save"
    path.write_bytes(content)
    with pytest.raises(OperationFailed, match=r"image (magic|header)"):
        look(path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(SystemCallError, match="No such file"):
        look(tmp_path / "absent")
    with pytest.raises(SystemCallError, match="No such file"):
        create_image(tmp_path / "absent" / ".x", tmp_path / "absent" / "x")


def test_a_pipe_that_nobody_writes_to_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OperationFailed, match="not a regular file"):
        look(path)
