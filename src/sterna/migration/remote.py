"""The destination's daemon as a source sees it that drives a migration itself (peer-to-peer).

The server fills these ports: a session of our own client with the other daemon, which may be a
libvirtd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sterna.guest.ports import ClientLink
from sterna.migration.answers import Prepared
from sterna.rpc.enums import MigrateFlag
from sterna.rpc.msg_common import TypedParam


class RemoteLost(Exception):
    """The connection ended before the answer came: whether the call was done is not known."""


class Upload(Protocol):
    """A stream to the destination, for QEMU's data in a tunnel (`sterna.rpc` client stream)."""

    async def send(self, data: memoryview, /) -> None:
        """Returns once what was sent before has left. Raises: SternaError, why it ended."""

    async def finish(self) -> None:
        """Say that all was sent, and hear that all was taken. Raises: SternaError."""

    async def abort(self) -> None:
        """Give it up. Never raises."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What each call of one migration tells the destination, beside cookies."""

    params: Sequence[TypedParam]
    flags: MigrateFlag


class Remote(Protocol):
    """A session with the destination's daemon.

    Every call raises SternaError, what the destination answered, or RemoteLost.
    """

    @property
    def link(self) -> ClientLink:
        """Its connection. The destination's autokill hangs on it, and our job."""
        ...

    @property
    def host(self) -> str:
        """The host as the URI names it; empty for one on this machine."""
        ...

    @property
    def uri(self) -> str:
        """By which it was reached."""
        ...

    async def check(self, needed: Sequence[int]) -> int | None:
        """The first of these features of the protocol that the destination does not have."""

    async def prepare(self, wanted: Wanted, cookie: bytes) -> Prepared:
        """Phase 2."""
        ...

    async def prepare_tunnel(self, wanted: Wanted, cookie: bytes) -> tuple[Prepared, Upload]:
        """Phase 2, with a stream for the data on the same connection."""
        ...

    async def finish(self, wanted: Wanted, cookie: bytes, *, cancelled: bool) -> bytes:
        """Phase 4; the last cookie."""
        ...
