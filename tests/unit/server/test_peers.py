"""Asking another host, and being asked: over real sockets of loopback, without guests."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from sterna.errors import OperationDenied
from sterna.guest.surroundings import Work
from sterna.migration.answers import Host
from sterna.migration.peers import Claim, Claimed, Decided, NoAnswer, Question
from sterna.rpc.asyncio_shell import ClientConnection
from sterna.rpc.msg_decision import GuestClaimRet, MigrationDecideRet
from sterna.server.askers import ASKERS_MAX, Askers
from sterna.server.decisions import PORT_KEY, DecisionListener
from sterna.server.peers import (
    HostPeers,
    Place,
    parse_place,
    read_answer,
    read_claimed,
    shown,
)
from support.memory_store import MemoryStore
from unit.server.conftest import Served

HERE = uuid.UUID(int=1)
"""The host uuid of the fixture `served`."""
MIGRATION, GUEST = str(uuid.UUID(int=5)), uuid.UUID(int=6)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("tcp://host-b:49216", Place("host-b", 49216)),
        ("tcp://b.example.org.:1", Place("b.example.org.", 1)),
        ("tcp://192.0.2.7:65535", Place("192.0.2.7", 65535)),
        ("tcp://[2001:db8::7]:49216", Place("2001:db8::7", 49216)),
    ],
)
def test_a_place(text: str, place: Place) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host:1",
        "unix:///run/x",
        "tcp://host",
        "tcp://host:0",
        "tcp://host:65536",
        "tcp://host:049216",
        "tcp://:1",
        "tcp://user@host:1",
        "tcp://host:1/path",
        "tcp://host name:1",
        "tcp://-host:1",
        "tcp://1:49216",
        "tcp://300.1.1.1:49216",
        "tcp://[192.0.2.7]:49216",
        "tcp://2001:db8::7:49216",
        "tcp://" + "a" * 300 + ":1",
        "tcp://host:1\n",
    ],
)
def test_no_place(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_place(text)


@pytest.mark.parametrize("verdict", [0, 3, -1])
def test_an_unknown_verdict_is_no_answer(verdict: int) -> None:
    with pytest.raises(ValueError, match="unknown verdict"):
        read_answer(MigrationDecideRet(verdict, 0, "b"))


@pytest.mark.parametrize(
    "ret",
    [
        GuestClaimRet(2, 1, "b", ""),
        GuestClaimRet(1, 1 << 63, "b", ""),
        GuestClaimRet(1, 1, "b" * 300, ""),
    ],
)
def test_a_malformed_answer_gives_nothing(ret: GuestClaimRet) -> None:
    with pytest.raises(ValueError, match="malformed"):
        read_claimed(ret)


def test_a_strangers_text_stays_on_its_line() -> None:
    assert shown("a\n\x1b[2Jb") == "a??[2Jb"
    assert shown("x" * 200) == "x" * 100 + "…"


# -- over sockets ----------------------------------------------------------------------------------


class Decides:
    """`Migrations`, their `custody` and `destination`, as the handlers use them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, uuid.UUID]] = []
        self.claims: list[tuple[Claim, str]] = []
        self.custody = self.destination = self
        self.says = Claimed(True, 4, "host-b")

    async def release(self, claim: Claim, hostname: str) -> Claimed:
        self.claims.append((claim, hostname))
        return self.says

    async def decide(self, id: str, guest: uuid.UUID) -> Decided:
        self.asked.append((id, guest))
        return Decided("committed", 3, "host-b")


@dataclass
class Door:
    """An open door of the host `served`."""

    decides: Decides
    listener: DecisionListener
    store: MemoryStore
    tasks: asyncio.TaskGroup
    place: str

    def question(self, *places: str, host: uuid.UUID = HERE) -> Question:
        return Question(MIGRATION, GUEST, host, places or (self.place,))

    def claim(self, host: uuid.UUID = HERE) -> Claim:
        return Claim(MIGRATION, GUEST, 3, host, (self.place,))

    async def connect(self) -> ClientConnection:
        return await ClientConnection.connect_tcp("127.0.0.1", parse_place(self.place).port)


@pytest.fixture
async def door(served: Served) -> AsyncIterator[Door]:
    decides, store = Decides(), MemoryStore()
    context = dataclasses.replace(served.context, migrations=decides)  # type: ignore[arg-type]  # what the handler uses
    async with asyncio.TaskGroup() as tasks:
        listener = DecisionListener(store, Host("b", HERE, "127.0.0.1"), 0)
        askers = Askers(context, tasks)
        await listener.start(askers.accept, Work(tasks))
        assert not listener.listening, "nobody has come here yet"
        place = await listener.own_place()
        assert place is not None
        yield Door(decides, listener, store, tasks, place)
        listener.close()
        askers.end_all("the test is over")


def peers(door: Door) -> HostPeers:
    return HostPeers("host-a", uuid.UUID(int=2), door.listener, answer_s=5)


async def test_the_answer_comes(door: Door) -> None:
    assert await peers(door).ask(door.question()) == Decided("committed", 3, "host-b")
    assert door.decides.asked == [(MIGRATION, GUEST)]


async def test_another_host_at_that_place_says_nothing(door: Door) -> None:
    """Its "aborted" would be a lie. (L1)"""
    with pytest.raises(NoAnswer, match="this is host"):
        await peers(door).ask(door.question(host=uuid.UUID(int=77)))
    assert door.decides.asked == []


async def test_a_claim_is_granted(door: Door) -> None:
    """The holder hears who claims, and where that one can be asked itself."""
    assert await peers(door).claim(door.claim()) == Claimed(True, 4, "host-b")
    claimer = Claim(MIGRATION, GUEST, 3, uuid.UUID(int=2), (door.place,))
    assert door.decides.claims == [(claimer, "host-a")]


async def test_a_claim_that_is_refused_is_an_answer(door: Door) -> None:
    door.decides.says = Claimed(False, 4, "host-b", "it runs on host host-b")
    assert await peers(door).claim(door.claim()) == door.decides.says


async def test_another_host_cannot_give_it(door: Door) -> None:
    with pytest.raises(NoAnswer, match="this is host"):
        await peers(door).claim(door.claim(host=uuid.UUID(int=77)))
    assert door.decides.claims == []


async def test_places_are_tried_in_turn(door: Door) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
    decided = await peers(door).ask(door.question("nonsense", nobody, door.place))
    assert decided.verdict == "committed"
    with pytest.raises(NoAnswer, match=r"not a place.*Connection refused"):
        await peers(door).ask(door.question("nonsense", nobody))
    with pytest.raises(NoAnswer, match="has not said where"):
        await peers(door).ask(dataclasses.replace(door.question(), places=()))


async def test_nothing_else_is_served_there(door: Door) -> None:
    client = await door.connect()
    with pytest.raises(OperationDenied, match="only decisions are"):
        await client.call("CONNECT_GET_HOSTNAME", None)
    client.abort("the test is over")


async def test_too_many_askers_are_sent_away_and_room_comes_again(door: Door) -> None:
    waiting = [await door.connect() for _ in range(ASKERS_MAX)]
    late = await door.connect()
    await asyncio.wait_for(late.wait_closed(), 5)
    for client in waiting:
        client.abort("gone")
    async with asyncio.timeout(5):
        while True:
            try:
                await peers(door).ask(door.question())
                break
            except NoAnswer:
                continue  # the door has not seen all of them go


async def test_the_port_is_kept_and_tried_until_it_is_free(door: Door) -> None:
    port = parse_place(door.place).port
    assert (await door.store.meta())[PORT_KEY] == str(port)
    door.listener.close()
    came = asyncio.Event()

    def accept(sock: socket.socket, _read_only: bool) -> None:
        sock.close()
        came.set()

    again = DecisionListener(door.store, Host("b", HERE, "127.0.0.1"), 0, retry_s=0.01)
    with socket.create_server(("127.0.0.1", port)):
        await again.start(accept, Work(door.tasks))
        assert not again.listening
    async with asyncio.timeout(5):
        while not came.is_set():
            try:
                await (await door.connect()).wait_closed()
            except ConnectionRefusedError:
                continue  # not yet
    assert await again.own_place() == door.place
    again.close()
