"""virsh on storage pools: directories, and the images in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.daemon import Daemon
from support.host import Host


@pytest.fixture
def images(host: Host) -> Path:
    """A directory that is the active pool `images`."""
    path = host.root.with_name("images")
    path.mkdir()
    host.said("pool-define-as", "images", "dir", "--target", str(path))
    host.said("pool-start", "images")
    return path


def test_a_pool_lives(host: Host, images: Path) -> None:
    host.said("pool-autostart", "images")
    assert host.said("pool-list", "--name") == "images"
    shown = dict(line.split(":", 1) for line in host.said("pool-info", "images").splitlines())
    assert shown["State"].strip() == "running"
    assert shown["Persistent"].strip() == shown["Autostart"].strip() == "yes"
    assert f"<path>{images}</path>" in host.said("pool-dumpxml", "images")
    assert "is already active" in host.refused("pool-start", "images")
    assert "is still active" in host.refused("pool-undefine", "images")
    conflict = host.refused("pool-define-as", "more", "dir", "--target", str(images))
    assert "Storage source conflict with pool: 'images'" in conflict
    host.said("pool-destroy", "images")
    assert host.said("pool-list", "--name", "--inactive") == "images"
    host.said("pool-undefine", "images")
    missing = host.refused("pool-info", "images")
    assert "Storage pool not found: no storage pool with matching name 'images'" in missing


def test_a_directory_that_is_not_there(host: Host) -> None:
    path = host.root.with_name("later")
    host.said("pool-define-as", "later", "dir", "--target", str(path))
    assert "No such file or directory" in host.refused("pool-start", "later")
    host.said("pool-build", "later")
    host.said("pool-start", "later")
    assert path.is_dir()


def test_images_are_made_shown_copied_and_deleted(host: Host, images: Path) -> None:
    make = ("vol-create-as", "images", "--format", "qcow2")
    host.said(*make, "base.qcow2", "64M")
    below = ("--backing-vol", "base.qcow2", "--backing-vol-format", "qcow2")
    host.said(*make, "top.qcow2", "64M", *below)
    assert "storage volume 'top.qcow2' exists already" in host.refused(*make, "top.qcow2", "1M")
    host.said("vol-clone", "base.qcow2", "copy.qcow2", "--pool", "images")
    found = [line.split()[0] for line in host.said("vol-list", "images").splitlines()]
    assert found == ["base.qcow2", "copy.qcow2", "top.qcow2"]
    text = host.said("vol-dumpxml", str(images / "top.qcow2"))
    assert "<capacity unit='bytes'>67108864</capacity>" in text
    assert "<format type='qcow2'/>" in text
    assert f"<path>{images / 'base.qcow2'}</path>" in text
    host.said("vol-delete", "copy.qcow2", "--pool", "images")
    assert not (images / "copy.qcow2").exists()
    missing = host.refused("vol-info", str(images / "copy.qcow2"))
    assert "Storage volume not found: no storage vol with matching path" in missing


def test_no_name_leads_out_of_the_directory(host: Host, images: Path) -> None:
    outside = host.file("outside.img", "mine")
    name = f"../{Path(outside).name}"
    assert host.virsh("vol-delete", name, "--pool", "images").code
    assert host.virsh("vol-create-as", "images", name, "1M").code
    assert Path(outside).read_text() == "mine"


def test_pools_outlive_the_daemon(hosts: object, host: Host, images: Path) -> None:
    assert isinstance(host, Daemon)
    host.said("pool-autostart", "images")
    other = host.root.with_name("other")
    other.mkdir()
    host.said("pool-create-as", "other", "dir", "--target", str(other))
    host.restart()
    assert host.said("pool-list", "--name") == "images"
    assert host.said("pool-list", "--all", "--name") == "images"
