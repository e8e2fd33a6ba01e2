"""A guest moves between Sterna and the real libvirtd, by unmodified virsh (I21)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qemu.moving import GUEST, QUICK
from support.clients import STERNA, run
from support.daemon import Daemon
from support.fixtures import Hosts, MakeGuest
from support.host import Host
from support.real_libvirtd import available, two_libvirtds
from support.serial import SerialTap

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.clients,
    pytest.mark.skipif(not available(), reason="needs root and libvirtd"),
    pytest.mark.timeout(120),
]


@pytest.fixture
def libvirtd(short_dir: Path) -> Iterator[Host]:
    with two_libvirtds(short_dir) as (one, _):
        yield one


@pytest.fixture
def sterna(hosts: Hosts) -> Daemon:
    return hosts.start("alpha")


def move(source: Host, destination: Host, directory: Path, *options: str) -> None:
    """The two are in network namespaces of their own, but see the same files."""
    data = f"unix://{directory}/data.sock"
    words = ("migrate", "--live", GUEST, destination.uri, "--migrateuri", data, *options)
    source.virsh(*words, timeout_s=60).check()
    assert source.qemus() == []
    assert destination.state(GUEST) == "running (migrated)"


def test_there_and_back(
    sterna: Daemon,
    libvirtd: Host,
    serial_tap: SerialTap,
    tick_guest_xml: MakeGuest,
    short_dir: Path,
) -> None:
    sterna.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks()
    move(sterna, libvirtd, short_dir)
    serial_tap.wait_more_ticks()
    move(libvirtd, sterna, short_dir)
    told = sterna.said("domjobinfo", GUEST, "--completed")
    assert "Incoming migration" in told
    history = serial_tap.wait_more_ticks(10)
    history.check_one_history()


def test_definitions_go_along(
    sterna: Daemon,
    libvirtd: Host,
    serial_tap: SerialTap,
    tick_guest_xml: MakeGuest,
    short_dir: Path,
) -> None:
    """Each side's cookie carries a definition that the other understands."""
    sterna.virsh("define", "/dev/stdin", stdin=tick_guest_xml(GUEST, QUICK)).check()
    sterna.virsh("start", GUEST).check()
    serial_tap.wait_more_ticks()
    move(sterna, libvirtd, short_dir, "--persistent", "--undefinesource")
    assert sterna.guests("--all") == set()
    assert GUEST in libvirtd.guests("--persistent")
    move(libvirtd, sterna, short_dir, "--persistent", "--undefinesource")
    assert libvirtd.guests("--all") == set()
    assert GUEST in sterna.guests("--persistent")
    serial_tap.wait_more_ticks(10).check_one_history()
    sterna.virsh("destroy", GUEST).check()
    sterna.virsh("undefine", GUEST).check()


@pytest.fixture(params=["direct", "tunnelled"])
def road(request: pytest.FixtureRequest, short_dir: Path) -> tuple[str, ...]:
    """How the data goes, as an option of `sterna migrate`."""
    if request.param == "tunnelled":
        return ("--tunnelled",)
    return ("--migrate-uri", f"unix://{short_dir}/data.sock")


def test_either_drives_the_migration_to_the_other(
    sterna: Daemon,
    libvirtd: Host,
    serial_tap: SerialTap,
    tick_guest_xml: MakeGuest,
    road: tuple[str, ...],
) -> None:
    """Peer-to-peer. (virsh wants a host in the URI; our client asks for one with a path.)"""
    sterna.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks()
    for source, destination in ((sterna, libvirtd), (libvirtd, sterna)):
        words = (*STERNA, "migrate", "-c", source.uri, GUEST, destination.uri, *road)
        run(words, timeout_s=60).check()
        assert source.qemus() == []
        assert destination.state(GUEST) == "running (migrated)"
        serial_tap.wait_more_ticks()
    serial_tap.wait_more_ticks(10).check_one_history()


def test_one_that_does_not_run(
    sterna: Daemon, libvirtd: Host, tick_guest_xml: MakeGuest, short_dir: Path
) -> None:
    """Offline there and back; a libvirtd claims nothing, so its rules are all there is."""
    words = ("--offline", "--persistent", "--undefinesource")
    to_libvirtd = ("migrate", GUEST, libvirtd.uri, *words)
    data = ("--migrateuri", f"unix://{short_dir}/data.sock")
    sterna.define(tick_guest_xml(GUEST, QUICK))
    sterna.virsh(*to_libvirtd, *data).check()
    assert (sterna.guests("--all"), libvirtd.guests("--all")) == (set(), {GUEST})
    libvirtd.virsh("migrate", GUEST, sterna.uri, *words, *data).check()
    assert (sterna.guests("--all"), libvirtd.guests("--all")) == ({GUEST}, set())
    sterna.virsh("undefine", GUEST).check()


def test_several_connections(
    sterna: Daemon,
    libvirtd: Host,
    serial_tap: SerialTap,
    tick_guest_xml: MakeGuest,
    short_dir: Path,
) -> None:
    sterna.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks()
    many = ("--parallel", "--parallel-connections", "3")
    move(sterna, libvirtd, short_dir, *many)
    move(libvirtd, sterna, short_dir, *many, "--compressed")
    serial_tap.wait_more_ticks(10).check_one_history()


def test_its_disk_goes_there_and_back(
    sterna: Daemon,
    libvirtd: Host,
    serial_tap: SerialTap,
    tick_guest_xml: MakeGuest,
    short_dir: Path,
) -> None:
    """Over NBD. libvirtd makes no image outside of its pools, we do."""
    paths = [short_dir / name for name in ("first.img", "second.img", "third.img")]
    for path in paths[:2]:
        path.write_bytes(bytes(8 << 20))
    disk = (
        f"<disk type='file'><driver name='qemu' type='raw'/><source file='{paths[0]}'/>"
        "<target dev='hda' bus='ide'/></disk>"
    )
    writer = replace(QUICK, disk_every_ticks=1)
    sterna.create(tick_guest_xml(GUEST, writer, devices=disk))
    serial_tap.wait_more_ticks()
    for source, destination, here, there in (
        (sterna, libvirtd, paths[0], paths[1]),
        (libvirtd, sterna, paths[1], paths[2]),
    ):
        told = source.said("dumpxml", GUEST, "--migratable")
        xml = source.file("there.xml", told.replace(str(here), str(there)))
        disks = f"unix://{short_dir}/disks.sock"
        options = ("--copy-storage-all", "--disks-uri", disks, "--xml", xml)
        move(source, destination, short_dir, *options)
        serial_tap.wait_more_ticks(10).check_one_history()


def test_post_copy_driven_by_either(
    sterna: Daemon,
    libvirtd: Host,
    serial_tap: SerialTap,
    tick_guest_xml: MakeGuest,
    short_dir: Path,
) -> None:
    """The guest runs at the other one before its memory is there."""
    sterna.create(tick_guest_xml(GUEST, replace(QUICK, region_mib=48, dirty_mib_s=8)))
    serial_tap.wait_more_ticks()
    slowly = ("--postcopy", "--bandwidth", "30", "--migrate-uri", f"unix://{short_dir}/data.sock")
    for source, destination in ((sterna, libvirtd), (libvirtd, sterna)):
        words = (*STERNA, "migrate", "-c", source.uri, GUEST, destination.uri, *slowly)
        run(words, timeout_s=60).check()
        assert source.qemus() == []
        assert destination.state(GUEST) == "running (migrated)"
        serial_tap.wait_more_ticks()
    serial_tap.wait_more_ticks(10).check_one_history()
