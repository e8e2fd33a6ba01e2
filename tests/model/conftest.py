"""What the model's tests share: small counters, and a place to tell how much was looked at."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sterna.migration.core import destination, source, source_ways


@pytest.fixture
def small_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty tries behave as one does, and cost fifty times the states."""
    monkeypatch.setattr(source, "TRIES_MAX", 1)
    monkeypatch.setattr(source_ways, "ASK_S", (1.0,))
    monkeypatch.setattr(destination, "TRIES_MAX", 1)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str, object], None]:
    """`tell(name, what)`: printed at the end of the run, from whatever worker it came."""
    return lambda name, what: record_property("explored", f"{name}: {what}")
