"""Several questions to one QEMU in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from sterna.guest.ports import Monitor

Command = tuple[str, Mapping[str, Any] | None]


async def ask_all(qemu: Monitor, commands: Sequence[Command], *, timeout_s: float) -> list[Any]:
    """Send all commands at once, in order; the answers in the same order.

    Raises: the first failure, as if that command had been alone; the others were sent all the
    same.
    """
    try:
        async with asyncio.TaskGroup() as asking:
            tasks = [
                asking.create_task(qemu.execute(name, arguments, timeout_s=timeout_s))
                for name, arguments in commands
            ]
    except BaseExceptionGroup as several:
        # Who asks wants QEMU's error, not our way of asking.
        raise several.exceptions[0] from None
    return [task.result() for task in tasks]
