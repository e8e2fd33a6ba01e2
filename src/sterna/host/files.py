"""Small reads from /proc and /sys, below a root that tests put elsewhere.

Files there vanish with the thing they describe, so a missing file is an answer, not an error: the
functions return their default then.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/")
"""Where /proc and /sys are found. Every function of this package takes another root."""

CPUS_MAX = 65536
"""No list of CPUs is longer (the kernel's largest NR_CPUS is 8192)."""


def read_text(path: Path, default: str = "") -> str:
    """Return the file's text without surrounding white space, or `default` if it can't be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return default


def read_int(path: Path, default: int = 0) -> int:
    """Return the decimal number in a file, or `default` if there is none."""
    try:
        return int(read_text(path))
    except ValueError:
        return default


def parse_cpu_list(text: str) -> frozenset[int]:
    """Return the numbers of a kernel list such as "0-3,8,10-11" (Linux: cputopology.rst).

    Raises:
        ValueError: not such a list, or it names a CPU beyond `CPUS_MAX`.
    """
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not 0 <= low <= high < CPUS_MAX:
            raise ValueError(f"not a list of CPUs: {text!r}")
        numbers.update(range(low, high + 1))
    return frozenset(numbers)


def format_cpu_list(numbers: frozenset[int] | set[int]) -> str:
    """Return the kernel's notation of a set of CPUs: "0-3,8"."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def cpu_bitmap(numbers: frozenset[int] | set[int], cpus: int) -> bytes:
    """Return the wire's CPU map, long enough for `cpus`: CPU i is bit i%8 of byte i//8."""
    bitmap = bytearray((cpus + 7) // 8)
    for number in numbers:
        if number < cpus:
            bitmap[number // 8] |= 1 << (number % 8)
    return bytes(bitmap)


def kib_fields(text: str) -> dict[str, int]:
    """Return the "Name: 123 kB" lines of a meminfo file as KiB; a node's prefix is dropped."""
    fields: dict[str, int] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        number, _, unit = value.strip().partition(" ")
        if colon and unit == "kB" and number.isdigit():
            fields[name.split()[-1]] = int(number)
    return fields
