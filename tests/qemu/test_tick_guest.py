"""The tick guest itself, on QEMU without a manager: it counts, verifies, obeys, and moves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from support.bare_qemu import BareQemu, migrate, tick_arguments
from support.processes import wait_for
from support.serial import SerialTap
from support.tick_guest import TickParameters

pytestmark = pytest.mark.qemu


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_it_counts_and_verifies_its_memory(
    tick_elf: Path, serial_tap: SerialTap, machine: str
) -> None:
    start_ns = time.monotonic_ns()
    parameters = TickParameters(region_mib=4, dirty_mib_s=16, check_mib_s=32)
    with BareQemu(tick_arguments(tick_elf, parameters, serial_tap.path, machine=machine)):
        history = serial_tap.wait_verified(start_ns)
    history.check_one_history()
    assert history.pages == 1024
    assert history.ticks[-1].pages_dirtied > 500


def test_a_changed_byte_shows_as_bad(tick_elf: Path, serial_tap: SerialTap, tmp_path: Path) -> None:
    parameters = TickParameters(region_mib=4, dirty_mib_s=0, check_mib_s=32)
    ram = tmp_path / "ram"
    size = parameters.memory_mib << 20
    arguments = tick_arguments(tick_elf, parameters, serial_tap.path)
    arguments += ["-object", f"memory-backend-file,id=ram,mem-path={ram},share=on,size={size}"]
    arguments += ["-machine", "memory-backend=ram"]
    with BareQemu(arguments):
        serial_tap.wait_more_ticks(3)
        with ram.open("r+b") as memory:
            memory.seek((16 << 20) + 100 * 4096 + 8)
            memory.write(b"\0\0\0\0")
        history = serial_tap.wait_line("BAD page 100 word 2 is 00000000 not ")
    with pytest.raises(AssertionError, match="BAD page 100"):
        history.check_one_history()


def test_a_second_writer_of_its_disk_shows(
    tick_elf: Path, serial_tap: SerialTap, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    parameters = TickParameters(region_mib=1, disk_every_ticks=2)
    arguments = tick_arguments(tick_elf, parameters, serial_tap.path)
    arguments += ["-drive", f"if=ide,file={disk},format=raw"]
    with BareQemu(arguments):
        serial_tap.wait_more_ticks(20).check_one_history()
        written = int.from_bytes(disk.read_bytes()[508:512], "little")
        assert 0 < written <= len(serial_tap.history().ticks) + 1
        with disk.open("r+b") as file:
            while not serial_tap.history().faults:
                file.seek(12)
                file.write((77_777).to_bytes(4, "little"))
                file.flush()
                serial_tap.wait_more_ticks(1)
        serial_tap.wait_line("BAD disk word 3 is 77777 not ")


def test_a_disk_that_is_not_there_is_said(tick_elf: Path, serial_tap: SerialTap) -> None:
    parameters = TickParameters(region_mib=1, disk_every_ticks=1)
    with BareQemu(tick_arguments(tick_elf, parameters, serial_tap.path)):
        serial_tap.wait_line("BAD disk says ")


def test_too_little_memory_is_said(tick_elf: Path, serial_tap: SerialTap) -> None:
    arguments = tick_arguments(tick_elf, TickParameters(region_mib=4), serial_tap.path)
    arguments[arguments.index("-m") + 1] = "18"
    with BareQemu(arguments):
        serial_tap.wait_line("too small")


def test_power_button_reset_and_input(tick_elf: Path, serial_tap: SerialTap) -> None:
    arguments = tick_arguments(tick_elf, TickParameters(region_mib=1), serial_tap.path)
    with BareQemu(arguments) as qemu:
        serial_tap.wait_more_ticks(2)
        serial_tap.send(b"Z")
        serial_tap.wait_line("heard 5a")
        qemu.qmp.execute("send-key", {"keys": [{"type": "qcode", "data": "a"}]})
        serial_tap.wait_line("scan 1e")
        qemu.qmp.execute("system_reset")
        serial_tap.wait_until(lambda history: history.boots == 2, "second boot")
        serial_tap.wait_more_ticks(2)
        qemu.qmp.execute("system_powerdown")
        history = serial_tap.wait_line("power")
        assert qemu.process.wait(20) == 0
    history.check_one_history(boots=2)


def test_it_stops_and_resets_itself(tick_elf: Path, serial_tap: SerialTap) -> None:
    parameters = TickParameters(region_mib=1, stop_after_ticks=9, obeys_power_button=False)
    with BareQemu(tick_arguments(tick_elf, parameters, serial_tap.path)) as qemu:
        assert qemu.process.wait(20) == 0
        serial_tap.wait_until(lambda history: len(history.ticks) == 9, "ninth tick")
    parameters = TickParameters(region_mib=1, reset_after_ticks=3)
    with BareQemu(tick_arguments(tick_elf, parameters, serial_tap.path)):
        serial_tap.wait_until(lambda history: history.boots == 3, "third boot")


def test_it_moves_with_one_history(tick_elf: Path, serial_tap: SerialTap) -> None:
    parameters = TickParameters(region_mib=32, dirty_mib_s=32, check_mib_s=64, tick_ms=5)
    arguments = tick_arguments(tick_elf, parameters, serial_tap.path)
    with (
        BareQemu(arguments) as source,
        BareQemu([*arguments, "-incoming", "defer", "-S"]) as destination,
    ):
        serial_tap.wait_more_ticks(20)
        migrate(source, destination)
        history = serial_tap.wait_verified(time.monotonic_ns())
    history.check_one_history()
    assert history.speakers == [0, 1]
    assert serial_tap.pids == [source.process.pid, destination.process.pid]
    [silence_ms] = history.silences_at_moves_ms()
    assert silence_ms < 2000


SLOW = 8 << 20  # bytes a second: the migration takes several passes


def test_it_moves_in_many_passes(tick_elf: Path, serial_tap: SerialTap) -> None:
    """QEMU 7.2's TCG loses pages that are written all the time; the guest empties its TLB, so that
    it is not QEMU that we test."""
    parameters = TickParameters(region_mib=16, dirty_mib_s=2, flushes_tlb=True)
    arguments = tick_arguments(tick_elf, parameters, serial_tap.path)
    with (
        BareQemu(arguments) as source,
        BareQemu([*arguments, "-incoming", "defer", "-S"]) as destination,
    ):
        serial_tap.wait_more_ticks(20)
        migrate(source, destination, bandwidth=SLOW)
        history = serial_tap.wait_verified(time.monotonic_ns())
        passes = source.qmp.execute("query-migrate")["ram"]["dirty-sync-count"]
    assert passes > 2
    history.check_one_history()


def test_two_running_copies_are_two_histories(tick_elf: Path, serial_tap: SerialTap) -> None:
    """What L1 forbids is seen: both sides let run after a migration repeat each other's numbers."""
    arguments = tick_arguments(tick_elf, TickParameters(region_mib=4), serial_tap.path)
    with (
        BareQemu(arguments) as source,
        BareQemu([*arguments, "-incoming", "defer", "-S"]) as destination,
    ):
        serial_tap.wait_more_ticks(5)
        migrate(source, destination)
        # QEMU says "completed" a moment before it would let the guest go on.
        wait_for(
            lambda: source.qmp.execute("query-status")["status"] == "postmigrate", "postmigrate"
        )
        source.qmp.execute("cont")
        history = serial_tap.wait_more_ticks(30)
    with pytest.raises(AssertionError, match="doubled"):
        history.check_one_history()
