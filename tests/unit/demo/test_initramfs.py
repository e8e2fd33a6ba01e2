"""The archive we write is what cpio reads."""

from __future__ import annotations

import subprocess

import pytest

from sterna.demo import initramfs


def test_it_is_repeatable_and_aligned() -> None:
    data = initramfs.archive(b"busybox")
    assert data == initramfs.archive(b"busybox")
    assert len(data) % 4 == 0
    assert data.startswith(b"070701")


def test_names_modes_and_contents_are_where_the_format_says() -> None:
    data = initramfs.archive(b"BUSYBOX")
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + i * 8 : at + 14 + i * 8], 16) for i in range(13)]
        name_at, size, name_size = at + 110, fields[6], fields[11]
        name = data[name_at : name_at + name_size - 1].decode()
        data_at = -(-(name_at + name_size) // 4) * 4
        found[name] = (fields[1], data[data_at : data_at + size])
        at = -(-(data_at + size) // 4) * 4
    assert found["bin/busybox"] == (0o100755, b"BUSYBOX")
    assert found["init"] == (0o100755, initramfs.INIT.encode())
    assert found["dev/console"] == (0o020600, b"")
    assert list(found)[-1] == "TRAILER!!!"


def test_the_script_is_a_script() -> None:
    done = subprocess.run(["sh", "-n"], input=initramfs.INIT.encode(), check=False, timeout=10)
    assert done.returncode == 0


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4])
def test_contents_are_padded(size: int) -> None:
    assert len(initramfs.archive(b"x" * size)) % 4 == 0
