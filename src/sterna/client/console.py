"""A guest's serial console as a stream of bytes."""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sterna.errors import SternaError
from sterna.rpc.asyncio_streams import ClientStream
from sterna.rpc.msg_device import DomainOpenConsoleArgs

if TYPE_CHECKING:
    from sterna.client.guest import Guest

FORCE = 1


class Console:
    """An open console; usable inside its ``async with``.

    Args:
        device: alias of the serial or console device; None for the first.
        force: end another session on it first.

    Raises:
        OperationFailed: somebody else has it open.
    """

    def __init__(self, guest: Guest, device: str | None, *, force: bool) -> None:
        self._guest = guest
        self._device = device
        self._flags = FORCE if force else 0
        self._stream: ClientStream | None = None

    async def __aenter__(self) -> Self:
        args = DomainOpenConsoleArgs(await self._guest.dom(), self._device, self._flags)
        self._stream = await self._guest.host.open_stream("DOMAIN_OPEN_CONSOLE", args)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is None:
            return
        # The guest may have ended the stream first, or the host be gone: then it is finished too.
        with suppress(SternaError):
            await self._stream.finish()

    @property
    def stream(self) -> ClientStream:
        """The stream below."""
        if self._stream is None:
            raise RuntimeError("the console is not open: use `async with`")
        return self._stream

    async def read(self) -> bytes:
        """What the guest printed next; empty when the console has ended."""
        data = await self.stream.receive()
        return data if isinstance(data, bytes) else b""

    async def write(self, data: bytes) -> None:
        """Types into the guest."""
        await self.stream.send(data)
