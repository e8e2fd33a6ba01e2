"""Connections on asyncio over real sockets: calls, ends, clients that misbehave."""

from __future__ import annotations

import array
import asyncio
import os
import random
import socket
import struct
from typing import Any

import pytest

from sterna.errors import InternalError, NoDomain, RpcError
from sterna.rpc import asyncio_connection
from sterna.rpc.asyncio_shell import Call, Limits, ServerConnection
from sterna.rpc.errors import ConnectionLost, LocalMistake
from sterna.rpc.frame import PacketType
from sterna.rpc.msg_common import Dom
from sterna.rpc.msg_connect import (
    ConnectGetCapabilitiesRet,
    ConnectGetHostnameRet,
    ConnectGetTypeRet,
)
from sterna.rpc.msg_domain import DomainLookupByNameArgs
from sterna.rpc.msg_event import DomainEventCallbackLifecycleMsg
from sterna.xdr import WireError
from support.rpc_ends import Collects, Ends, ended, hostname, open_fds, read, send, until
from support.wire import call_packet, packets

DOM = Dom("g", bytes(16), 1)
EVENT = DomainEventCallbackLifecycleMsg(0, DOM, 4, 0)
LIFECYCLE = "DOMAIN_EVENT_CALLBACK_LIFECYCLE"
FILES = "DOMAIN_MONITOR_COMMAND_WITH_FILES"


# -- calls


async def test_a_call_and_its_reply(ends: Ends) -> None:
    connection, client = ends.pair(hostname)
    assert await client.call("CONNECT_GET_HOSTNAME") == ConnectGetHostnameRet("tern")
    assert connection.peer.uid == os.getuid()
    assert connection.peer.pid == os.getpid()
    assert connection.peer.is_unix


async def test_an_error_is_raised_as_its_class(ends: Ends) -> None:
    _, client = ends.pair(lambda c, call: c.reply_error(call, NoDomain("x")))
    with pytest.raises(NoDomain, match="Domain not found: x"):
        await client.call("DOMAIN_LOOKUP_BY_NAME", DomainLookupByNameArgs("x"))


async def test_replies_later_and_in_another_order(ends: Ends) -> None:
    keeper = Collects()
    connection, client = ends.pair(keeper)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(client.call("CONNECT_GET_TYPE"))
        second = tasks.create_task(client.call("CONNECT_GET_HOSTNAME"))
        await until(lambda: len(keeper.calls) == 2)
        connection.reply(keeper.calls[1], ConnectGetHostnameRet("h"))
        assert (await second).hostname == "h"
        assert not first.done()
        connection.reply(keeper.calls[0], ConnectGetTypeRet("QEMU"))
    assert first.result().type == "QEMU"


async def test_a_handlers_bug_is_one_calls_error(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    def serve(connection: ServerConnection, call: Call) -> None:
        if call.procedure.name == "CONNECT_GET_TYPE":
            raise ZeroDivisionError
        if call.procedure.name == "CONNECT_GET_URI":
            connection.reply(call, ConnectGetTypeRet("not what it returns"))
        else:
            hostname(connection, call)

    _, client = ends.pair(serve)
    with pytest.raises(InternalError):
        await client.call("CONNECT_GET_TYPE")
    with pytest.raises(RpcError, match="Unable to encode message payload"):
        await client.call("CONNECT_GET_URI")
    assert await client.call("CONNECT_GET_HOSTNAME")
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == [
        "rpc.handler_failed",
        "rpc.reply_not_encoded",
    ]


async def test_a_second_reply_is_our_mistake(ends: Ends) -> None:
    keeper = Collects()
    connection, client = ends.pair(keeper)
    task = asyncio.ensure_future(client.call("CONNECT_GET_HOSTNAME"))
    await until(lambda: keeper.calls)
    hostname(connection, keeper.calls[0])
    with pytest.raises(LocalMistake):
        hostname(connection, keeper.calls[0])
    await task


async def test_arguments_that_cannot_be_sent(ends: Ends) -> None:
    _, client = ends.pair(hostname)
    with pytest.raises(WireError):
        await client.call("DOMAIN_LOOKUP_BY_NAME", DomainLookupByNameArgs("a\0"))
    with pytest.raises(ValueError, match="opens a stream"):
        await client.call("DOMAIN_OPEN_CONSOLE")
    with pytest.raises(ValueError, match="opens no stream"):
        await client.open_stream("CONNECT_GET_HOSTNAME")


async def test_a_reply_nobody_waits_for_any_more(ends: Ends) -> None:
    keeper = Collects()
    connection, client = ends.pair(keeper)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await client.call("CONNECT_GET_HOSTNAME")
    await until(lambda: keeper.calls)
    hostname(connection, keeper.calls[0])
    task = asyncio.ensure_future(client.call("CONNECT_GET_HOSTNAME"))
    await until(lambda: len(keeper.calls) == 2)
    hostname(connection, keeper.calls[1])
    assert (await task).hostname == "tern"
    assert not client.closed


async def test_events(ends: Ends) -> None:
    connection, client = ends.pair(hostname)
    connection.send_event(LIFECYCLE, EVENT)  # nobody listens yet
    await client.call("CONNECT_GET_HOSTNAME")
    got: list[tuple[str, Any]] = []
    client.events = lambda procedure, message: got.append((procedure.name, message))
    connection.send_event(LIFECYCLE, EVENT)
    await client.call("CONNECT_GET_HOSTNAME")
    assert got == [(LIFECYCLE, EVENT)]


async def test_a_listeners_bug_hurts_nobody(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    def listen(procedure: object, message: object) -> None:
        raise ZeroDivisionError

    connection, client = ends.pair(hostname)
    client.events = listen
    connection.send_event(LIFECYCLE, EVENT)
    await client.call("CONNECT_GET_HOSTNAME")
    assert "rpc.listener_failed" in caplog.messages


async def test_a_large_reply(ends: Ends) -> None:
    text = "x" * 4_000_000
    _, client = ends.pair(lambda c, call: c.reply(call, ConnectGetCapabilitiesRet(text)))
    replies = await asyncio.gather(*[client.call("CONNECT_GET_CAPABILITIES") for _ in range(4)])
    assert all(reply.capabilities == text for reply in replies)


async def test_a_thousand_calls_in_one_go_leave_the_loop_to_others(ends: Ends) -> None:
    served = 0

    def serve(connection: ServerConnection, call: Call) -> None:
        nonlocal served
        served += 1
        hostname(connection, call)

    _, sock = ends.server(serve)
    await send(sock, call_packet("CONNECT_GET_HOSTNAME") * 1000)
    most, before = 0, 0
    while served < 1000:
        await asyncio.sleep(0)
        most, before = max(most, served - before), served
    assert most <= asyncio_connection.EVENTS_PER_TURN
    assert len(packets(await read(sock, 1000 * 36))) == 1000


# -- the end of a connection


async def test_close_callbacks_come_once_first_and_all(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    connection, sock = ends.server(hostname)
    seen: list[str] = []

    def first() -> None:
        # The connection counts as ended, but nothing has been cleaned up.
        assert connection.closed
        assert connection._transport.fileno() >= 0
        seen.append("first")

    def fails() -> None:
        raise ZeroDivisionError

    def removed() -> None:
        seen.append("removed")

    for callback in (first, fails, removed):
        connection.add_close_callback(callback)
    connection.remove_close_callback(removed)
    connection.remove_close_callback(removed)
    connection.add_close_callback(lambda: seen.append("last"))
    sock.close()
    assert await ended(connection) == "the peer closed the connection"
    connection.abort("again")
    connection.close()
    assert seen == ["first", "last"]
    assert "rpc.close_callback_failed" in caplog.messages
    connection.add_close_callback(lambda: seen.append("at once"))
    assert seen[-1] == "at once"


async def test_a_breach_of_the_protocol_ends_that_connection_only(ends: Ends) -> None:
    bad, sock = ends.server(hostname)
    _, client = ends.pair(hostname)
    await send(sock, struct.pack(">I", 3))
    assert "3 bytes" in await ended(bad)
    assert await client.call("CONNECT_GET_HOSTNAME")


async def test_what_went_before_a_breach_is_answered(ends: Ends) -> None:
    _, sock = ends.server(hostname)
    await send(sock, call_packet("CONNECT_GET_HOSTNAME") + struct.pack(">I", 3))
    assert len(packets(await read(sock, 1000))) == 1


async def test_the_peer_is_gone_even_behind_its_last_words(ends: Ends) -> None:
    """I2: a call that waited in the buffer while its client closed must be able to know."""
    answers: list[bool] = []

    def serve(connection: ServerConnection, call: Call) -> None:
        answers.append(connection.peer_gone())
        hostname(connection, call)

    connection, sock = ends.server(serve)
    assert not connection.peer_gone()
    await send(sock, call_packet("CONNECT_GET_HOSTNAME"))
    await until(lambda: answers)
    sock.send(call_packet("CONNECT_GET_HOSTNAME"))
    sock.close()
    assert connection.peer_gone()
    await ended(connection)
    assert answers == [False, True]
    assert connection.peer_gone()


async def test_an_end_is_noticed_at_once_though_nothing_is_read(ends: Ends) -> None:
    """L3: back-pressure must not hide that the client is gone."""
    limits = Limits(calls_running_max=1, calls_running_extra=0, calls_waiting_max=1)
    keeper = Collects()
    connection, sock = ends.server(keeper, limits=limits)
    await send(sock, call_packet("CONNECT_GET_CAPABILITIES") * 5000)
    await until(lambda: keeper.calls and not connection._reading)
    sock.close()
    async with asyncio.timeout(1):
        assert await connection.wait_closed() == "the peer closed the connection"
    assert len(keeper.calls) == 1


async def test_an_end_is_noticed_while_a_handler_works(ends: Ends) -> None:
    keeper = Collects()
    connection, sock = ends.server(keeper)
    await send(sock, call_packet("CONNECT_GET_CAPABILITIES"))
    await until(lambda: keeper.calls)
    sock.close()
    await ended(connection)
    # Its work is done in the end, and the answer goes nowhere.
    connection.reply(keeper.calls[0], ConnectGetCapabilitiesRet("x"))
    connection.reply_error(keeper.calls[0], NoDomain("x"))
    connection.send_event(LIFECYCLE, EVENT)
    connection.start_keepalive()
    connection.limit_silence(1.0)


async def test_reading_goes_on_when_there_is_room_again(ends: Ends) -> None:
    limits = Limits(calls_running_max=1, calls_running_extra=0, calls_waiting_max=1)
    keeper = Collects()
    connection, sock = ends.server(keeper, limits=limits)
    await send(sock, call_packet("CONNECT_GET_CAPABILITIES") * 100)
    for _ in range(100):
        await until(lambda: keeper.calls and not keeper.calls[-1].answered)
        connection.reply(keeper.calls[-1], ConnectGetCapabilitiesRet("x"))
    assert connection.calls_running == 0
    assert len(packets(await read(sock, 100 * 36))) == 100


async def test_a_client_that_reads_no_events_is_cut_off(ends: Ends) -> None:
    connection, _sock = ends.server(hostname, limits=Limits(event_bytes_max=100_000))
    for _ in range(100_000):
        if connection.closed:
            break
        connection.send_event(LIFECYCLE, EVENT)
    assert connection.closed
    assert "does not read" in connection.close_reason


async def test_a_client_that_reads_no_replies_is_left_waiting(ends: Ends) -> None:
    served = 0

    def serve(connection: ServerConnection, call: Call) -> None:
        nonlocal served
        served += 1
        connection.reply(call, ConnectGetCapabilitiesRet("x" * 10_000))

    connection, sock = ends.server(serve, limits=Limits(output_bytes_high=100_000))
    await send(sock, call_packet("CONNECT_GET_CAPABILITIES") * 200)
    await until(lambda: not connection._reading)
    assert served < 200
    assert connection._base.output_bytes < 120_000
    total = len(await read(sock, 200 * 10_032))
    assert total == 200 * 10_032
    assert served == 200


async def test_what_was_sent_leaves_before_a_close(ends: Ends) -> None:
    def serve(connection: ServerConnection, call: Call) -> None:
        if call.procedure.name == "CONNECT_CLOSE":
            connection.reply(call)
            connection.close()
        else:
            connection.reply(call, ConnectGetCapabilitiesRet("x" * 1_000_000))

    connection, sock = ends.server(serve)
    raw = call_packet("CONNECT_GET_CAPABILITIES") + call_packet("CONNECT_CLOSE")
    await send(sock, raw + call_packet("CONNECT_GET_CAPABILITIES"))
    found = packets(await read(sock, 10_000_000))
    assert [p.procedure for p in found] == [7, 2]
    assert await ended(connection) == "closed here"


async def test_a_close_does_not_wait_for_ever(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio_connection, "CLOSE_LINGER_S", 0.02)

    def serve(connection: ServerConnection, call: Call) -> None:
        connection.reply(call, ConnectGetCapabilitiesRet("x" * 3_000_000))
        connection.close()

    connection, sock = ends.server(serve)
    await send(sock, call_packet("CONNECT_GET_CAPABILITIES"))
    assert "did not read" in await ended(connection)


async def test_calls_fail_when_the_connection_ends(ends: Ends) -> None:
    keeper = Collects()
    connection, client = ends.pair(keeper)
    task = asyncio.ensure_future(client.call("CONNECT_GET_HOSTNAME"))
    await until(lambda: keeper.calls)
    connection.abort("enough")
    with pytest.raises(ConnectionLost, match="the peer closed the connection"):
        await task
    with pytest.raises(ConnectionLost, match="the peer closed the connection"):
        await client.call("CONNECT_GET_HOSTNAME")
    assert client.close_reason == "the peer closed the connection"


async def test_a_client_that_closed_calls_no_more(ends: Ends) -> None:
    _, client = ends.pair(hostname)
    client.close()
    with pytest.raises(ConnectionLost, match="closed here"):
        await client.call("CONNECT_GET_HOSTNAME")


async def test_a_reset_over_tcp(ends: Ends) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    with listening:
        sock = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
    connection = ServerConnection(accepted, hostname)
    ends.open.append(connection)
    assert not connection.peer.is_unix
    assert connection.peer.address.startswith("127.0.0.1:")
    connection.limit_silence(5.0)
    connection.limit_silence(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    await until(connection.peer_gone)
    await ended(connection)


async def test_a_client_that_never_was(ends: Ends) -> None:
    sock = socket.socket(socket.AF_INET)
    before = len(open_fds())
    with pytest.raises(OSError, match="not connected"):
        ServerConnection(sock, hostname)
    assert len(open_fds()) == before - 1


async def test_two_hundred_bad_clients_leave_nothing_behind(ends: Ends) -> None:
    dice = random.Random(1)
    _, good = ends.pair(hostname)
    before = len(open_fds())
    pieces = [
        call_packet("CONNECT_GET_HOSTNAME"),
        call_packet("AUTH_LIST", number=9999),
        call_packet("CONNECT_GET_HOSTNAME", kind=PacketType.CALL_WITH_FDS, fd_count=2),
        bytes(40),
        dice.randbytes(100),
    ]
    connections = []
    for _ in range(200):
        ours, theirs = socket.socketpair()
        with theirs:
            connections.append(ServerConnection(ours, hostname))
            raw = b"".join(dice.choices(pieces, k=dice.randrange(5)))
            theirs.send(raw[: dice.randrange(len(raw) + 1)] or b"x")
            if dice.random() < 0.5:
                rights = array.array("i", [theirs.fileno()])
                theirs.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            if dice.random() < 0.5:
                await asyncio.sleep(0)
        assert await good.call("CONNECT_GET_HOSTNAME")
    for connection in connections:
        await ended(connection)
    assert len(open_fds()) == before


# -- keepalive


async def test_a_silent_client_is_given_up(ends: Ends) -> None:
    connection, sock = ends.server(hostname)
    connection.start_keepalive(0.01, 2)
    assert "silent" in await ended(connection)
    found = packets(await read(sock, 1000))
    assert [(p.procedure, p.type) for p in found] == [(1, PacketType.MESSAGE)] * 2


async def test_a_limit_on_silence(ends: Ends) -> None:
    connection, _sock = ends.server(hostname)
    connection.start_keepalive(60.0, 5)
    connection.limit_silence(0.05)
    assert "silent" in await ended(connection)


async def test_a_client_of_ours_answers(ends: Ends) -> None:
    connection, client = ends.pair(hostname)
    connection.start_keepalive(0.01, 1)
    client.start_keepalive(0.01, 1)
    await asyncio.sleep(0.1)
    assert await client.call("CONNECT_GET_HOSTNAME")


async def test_a_silent_daemon_fails_the_calls(ends: Ends) -> None:
    client, _sock = ends.client()
    client.start_keepalive(0.01, 2)
    with pytest.raises(ConnectionLost, match="silent"):
        await client.call("CONNECT_GET_HOSTNAME")
