"""The guest that counts and knows every byte of its memory; `tick.S` says what it does."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("tick.S")
# The guest's region starts at 16 MiB and the machine keeps a little at the top for ACPI's tables.
MEMORY_BESIDE_REGION_MIB = 20


@dataclass(frozen=True, slots=True)
class TickParameters:
    """What the guest is told on its command line. Rates are MiB a second, `tick_ms` is 1 to 50."""

    region_mib: int = 16
    dirty_mib_s: int = 8
    check_mib_s: int = 16
    tick_ms: int = 10
    obeys_power_button: bool = True
    flushes_tlb: bool = True
    stop_after_ticks: int = 0
    reset_after_ticks: int = 0
    disk_every_ticks: int = 0

    @property
    def cmdline(self) -> str:
        """For `-append` or `<cmdline>`."""
        return (
            f"mib={self.region_mib} dirty={self.dirty_mib_s} check={self.check_mib_s}"
            f" tick={self.tick_ms} power={int(self.obeys_power_button)}"
            f" flush={int(self.flushes_tlb)}"
            f" stop={self.stop_after_ticks} reset={self.reset_after_ticks}"
            f" disk={self.disk_every_ticks}"
        )

    @property
    def memory_mib(self) -> int:
        """The smallest machine this fits in, a multiple of 4 MiB."""
        return -(-(self.region_mib + MEMORY_BESIDE_REGION_MIB) // 4) * 4


def build(directory: Path) -> Path:
    """Assemble the guest into `directory`: a multiboot ELF for `-kernel` or `<kernel>`."""
    obj, elf = directory / "tick.o", directory / "tick.elf"
    subprocess.run(["as", "--32", "-o", obj, SOURCE], check=True, timeout=30)
    # -n: without it the ELF headers are loaded too, below the text, over the firmware's own code:
    # the guest would run but could not be reset. Captured: it warns of the text being writable.
    subprocess.run(
        ["ld", "-n", "-m", "elf_i386", "-Ttext=0x100000", "-o", elf, obj],
        check=True,
        capture_output=True,
        timeout=30,
    )
    # QEMU may run as another user than we do.
    elf.chmod(0o644)
    return elf
