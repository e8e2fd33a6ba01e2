"""Console sessions: one at a time, and nothing of them is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sterna.errors import OperationFailed
from sterna.guest.console import FORCE, Consoles
from sterna.guest.resources import read_back_ptys
from support.fake_host import domain_xml, fake_host


async def test_sessions_come_and_go(tmp_path: Path) -> None:
    master, slave = os.openpty()
    try:
        async with fake_host(tmp_path) as host:
            guest = await host.registry.create(domain_xml())
            running = guest.live_or_refuse()
            read_back_ptys(
                running.definition,
                [{"label": "charserial0", "filename": f"pty:{os.ttyname(slave)}"}],
            )
            consoles, taken = Consoles(), []
            callbacks = len(running._when_stopped)
            for number in range(3):
                session = consoles.open_console(guest, "serial0", 0, lambda: taken.append("never"))
                with pytest.raises(OperationFailed, match="Active console session exists"):
                    consoles.open_console(guest, "serial0", 0, lambda: None)
                assert len(running._when_stopped) == callbacks + 1, number
                session.close()
            assert len(running._when_stopped) == callbacks
            consoles.open_console(guest, "serial0", 0, lambda: taken.append("first"))
            consoles.open_console(guest, "serial0", FORCE, lambda: taken.append("second"))
            assert taken == ["first"]
            await guest.destroy()
            assert taken == ["first", "second"]
    finally:
        os.close(master)
        os.close(slave)
