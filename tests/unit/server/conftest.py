"""A daemon's connection side without its guests: clients over a socket pair."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sterna.errors import NoDomain
from sterna.guest.events import EventBus
from sterna.host.places import Places
from sterna.rpc.asyncio_shell import ClientConnection
from sterna.rpc.msg_connect import ConnectOpenArgs
from sterna.server import handlers
from sterna.server.clients import Clients
from sterna.server.context import Context
from sterna.server.settings import Settings

assert handlers.__all__


class NoGuests:
    """A registry of a host without guests."""

    def all(self) -> list[Any]:
        return []

    def find(self, wanted: uuid.UUID) -> None:
        return None

    def lookup_by_uuid(self, wanted: uuid.UUID, name: str = "") -> Any:
        raise NoDomain(f"no domain with matching uuid '{wanted}' ({name})")

    def lookup_by_name(self, name: str) -> Any:
        raise NoDomain(f"no domain with matching name '{name}'")

    def lookup_by_id(self, number: int) -> Any:
        raise NoDomain(f"no domain with matching id {number}")


@dataclass
class Served:
    """A daemon's clients, and a way in."""

    context: Context
    clients: Clients

    def raw(self, *, read_only: bool = False) -> socket.socket:
        """A connected socket, for tests that speak for themselves."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.clients.accept(theirs, read_only)
        return ours

    async def connect(self, *, read_only: bool = False, opened: bool = True) -> ClientConnection:
        ours = self.raw(read_only=read_only)
        ours.setblocking(False)
        connection = ClientConnection.from_socket(ours)
        if opened:
            await connection.call("CONNECT_OPEN", ConnectOpenArgs(name="qemu:///system", flags=0))
        return connection


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    context = Context(
        settings=Settings(client_calls_max=4, clients_max=8),
        places=Places.below(tmp_path),
        hostname="tested",
        host_uuid=uuid.UUID(int=1),
        is_system=True,
        guest_ids=None,
        emulators=None,  # type: ignore[arg-type]  # no handler under test asks a QEMU
        store=None,  # type: ignore[arg-type]  # nor the store
        bus=EventBus(),
        registry=NoGuests(),  # type: ignore[arg-type]  # what the handlers under test use of it
        migrations=None,  # type: ignore[arg-type]  # nor is anything migrated
        door=None,  # type: ignore[arg-type]  # nor asked
    )
    async with asyncio.TaskGroup() as tasks:
        served = Served(context, Clients(context, tasks))
        yield served
        served.clients.end_all("the test is over")
