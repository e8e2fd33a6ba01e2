"""A picture of a guest's screen."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sterna.errors import OperationInvalid
from sterna.guest.jobs import Call

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

SCREENDUMP_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Screenshot:
    """An open, already unlinked file; the holder reads it and closes the descriptor."""

    fd: int
    mime: str


async def take(
    guest: Guest, screen: int = 0, api: str = "remoteDispatchDomainScreenshot"
) -> Screenshot:
    """Have QEMU draw the screen as PNG.

    Raises: OperationInvalid (55): not running, no screens, or not that one.
    """

    async def work() -> Screenshot:
        running = guest.live_or_refuse()
        videos = running.definition.devices.videos
        if not videos or all(v.model is not None and v.model.type == "none" for v in videos):
            raise OperationInvalid("no screens to take screenshot from")
        if screen != 0:
            heads = (videos[0].model.heads if videos[0].model is not None else None) or 1
            if screen >= heads:
                raise OperationInvalid("no such screen ID")
        path = running.run_dir / f"screen-{secrets.token_hex(4)}.png"
        arguments: dict[str, str | int] = {"filename": str(path), "format": "png"}
        if screen != 0:
            arguments |= {"device": videos[0].alias or "video0", "head": screen}
        try:
            await running.qemu.execute("screendump", arguments, timeout_s=SCREENDUMP_S)
            return Screenshot(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "image/png")
        finally:
            path.unlink(missing_ok=True)

    guest.live_or_refuse()
    return await guest.do(Call.QUERY, api, work)
