"""Guests whose disks move with them: copied over NBD while they are written to."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from qemu.moving import GUEST, check_stayed, is_copying, migrate_words
from support.fixtures import Hosts, MakeGuest, TwoDaemons
from support.host import Host
from support.processes import wait_for
from support.qemu_certificates import make_authority, make_host
from support.serial import SerialTap
from support.tick_guest import TickParameters

pytestmark = [pytest.mark.qemu, pytest.mark.clients, pytest.mark.timeout(120)]

MIB = 1 << 20
SILENT_NS = 2_000_000_000
DISK_BYTES = 32 * MIB
# Writes its disk all the time; of memory it has little.
WRITER = TickParameters(region_mib=4, dirty_mib_s=1, check_mib_s=8, disk_every_ticks=1)
# Its memory takes a while, too.
WIDE = TickParameters(region_mib=64, dirty_mib_s=1, check_mib_s=16, disk_every_ticks=5)
DISK = """<disk type='file' device='disk'>
  <driver name='qemu' type='{format}'/><source file='{path}'/><target dev='hda' bus='ide'/>
</disk>"""


@dataclass
class Copying:
    """A guest with a disk at the source, and where that is to be at the destination."""

    hosts: TwoDaemons
    here: Path
    there: Path
    format: str
    xml: Path

    def words(self, *options: str, how: str = "--copy-storage-all") -> list[str]:
        return migrate_words(self.hosts.destination, how, "--xml", str(self.xml), *options)

    def move(self, *options: str, how: str = "--copy-storage-all") -> None:
        self.hosts.source.virsh(*self.words(*options, how=how), timeout_s=60).check()

    def refused(self, *options: str, how: str = "--copy-storage-all") -> str:
        return self.hosts.source.refused(*self.words(*options, how=how), timeout_s=60)

    def check_equal(self) -> None:
        """Byte for byte. QEMU at the destination, which has it open, stands."""
        compare = ["qemu-img", "compare", "-U", "-f", self.format, "-F", self.format]
        subprocess.run([*compare, self.here, self.there], check=True, timeout=60)


def waits_at_the_switchover(tap: SerialTap) -> bool:
    """Whether its guest has said nothing for longer than it ever does while it runs."""
    spoken = tap.history().ticks
    return bool(spoken) and time.monotonic_ns() - spoken[-1].at_ns > SILENT_NS


def image(path: Path, image_format: str = "raw", size: int = DISK_BYTES) -> Path:
    words = ["qemu-img", "create", "-q", "-f", image_format, str(path), str(size)]
    subprocess.run(words, check=True, timeout=30)
    return path


def fill(path: Path, image_format: str) -> None:
    """Something to copy: a pattern that is different everywhere."""
    writes = [f"-cwrite -P {1 + block % 250} {block}M 1M" for block in range(1, 32)]
    words = ["qemu-io", "-f", image_format, *writes, str(path)]
    subprocess.run(words, check=True, timeout=60, capture_output=True)


def copying(
    hosts: TwoDaemons,
    directory: Path,
    make: MakeGuest,
    image_format: str = "raw",
    parameters: TickParameters = WRITER,
) -> Copying:
    for name in ("a", "b"):
        (directory / name).mkdir()
    here, there = (directory / name / "disk.img" for name in ("a", "b"))
    fill(image(here, image_format), image_format)
    xml = make(GUEST, parameters, devices=DISK.format(path=here, format=image_format))
    hosts.source.create(xml)
    told = hosts.source.said("dumpxml", GUEST, "--migratable")
    changed = Path(hosts.source.file("there.xml", told.replace(str(here), str(there))))
    return Copying(hosts, here, there, image_format, changed)


def nodes(host: Host) -> str:
    return host.said("qemu-monitor-command", GUEST, "--hmp", "info block")


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_a_disk_goes_along_while_it_is_written_to(
    two_daemons: TwoDaemons,
    serial_tap: SerialTap,
    tick_guest_xml: MakeGuest,
    short_dir: Path,
    image_format: str,
) -> None:
    case = copying(two_daemons, short_dir, tick_guest_xml, image_format)
    serial_tap.wait_more_ticks()
    case.move("--suspend")
    case.check_equal()
    two_daemons.destination.said("resume", GUEST)
    serial_tap.wait_more_ticks(10).check_one_history()


def test_what_is_told_of_disks(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest, short_dir: Path
) -> None:
    case = copying(two_daemons, short_dir, tick_guest_xml)
    serial_tap.wait_more_ticks()
    words = case.words("--bandwidth", "8", "--copy-storage-synchronous-writes")
    with two_daemons.source.start_virsh(*words) as controller:
        wait_for(lambda: is_copying(two_daemons.source), "the disk on its way")
        told = two_daemons.source.job(GUEST)
        # What is written meanwhile counts, too.
        assert float(told["File total"].removesuffix(" MiB")) >= DISK_BYTES / MIB
        assert float(told["File processed"].split()[0]) > 0
        controller.wait().check()
    done = two_daemons.destination.said("domjobinfo", GUEST, "--completed")
    assert "File remaining:   0.000 B" in done
    serial_tap.wait_more_ticks(10).check_one_history()


@pytest.mark.parametrize("moment", ["mirroring", "copying"])
def test_an_abort_leaves_everything_as_it_was(
    two_daemons: TwoDaemons,
    serial_tap: SerialTap,
    tick_guest_xml: MakeGuest,
    short_dir: Path,
    moment: str,
) -> None:
    case = copying(two_daemons, short_dir, tick_guest_xml)
    before = nodes(two_daemons.source)
    serial_tap.wait_more_ticks()
    with two_daemons.source.start_virsh(*case.words("--bandwidth", "2")) as controller:
        wait_for(case.there.exists, "the image at the destination")
        wait_for(lambda: is_copying(two_daemons.source), "the disk on its way")
        if moment == "copying":
            two_daemons.source.said("migrate-setspeed", GUEST, "1000")
        two_daemons.source.said("domjobabort", GUEST)
        controller.wait()
    check_stayed(two_daemons, serial_tap)
    assert nodes(two_daemons.source) == before
    assert not case.there.exists()
    case.move()
    serial_tap.wait_more_ticks(10).check_one_history()


def test_autokill_removes_what_was_made(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest, short_dir: Path
) -> None:
    case = copying(two_daemons, short_dir, tick_guest_xml)
    before = nodes(two_daemons.source)
    serial_tap.wait_more_ticks()
    with two_daemons.source.start_virsh(*case.words("--bandwidth", "2")) as controller:
        wait_for(lambda: is_copying(two_daemons.source), "the disk on its way")
        controller.kill()
    wait_for(lambda: not case.there.exists(), "the image's end")
    check_stayed(two_daemons, serial_tap)
    assert nodes(two_daemons.source) == before


def test_a_daemon_that_died_removes_it_when_it_comes_back(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest, short_dir: Path
) -> None:
    case = copying(two_daemons, short_dir, tick_guest_xml)
    serial_tap.wait_more_ticks()
    with two_daemons.source.start_virsh(*case.words("--bandwidth", "2")) as controller:
        wait_for(lambda: is_copying(two_daemons.source), "the disk on its way")
        two_daemons.destination.kill()
        controller.wait()
    assert case.there.exists()
    two_daemons.destination.start()
    assert not case.there.exists()
    check_stayed(two_daemons, serial_tap)


def test_a_source_whose_daemon_died_keeps_its_guest(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest, short_dir: Path
) -> None:
    case = copying(two_daemons, short_dir, tick_guest_xml)
    before = nodes(two_daemons.source)
    serial_tap.wait_more_ticks()
    with two_daemons.source.start_virsh(*case.words("--bandwidth", "2")) as controller:
        wait_for(lambda: is_copying(two_daemons.source), "the disk on its way")
        two_daemons.source.kill()
        controller.wait()
    serial_tap.wait_more_ticks(10)
    two_daemons.source.start()
    check_stayed(two_daemons, serial_tap)
    wait_for(lambda: nodes(two_daemons.source) == before, "the mirror's end")
    assert not case.there.exists()


def test_a_guest_that_waits_at_the_switchover_does_not_stand_for_a_dead_daemon(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest, short_dir: Path
) -> None:
    """W5: nobody says `migrate-continue`. The guardian cancels."""
    case = copying(two_daemons, short_dir, tick_guest_xml, parameters=WIDE)
    before = nodes(two_daemons.source)
    serial_tap.wait_more_ticks()
    with two_daemons.source.start_virsh(*case.words("--bandwidth", "16")) as controller:
        wait_for(lambda: "next=perform3" in two_daemons.source.log_text(), "memory on its way")
        two_daemons.source.freeze()
        wait_for(lambda: waits_at_the_switchover(serial_tap), "the switchover", timeout_s=60)
        two_daemons.source.kill()
        serial_tap.wait_more_ticks(10)
        assert "guardian.kept" in two_daemons.source.log_text()
        controller.wait()
    two_daemons.source.start()
    check_stayed(two_daemons, serial_tap)
    wait_for(lambda: nodes(two_daemons.source) == before, "the mirror's end")
    wait_for(lambda: not case.there.exists(), "the image's end")


def test_what_does_not_fit_is_refused_before_anything_starts(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest, short_dir: Path
) -> None:
    case = copying(two_daemons, short_dir, tick_guest_xml)
    assert "incremental copy needs the image" in case.refused(how="--copy-storage-inc")
    image(case.there, size=16 * MIB)
    assert f"has {16 * MIB} bytes, the source's {32 * MIB}" in case.refused()
    image(case.there, "qcow2")
    assert "is in format 'qcow2', not 'raw'" in case.refused()
    case.there.unlink()
    case.there.parent.rmdir()
    assert "No such file or directory" in case.refused()
    assert "disk target vdz not found" in case.refused("--migrate-disks", "vdz")
    check_stayed(two_daemons, serial_tap)


def test_a_full_disk_is_noticed_before_anything_starts(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest, short_dir: Path
) -> None:
    case = copying(two_daemons, short_dir, tick_guest_xml)
    words = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(case.there.parent)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("may not mount a small file system")
    try:
        assert "not enough space for image" in case.refused()
        assert not case.there.exists()
    finally:
        subprocess.run(["umount", str(case.there.parent)], check=True)
    check_stayed(two_daemons, serial_tap)


def test_an_image_that_was_there_is_used_and_kept(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest, short_dir: Path
) -> None:
    case = copying(two_daemons, short_dir, tick_guest_xml)
    image(case.there)
    serial_tap.wait_more_ticks()
    with two_daemons.source.start_virsh(*case.words("--bandwidth", "2")) as controller:
        wait_for(lambda: is_copying(two_daemons.source), "the disk on its way")
        two_daemons.source.said("domjobabort", GUEST)
        controller.wait()
    check_stayed(two_daemons, serial_tap)
    assert case.there.exists()
    case.move("--suspend")
    case.check_equal()


def test_a_source_that_drives_sends_disks_too(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest, short_dir: Path
) -> None:
    case = copying(two_daemons, short_dir, tick_guest_xml)
    serial_tap.wait_more_ticks()
    there = two_daemons.destination.tcp_uri
    words = ("--p2p", GUEST, there, "--copy-storage-all", "--xml", str(case.xml), "--suspend")
    two_daemons.source.virsh("migrate", "--live", *words, timeout_s=60).check()
    case.check_equal()


def test_disks_go_encrypted(
    hosts: Hosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest, short_dir: Path
) -> None:
    """With QEMU's certificates, as the memory does; a name that is not there ends it."""
    pki = make_host(make_authority(short_dir / "ca"), short_dir / "pki", "DNS:moves.test")
    config = short_dir / "tls.toml"
    config.write_text(f'migration_tls_dir = "{pki}"\n')
    pair = TwoDaemons(*(hosts.start(name, "--config", str(config)) for name in ("alpha", "beta")))
    case = copying(pair, short_dir, tick_guest_xml)
    serial_tap.wait_more_ticks()
    told = case.refused("--tls", "--tls-destination", "elsewhere.test")
    assert "elsewhere.test" in told or "handshake" in told or "certificate" in told.lower()
    check_stayed(pair, serial_tap)
    assert not case.there.exists()
    case.move("--tls", "--tls-destination", "moves.test", "--suspend")
    case.check_equal()


def test_one_that_came_with_its_disk_moves_on_with_it(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest, short_dir: Path
) -> None:
    case = copying(two_daemons, short_dir, tick_guest_xml)
    serial_tap.wait_more_ticks()
    case.move()
    serial_tap.wait_more_ticks(10)
    told = two_daemons.destination.said("dumpxml", GUEST, "--migratable")
    third = case.here.with_name("third.img")
    changed = told.replace(str(case.there), str(third))
    xml = two_daemons.destination.file("back.xml", changed)
    words = two_daemons.migrate(GUEST, "--copy-storage-all", "--xml", xml, back=True)
    two_daemons.destination.virsh(*words, timeout_s=60).check()
    serial_tap.wait_more_ticks(10).check_one_history()
    assert third.exists()
    assert case.there.exists()


def test_an_abort_at_the_switchover_never_hangs(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest, short_dir: Path
) -> None:
    """A cancel that meets the pause as it begins hung QEMU 7.2, with its guest stopped."""
    case = copying(two_daemons, short_dir, tick_guest_xml)
    before = nodes(two_daemons.source)
    source = two_daemons.source
    serial_tap.wait_more_ticks()
    for _ in range(5):
        seen = source.log_text().count("next=perform3")
        with source.start_virsh(*case.words("--suspend")) as controller:
            wait_for(lambda seen=seen: source.log_text().count("next=perform3") > seen, "memory")
            source.virsh("domjobabort", GUEST)
            if controller.wait().code == 0:
                return  # it was too late, and the guest has gone
        check_stayed(two_daemons, serial_tap)
        assert nodes(source) == before
        assert not case.there.exists()
