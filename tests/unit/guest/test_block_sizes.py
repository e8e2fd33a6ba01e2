"""What the image of a guest that doesn't run tells of itself."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from sterna.config import parse_domain
from sterna.config.model import Disk
from sterna.errors import InvalidArg
from sterna.guest.stats import BlockInfo, _sizes


def disk(path: Path) -> Disk:
    definition = parse_domain(
        "<domain type='qemu'><name>g</name><memory>1024</memory><os><type>hvm</type></os><devices>"
        f"<disk type='file'><driver name='qemu' type='raw'/><source file='{path}'/>"
        "<target dev='vda'/></disk></devices></domain>"
    )
    return definition.devices.disks[0]


def test_a_file_of_holes_takes_no_space(tmp_path: Path) -> None:
    path = tmp_path / "holes.img"
    path.touch()
    os.truncate(path, 1 << 20)
    assert _sizes(path, disk(path)) == BlockInfo(1 << 20, 0, 1 << 20)


def test_a_pipe_holds_nobody(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    async def ask() -> None:
        async with asyncio.timeout(5):
            await asyncio.to_thread(_sizes, path, disk(path))

    with pytest.raises(InvalidArg, match="Illegal seek"):
        asyncio.run(ask())
