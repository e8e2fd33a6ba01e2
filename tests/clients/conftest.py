"""What the tests of unmodified clients share."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from support.domains import tick_xml
from support.host import Host
from support.tick_guest import TickParameters

SMALL = TickParameters(region_mib=1, dirty_mib_s=0, check_mib_s=0, tick_ms=50)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.clients)


@pytest.fixture
def guest_xml(tick_elf: Path) -> str:
    """A small machine with a disk, an interface, a display and input devices."""
    return tick_xml("web1", tick_elf, SMALL, uuid_text=str(uuid.uuid4()))


@pytest.fixture
def paused(host: Host, guest_xml: str) -> Host:
    """A host with the guest `web1`, transient, created paused: it costs no CPU."""
    host.create(guest_xml, "--paused")
    return host


@pytest.fixture
def defined(host: Host, guest_xml: str) -> Host:
    """A host with the guest `web1`, defined and shut off."""
    host.define(guest_xml)
    return host
