"""Several questions to one QEMU in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sterna.guest.ports import Monitor
from sterna.together import together

Command = tuple[str, Mapping[str, Any] | None]


async def ask_all(qemu: Monitor, commands: Sequence[Command], *, timeout_s: float) -> list[Any]:
    """Send all commands at once, in order; the answers in the same order.

    Raises: the first failure, as if that command had been alone; the others were sent all the
    same.
    """
    asked = (qemu.execute(name, arguments, timeout_s=timeout_s) for name, arguments in commands)
    return await together(*asked)
