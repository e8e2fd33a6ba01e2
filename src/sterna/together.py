"""Several things at once, with the errors of one.

A task group whose child fails while it is being left keeps its task marked as cancelled, and in
Python 3.11.2 (Debian 12's) `asyncio.timeout` then raises CancelledError where it should raise
TimeoutError, for the rest of that task's life. So nothing fails inside the group here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from sterna.errors import SternaError


async def together(*work: Coroutine[Any, Any, Any]) -> list[Any]:
    """Runs all at once; their results in order, when all have ended.

    Raises:
        SternaError: the first failure in order, as if that one had been alone.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_outcome(one)) for one in work]
    outcomes = [task.result() for task in tasks]
    for outcome in outcomes:
        if isinstance(outcome, SternaError):
            raise outcome
    return outcomes


async def _outcome(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await work
    except SternaError as error:
        return error
