"""Connected pairs for tests of the asyncio side; nothing is left open behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from support.rpc_ends import Ends, open_fds


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    before = open_fds()
    made = Ends()
    yield made
    made.close()
    await asyncio.sleep(0)
    assert len(open_fds()) == len(before), "descriptors were left open"
