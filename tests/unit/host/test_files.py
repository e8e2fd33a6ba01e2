from __future__ import annotations

from pathlib import Path

import pytest

from sterna.host.files import (
    cpu_bitmap,
    format_cpu_list,
    kib_fields,
    parse_cpu_list,
    read_int,
    read_text,
)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("", set()), ("0", {0}), ("0-3,8,10-11\n", {0, 1, 2, 3, 8, 10, 11})],
)
def test_cpu_list_both_ways(text: str, numbers: set[int]) -> None:
    assert parse_cpu_list(text) == numbers
    assert format_cpu_list(numbers) == text.strip()


@pytest.mark.parametrize("text", ["x", "3-1", "-1", "0-70000"])
def test_what_is_no_cpu_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"CPUs|invalid literal"):
        parse_cpu_list(text)


def test_bitmap_has_the_lowest_cpu_in_the_lowest_bit() -> None:
    assert cpu_bitmap({0, 1, 9}, 10) == bytes([0b11, 0b10])
    assert cpu_bitmap({12}, 10) == bytes(2)


def test_missing_files_are_defaults(tmp_path: Path) -> None:
    assert read_text(tmp_path / "no", "default") == "default"
    (tmp_path / "words").write_text("many")
    assert read_int(tmp_path / "words", 7) == 7


def test_a_nodes_meminfo_reads_as_the_hosts() -> None:
    assert kib_fields("Node 0 MemTotal:   12 kB\nHugePages_Total: 3\nMemFree: 4 kB") == {
        "MemTotal": 12,
        "MemFree": 4,
    }
