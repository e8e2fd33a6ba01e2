"""Definitions too big to be any machine: refused soon, and read beside the loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sterna.config import DomainDef
from sterna.errors import XmlError
from sterna.guest import definitions
from sterna.guest.definitions import DEVICES_MAX, LONG_XML_CHARS, check_size, parsed

PLAIN = (
    "<domain type='qemu'><name>a</name><memory>32768</memory><os><type>hvm</type></os>{}</domain>"
)


def test_more_devices_than_a_machine_has_are_refused() -> None:
    sounds = "<sound model='ich6'/>"
    most = asyncio.run(parsed(PLAIN.format(f"<devices>{sounds * DEVICES_MAX}</devices>")))
    check_size(most)
    more = asyncio.run(parsed(PLAIN.format(f"<devices>{sounds * (DEVICES_MAX + 1)}</devices>")))
    with pytest.raises(XmlError, match=f"more than {DEVICES_MAX} devices"):
        check_size(more)


@pytest.mark.parametrize("beside", [False, True])
def test_long_texts_are_read_beside_the_loop(beside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = []

    def read(xml: str) -> DomainDef:
        readers.append(threading.current_thread())
        return DomainDef(type="qemu", name="a")

    monkeypatch.setattr(definitions, "parse_domain", read)
    text = "x" * (LONG_XML_CHARS + beside)
    asyncio.run(parsed(text))
    assert (readers != [threading.main_thread()]) is beside
