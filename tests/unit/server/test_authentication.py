"""Who has not said who it is: answered nothing, bounded in everything."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import AsyncIterator

import pytest

from sterna.errors import AuthFailed, RpcError, SternaError
from sterna.rpc.asyncio_shell import ClientConnection
from sterna.rpc.calls import PROCEDURES
from sterna.rpc.msg_connect import (
    AuthSaslStartArgs,
    AuthSaslStepArgs,
    ConnectOpenArgs,
    ConnectSupportsFeatureArgs,
)
from sterna.rpc.msg_domain import DomainDefineXmlArgs
from sterna.rpc.scram import ScramClient
from sterna.server import authentication
from sterna.server.authentication import FAILURES_MAX, FAILURES_S, Failures, Strangers
from sterna.server.dispatch import HANDLERS
from support.rpc_ends import ended, until
from support.wire import call_packet

from .conftest import Served

OPEN = ConnectOpenArgs(name="qemu:///system", flags=0)


class Asked:
    """Clients of a daemon that asks who they are."""

    def __init__(self, served: Served, listening: socket.socket) -> None:
        self.served = served
        self._listening = listening
        self.open: list[ClientConnection | socket.socket] = []

    @property
    def strangers(self) -> Strangers:
        return self.served.clients._strangers

    def raw(self) -> socket.socket:
        ours = socket.create_connection(self._listening.getsockname())
        theirs, _ = self._listening.accept()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.served.clients.accept(theirs, False)
        self.open.append(ours)
        return ours

    def connect(self) -> ClientConnection:
        connection = ClientConnection.from_socket(self.raw())
        self.open.append(connection)
        return connection


@pytest.fixture
async def asked(served: Served) -> AsyncIterator[Asked]:
    served.context.settings = dataclasses.replace(
        served.context.settings, auth_tcp="sasl", clients_max=100
    )
    served.clients._strangers.passwords.set("ann", "secret")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made = Asked(served, listening)
        yield made
        for end in made.open:
            end.close()


async def log_in(client: ClientConnection, user: str = "ann", password: str = "secret") -> None:
    scram = ScramClient(user, password, "nonce")
    start = await client.call(
        "AUTH_SASL_START", AuthSaslStartArgs("SCRAM-SHA-256", 0, scram.first())
    )
    assert (start.complete, start.nil) == (0, 0)
    step = await client.call("AUTH_SASL_STEP", AuthSaslStepArgs(0, scram.final(start.data)))
    assert (step.complete, step.nil) == (1, 0)
    scram.check(step.data)


async def test_it_is_let_in(asked: Asked) -> None:
    client = asked.connect()
    assert (await client.call("AUTH_LIST")).types == [1]
    assert (await client.call("AUTH_SASL_INIT")).mechlist == "SCRAM-SHA-256"
    await log_in(client)
    assert (await client.call("AUTH_LIST")).types == [0]
    await client.call("CONNECT_OPEN", OPEN)
    assert (await client.call("CONNECT_GET_HOSTNAME")).hostname == "tested"
    assert not asked.strangers._here


async def test_on_a_unix_socket_nobody_is_asked(asked: Asked) -> None:
    client = await asked.served.connect()
    assert (await client.call("AUTH_LIST")).types == [0]
    with pytest.raises(AuthFailed):
        await client.call("AUTH_SASL_INIT")


async def test_a_stranger_is_answered_nothing(asked: Asked) -> None:
    """Every procedure there is, except those by which it says who it is."""
    allowed = {"AUTH_LIST", "AUTH_SASL_INIT", "AUTH_SASL_START", "AUTH_SASL_STEP"}
    assert {name for name, entry in HANDLERS.items() if entry.stranger} == allowed
    client = asked.connect()
    for name, args in (
        ("CONNECT_OPEN", OPEN),
        ("CONNECT_SUPPORTS_FEATURE", ConnectSupportsFeatureArgs(10)),
        ("CONNECT_GET_HOSTNAME", None),
        ("CONNECT_CLOSE", None),
        ("AUTH_POLKIT", None),
    ):
        with pytest.raises(RpcError) as refusal:
            await client.call(name, args)
        assert (refusal.value.number, str(refusal.value)) == (39, "authentication required")
    assert {p.name for p in PROCEDURES} > allowed


@pytest.mark.parametrize(("user", "password"), [("ann", "wrong"), ("nobody", "secret")])
async def test_a_failure_tells_nothing(
    asked: Asked, user: str, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = asked.connect()
    with pytest.raises(AuthFailed) as refusal:
        await log_in(client, user, password)
    assert str(refusal.value) == "authentication failed: authentication failed"
    with pytest.raises(RpcError, match="authentication required"):
        await client.call("CONNECT_OPEN", OPEN)
    [told] = [r for r in caplog.records if r.message == "client.not_authenticated"]
    assert vars(told)["f"]["user"] == user
    await log_in(client)  # it may try again


@pytest.mark.parametrize("mechanism", ["EXTERNAL", "PLAIN", "SCRAM-SHA-1", ""])
async def test_other_mechanisms(asked: Asked, mechanism: str) -> None:
    client = asked.connect()
    with pytest.raises(AuthFailed):
        await client.call("AUTH_SASL_START", AuthSaslStartArgs(mechanism, 0, b"ann"))
    with pytest.raises(RpcError, match="authentication required"):
        await client.call("CONNECT_OPEN", OPEN)


async def test_out_of_order(asked: Asked) -> None:
    client = asked.connect()
    step = AuthSaslStepArgs(0, b"c=biws,r=x,p=YQ==")
    start = AuthSaslStartArgs("SCRAM-SHA-256", 0, b"n,,n=ann,r=x")
    for calls in (
        [("AUTH_SASL_STEP", step)],
        [("AUTH_SASL_START", start), ("AUTH_SASL_START", start)],
        [("AUTH_SASL_START", start), ("AUTH_SASL_STEP", step)],
        [("AUTH_SASL_START", AuthSaslStartArgs("SCRAM-SHA-256", 1, b"")), ("AUTH_SASL_STEP", step)],
    ):
        *before, last = calls
        for name, args in before:
            await client.call(name, args)
        with pytest.raises(AuthFailed):
            await client.call(*last)
    await log_in(client)
    for name, args in (("AUTH_SASL_START", start), ("AUTH_SASL_STEP", step)):
        with pytest.raises(AuthFailed):
            await client.call(name, args)


async def test_guessing_is_bounded(asked: Asked) -> None:
    for _ in range(FAILURES_MAX):
        with pytest.raises(AuthFailed):
            await log_in(asked.connect(), "ann", "guess")
    with pytest.raises(AuthFailed):
        await log_in(asked.connect())  # the right one, too late


def test_failures_are_forgotten() -> None:
    now = 100.0
    failures = Failures(lambda: now)
    for _ in range(FAILURES_MAX):
        assert not failures.too_many("a")
        failures.add("a")
    assert failures.too_many("a")
    assert not failures.too_many("b")
    now += FAILURES_S
    assert not failures.too_many("a")
    failures.add("a")
    assert not failures.too_many("a")
    for n in range(authentication.ADDRESSES_MAX + 10):
        failures.add(str(n))
    assert len(failures._by_address) == authentication.ADDRESSES_MAX


async def test_strangers_have_little_time(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "STRANGER_S", 0.05)
    silent = asked.connect()
    await ended(silent)
    monkeypatch.undo()
    known = asked.connect()
    await log_in(known)
    assert not asked.strangers._here


async def test_a_crowd_of_strangers(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "STRANGERS_MAX", 3)
    crowd = [asked.connect() for _ in range(5)]
    await until(lambda: [client.closed for client in crowd] == [True, True, False, False, False])
    await log_in(crowd[-1])


async def test_a_stranger_has_little_room(asked: Asked) -> None:
    """A packet that only a known client may send ends a stranger's connection."""
    length = (1024 * 1024).to_bytes(4, "big")
    stranger = asked.raw()
    stranger.send(length + call_packet("AUTH_LIST")[4:])
    await until(lambda: not asked.strangers._here)
    known = asked.connect()
    await log_in(known)
    with pytest.raises(SternaError, match="hypervisor connection not open"):
        await known.call("DOMAIN_DEFINE_XML", DomainDefineXmlArgs("x" * 1_000_000))
