"""Backing chains from headers written by hand, byte for byte as QEMU's document says."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from sterna.config.document import parse_domain
from sterna.config.model import DomainDef
from sterna.errors import ConfigUnsupported, SystemCallError
from sterna.qemu.images import Backing, read_backing, resolve_chains


def qcow2(
    path: Path, backing: str | None = None, backing_format: str | None = None, *, version: int = 3
) -> Path:
    """A file that begins with a qcow2 header."""
    start = 104 if version == 3 else 72
    extensions = b""
    if backing_format is not None:
        data = backing_format.encode()
        extensions += struct.pack(">II", 0x6803F857, 5) + b"other" + bytes(3)
        extensions += struct.pack(">II", 0xE2792ACA, len(data)) + data + bytes(-len(data) % 8)
    extensions += struct.pack(">II", 0, 0)
    name = (backing or "").encode()
    offset = start + len(extensions) if name else 0
    header = struct.pack(">4sIQI", b"QFI\xfb", version, offset, len(name)).ljust(start, b"\0")
    if version == 3:
        header = header[:100] + struct.pack(">I", start)
    path.write_bytes(header + extensions + name)
    return path


def guest(path: Path, image_format: str = "qcow2", backing: str = "") -> DomainDef:
    return parse_domain(
        "<domain type='qemu'><name>a</name><memory>1</memory><devices><disk type='file'>"
        f"<driver name='qemu' type='{image_format}'/><source file='{path}'/>{backing}"
        "<target dev='vda' bus='virtio'/></disk></devices></domain>"
    )


@pytest.mark.parametrize("version", [2, 3])
def test_name_and_format_of_the_backing_image(tmp_path: Path, version: int) -> None:
    image = qcow2(tmp_path / "top", "sub/base.img", "raw", version=version)
    assert read_backing(str(image), "qcow2") == Backing(f"{tmp_path}/sub/base.img", "raw")
    assert read_backing(str(qcow2(tmp_path / "x", "/b")), "qcow2") == Backing("/b", None)


def test_an_image_without_backing(tmp_path: Path) -> None:
    assert read_backing(str(qcow2(tmp_path / "top")), "qcow2") == Backing()
    assert read_backing("/nonexistent", "raw") == Backing()


def test_a_chain_is_told_layer_by_layer(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(b"")
    qcow2(tmp_path / "mid", str(tmp_path / "base"), "raw")
    d = guest(qcow2(tmp_path / "top", "mid", "qcow2"))
    resolve_chains(d)
    mid = d.devices.disks[0].backing
    assert mid is not None
    assert mid.source is not None
    assert (mid.type, mid.format, mid.source.file) == ("file", "qcow2", str(tmp_path / "mid"))
    base = mid.backing
    assert base is not None
    assert base.source is not None
    assert (base.format, base.source.file) == ("raw", str(tmp_path / "base"))
    assert base.backing is not None
    assert base.backing.type is None


def test_a_chain_the_definition_tells_is_believed(tmp_path: Path) -> None:
    d = guest(qcow2(tmp_path / "top", "gone", "qcow2"), backing="<backingStore/>")
    resolve_chains(d)
    backing = d.devices.disks[0].backing
    assert backing is not None
    assert backing.type is None


def test_a_format_is_never_guessed(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(b"")
    d = guest(qcow2(tmp_path / "top", str(tmp_path / "base")))
    with pytest.raises(ConfigUnsupported, match="format of backing image"):
        resolve_chains(d)


def test_a_loop_ends(tmp_path: Path) -> None:
    qcow2(tmp_path / "b", "a", "qcow2")
    d = guest(qcow2(tmp_path / "a", "b", "qcow2"))
    with pytest.raises(ConfigUnsupported, match="never ends"):
        resolve_chains(d)


@pytest.mark.parametrize("name", ["json:{}", "nbd:host:1", "http://x/y"])
def test_remote_backing_is_refused(tmp_path: Path, name: str) -> None:
    d = guest(qcow2(tmp_path / "top", name, "raw"))
    with pytest.raises(ConfigUnsupported, match="not a local file"):
        resolve_chains(d)


def test_what_is_missing_or_no_qcow2_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemCallError, match="Cannot access storage file"):
        resolve_chains(guest(tmp_path / "nothing"))
    plain = tmp_path / "plain"
    plain.write_bytes(b"just bytes")
    with pytest.raises(ConfigUnsupported, match="not in format qcow2"):
        resolve_chains(guest(plain))
    with pytest.raises(SystemCallError):
        resolve_chains(guest(qcow2(tmp_path / "top", "gone", "raw")))
