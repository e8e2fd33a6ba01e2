"""Fixtures that every tier may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import tick_guest
from support.serial import SerialTap


@pytest.fixture(scope="session")
def tick_elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tick guest, assembled once a session."""
    return tick_guest.build(tmp_path_factory.mktemp("tick"))


@pytest.fixture
def serial_tap(tmp_path: Path) -> Iterator[SerialTap]:
    """A listener for this test's guest."""
    with SerialTap(tmp_path / "serial.sock") as tap:
        yield tap
