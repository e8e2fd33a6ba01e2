"""The benchmark itself: it measures every promised number, of us and of the floor.

The figures are in docs/reference/benchmarks.md.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import contenders, measures, report

from support import tick_guest

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(300)]


def said(_: str) -> None:
    """The bench tells how far it is; nobody listens here."""


@pytest.fixture(scope="module")
def medians() -> Iterator[dict[str, dict[str, float]]]:
    directory = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    directory.chmod(0o755)
    try:
        elf = tick_guest.build(directory)
        floor = measures.floor(elf, directory, said)
        with contenders.sterna(directory) as pair:
            ours = measures.measure(elf, directory, pair, said)
        yield {
            name: {key: statistics.median(values) for key, values in results.values.items()}
            for name, results in ((report.FLOOR, floor), (report.OURS, ours))
        }
    finally:
        shutil.rmtree(directory)


def test_every_number_is_measured(medians: dict[str, dict[str, float]]) -> None:
    """How fast is for the benchmark to say: times on a shared machine prove nothing. Memory does
    not depend on the neighbours."""
    ours, floor = medians[report.OURS], medians[report.FLOOR]
    assert [row.key for row in report.ROWS if not ours[row.key] > 0] == []
    assert [row.key for row in report.ROWS if row.over_floor and not floor[row.key] > 0] == []
    for row in report.ROWS:
        if row.key.startswith("memory"):
            assert ours[row.key] <= row.most, row.key
