"""The demo's judge: what it counts as one history."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sterna.demo.ticks import TickListener


async def say(path: Path, *texts: bytes) -> None:
    for text in texts:
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.write(text)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest.fixture
def socket_path(short_dir: Path) -> Path:
    return short_dir / "ticks"


async def test_ticks_of_two_hosts_are_one_history(socket_path: Path) -> None:
    async with TickListener(socket_path) as listener:
        await say(socket_path, b"ready\r\ntick 1\r\ntick 2\r\nti")
        await listener.wait_more(0, timeout_s=5)
        await say(socket_path, b"ck 3\r\ntick 4\r\n")
        await listener.wait_more(2, timeout_s=5)
        assert listener.faults == []
        assert listener.moves == 1
        assert listener.longest_silence_ms() >= 0


async def test_a_lost_and_a_doubled_tick_are_named(socket_path: Path) -> None:
    async with TickListener(socket_path) as listener:
        await say(socket_path, b"tick 5\ntick 7\ntick 7\n")
        await listener.wait_more(0, timeout_s=5)
        assert listener.faults == [
            "tick 7 was heard too early: 6 was due",
            "tick 7 was heard again: 8 was due",
        ]


async def test_waiting_has_an_end(socket_path: Path) -> None:
    async with TickListener(socket_path) as listener:
        with pytest.raises(TimeoutError):
            await listener.wait_more(1, timeout_s=0.01)
