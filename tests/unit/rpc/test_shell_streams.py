"""Streams on asyncio: data both ways, back-pressure, every way they end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sterna.errors import OperationFailed, SternaError
from sterna.rpc.asyncio_shell import (
    Call,
    ClientConnection,
    ClientStream,
    Limits,
    ServerConnection,
    ServerStream,
)
from sterna.rpc.errors import ConnectionLost, LocalMistake, StreamClosed
from sterna.rpc.frame import STREAM_BYTES_MAX, PacketType, Status
from sterna.rpc.msg_common import Dom, Hole, Vol
from sterna.rpc.msg_connect import ConnectGetHostnameRet
from sterna.rpc.msg_device import (
    DomainOpenConsoleArgs,
    DomainScreenshotArgs,
    DomainScreenshotRet,
)
from sterna.rpc.msg_storage import StorageVolDownloadArgs, StorageVolUploadArgs
from sterna.xdr.message import Message
from support.rpc_ends import Ends, until
from support.wire import call_packet, packets, stream_packet

WAIT_S = 5.0
DOM = Dom("g", bytes(16), 1)
VOL = Vol("p", "v", "/v")
CONSOLE = ("DOMAIN_OPEN_CONSOLE", DomainOpenConsoleArgs(DOM, None, 0))
UPLOAD = ("STORAGE_VOL_UPLOAD", StorageVolUploadArgs(VOL, 0, 0, 0))
DOWNLOAD = ("STORAGE_VOL_DOWNLOAD", StorageVolDownloadArgs(VOL, 0, 0, 0))
SPARSE = ("STORAGE_VOL_UPLOAD", StorageVolUploadArgs(VOL, 0, 0, 1))

Work = Callable[[ServerStream], Awaitable[None]]


class Daemon:
    """Serves stream calls with a coroutine; other calls with a host name."""

    def __init__(self, work: Work, *, sparse: bool = False) -> None:
        self.work = work
        self.sparse = sparse
        self.tasks: list[asyncio.Task[None]] = []
        self.streams: list[ServerStream] = []

    def __call__(self, connection: ServerConnection, call: Call) -> None:
        if call.procedure.stream is None:
            connection.reply(call, ConnectGetHostnameRet("h"))
            return
        stream = connection.open_stream(call, sparse=self.sparse)
        self.streams.append(stream)
        ret: Message | None = None
        if call.procedure.ret is not None:
            ret = DomainScreenshotRet("image/png")
        connection.reply(call, ret)
        self.tasks.append(asyncio.ensure_future(self._run(stream)))

    async def _run(self, stream: ServerStream) -> None:
        await self.work(stream)

    async def done(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*self.tasks)


async def opened(
    ends: Ends, daemon: Daemon, call: tuple[str, Message], *, limits: Limits | None = None
) -> tuple[ServerConnection, ClientConnection, ClientStream]:
    connection, client = ends.pair(daemon, limits=limits)
    return connection, client, await client.open_stream(*call, sparse=daemon.sparse)


async def send_for_ever(stream: ServerStream) -> None:
    while True:
        await stream.send(bytes(100_000))


async def test_upload(ends: Ends) -> None:
    got = bytearray()

    async def work(stream: ServerStream) -> None:
        while (item := await stream.receive()) is not None:
            assert isinstance(item, bytes)
            got.extend(item)
        await stream.finish()

    daemon = Daemon(work)
    _, _, stream = await opened(ends, daemon, UPLOAD)
    data = bytes(range(256)) * 10_000
    await stream.send(data)
    await stream.finish()
    await stream.finish()
    assert got == data
    await daemon.done()


async def test_download_and_the_reply_message(ends: Ends) -> None:
    data = bytes(range(256)) * 10_000

    async def work(stream: ServerStream) -> None:
        await stream.send(data)
        await stream.send_eof()

    daemon = Daemon(work)
    _, client, stream = await opened(
        ends, daemon, ("DOMAIN_SCREENSHOT", DomainScreenshotArgs(DOM, 0, 0))
    )
    assert stream.ret == DomainScreenshotRet("image/png")
    got = bytearray()
    while (item := await stream.receive()) is not None:
        assert isinstance(item, bytes)
        assert len(item) <= STREAM_BYTES_MAX
        got.extend(item)
    assert await stream.receive() is None
    await stream.finish()
    assert got == data
    assert await client.call("CONNECT_GET_HOSTNAME")
    await daemon.done()


async def test_both_ways_at_once(ends: Ends) -> None:
    async def echo(stream: ServerStream) -> None:
        while (item := await stream.receive()) is not None:
            assert isinstance(item, bytes)
            await stream.send(item.upper())
        await stream.finish()

    daemon = Daemon(echo)
    _, _, stream = await opened(ends, daemon, CONSOLE)
    for _ in range(3):
        await stream.send(b"login")
        assert await stream.receive() == b"LOGIN"
    await stream.finish()
    await daemon.done()


async def test_holes(ends: Ends) -> None:
    got: list[bytes | Hole] = []

    async def work(stream: ServerStream) -> None:
        while (item := await stream.receive()) is not None:
            got.append(item)
        await stream.finish()

    daemon = Daemon(work, sparse=True)
    _, _, stream = await opened(ends, daemon, SPARSE)
    await stream.send(b"a")
    await stream.send_hole(1 << 30)
    await stream.send(b"b")
    await stream.finish()
    assert got == [b"a", Hole(1 << 30, 0), b"b"]
    await daemon.done()


async def test_the_daemon_fails_a_stream(ends: Ends) -> None:
    async def work(stream: ServerStream) -> None:
        await stream.receive()
        stream.fail(OperationFailed("disk full"))
        stream.fail(OperationFailed("again"))
        with pytest.raises(StreamClosed):
            await stream.send(b"x")

    daemon = Daemon(work)
    _, client, stream = await opened(ends, daemon, UPLOAD)
    await stream.send(b"x")
    with pytest.raises(OperationFailed, match="disk full"):
        await stream.receive()
    for again in (stream.send(b"x"), stream.finish(), stream.receive()):
        with pytest.raises(OperationFailed, match="disk full"):
            await again
    assert stream.aborted
    await stream.abort()
    assert await client.call("CONNECT_GET_HOSTNAME")
    await daemon.done()


async def test_a_finish_may_be_answered_with_an_error(ends: Ends) -> None:
    async def work(stream: ServerStream) -> None:
        assert await stream.receive() is None
        stream.fail(OperationFailed("too short"))

    daemon = Daemon(work)
    _, _, stream = await opened(ends, daemon, UPLOAD)
    with pytest.raises(OperationFailed, match="too short"):
        await stream.finish()
    await daemon.done()


async def test_the_client_aborts(ends: Ends) -> None:
    seen: list[bool] = []

    async def work(stream: ServerStream) -> None:
        with pytest.raises(StreamClosed):
            await send_for_ever(stream)
        seen.append(stream.aborted)
        await stream.send_eof()

    daemon = Daemon(work)
    _, client, stream = await opened(ends, daemon, DOWNLOAD)
    await stream.receive()
    await stream.abort()
    await daemon.done()
    assert seen == [True]
    assert await client.call("CONNECT_GET_HOSTNAME")


async def test_the_client_finishes_early(ends: Ends) -> None:
    async def work(stream: ServerStream) -> None:
        with pytest.raises(StreamClosed):
            await send_for_ever(stream)

    daemon = Daemon(work)
    _, _, stream = await opened(ends, daemon, DOWNLOAD)
    await stream.receive()
    await stream.finish()
    await daemon.done()


async def test_the_connection_ends(ends: Ends) -> None:
    async def work(stream: ServerStream) -> None:
        with pytest.raises(StreamClosed, match="the peer closed"):
            await stream.receive()
        assert stream.aborted
        with pytest.raises(StreamClosed):
            await stream.send(b"x")

    daemon = Daemon(work)
    _, client, stream = await opened(ends, daemon, CONSOLE)
    waiting = asyncio.ensure_future(stream.receive())
    await asyncio.sleep(0)
    client.close()
    with pytest.raises(ConnectionLost):
        await waiting
    with pytest.raises(ConnectionLost):
        await stream.finish()
    await daemon.done()


async def test_who_sends_waits_for_who_reads(ends: Ends) -> None:
    progress = 0

    async def work(stream: ServerStream) -> None:
        nonlocal progress
        for _ in range(100):
            await stream.send(bytes(STREAM_BYTES_MAX))
            progress += 1
        await stream.send_eof()

    daemon = Daemon(work)
    connection, sock = ends.server(daemon)
    await asyncio.get_running_loop().sock_sendall(sock, call_packet(DOWNLOAD[0], DOWNLOAD[1]))
    await until(lambda: progress)
    await asyncio.sleep(0.02)
    assert progress < 5
    assert connection._base.output_bytes < 3 * STREAM_BYTES_MAX
    # Another call is answered though the stream is stuck: behind one packet of it.
    await asyncio.get_running_loop().sock_sendall(sock, call_packet("CONNECT_GET_HOSTNAME"))
    raw = b""
    while len(raw) < 100 * (STREAM_BYTES_MAX + 28) + 28 + 28 + 36:
        raw += await asyncio.get_running_loop().sock_recv(sock, 1 << 20)
    kinds = [(p.type, p.procedure) for p in packets(raw)]
    assert kinds.index((PacketType.REPLY, 59)) < 6
    assert progress == 100
    await daemon.done()


async def test_who_reads_slowly_holds_the_sender_back(ends: Ends) -> None:
    go = asyncio.Event()
    got = 0

    async def work(stream: ServerStream) -> None:
        nonlocal got
        await go.wait()
        while (item := await stream.receive()) is not None:
            assert isinstance(item, bytes)
            got += len(item)
        await stream.finish()

    daemon = Daemon(work)
    limits = Limits(stream_bytes_max=300_000)
    connection, _, stream = await opened(ends, daemon, UPLOAD, limits=limits)
    sending = asyncio.ensure_future(stream.send(bytes(20 * STREAM_BYTES_MAX)))
    await until(lambda: not connection._reading)
    assert not sending.done()
    assert connection._base._stream_bytes < 2 * STREAM_BYTES_MAX + 300_000
    go.set()
    await sending
    await stream.finish()
    assert got == 20 * STREAM_BYTES_MAX
    await daemon.done()


async def test_data_that_came_ahead_of_an_abort_is_let_go(ends: Ends) -> None:
    async def work(stream: ServerStream) -> None:
        await asyncio.sleep(0)

    daemon = Daemon(work)
    connection, client, stream = await opened(ends, daemon, UPLOAD)
    await stream.send(bytes(1000))
    await stream.abort()
    assert connection._base._stream_bytes == 0
    with pytest.raises(StreamClosed):
        await daemon.streams[0].receive()
    assert await client.call("CONNECT_GET_HOSTNAME")
    await daemon.done()


async def test_a_refused_stream(ends: Ends) -> None:
    def refuse(connection: ServerConnection, call: Call) -> None:
        connection.open_stream(call)
        connection.reply_error(call, OperationFailed("Active console session exists"))

    _, client = ends.pair(refuse)
    with pytest.raises(OperationFailed):
        await client.open_stream(*CONSOLE)
    assert not client._streams


async def test_a_stream_nobody_waits_for_is_aborted_once_it_is_there(ends: Ends) -> None:
    calls: list[Call] = []
    connection, client = ends.pair(lambda _, call: calls.append(call))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await client.open_stream(*CONSOLE)
    (call,) = calls
    stream = connection.open_stream(call)
    connection.reply(call)
    await stream.send(b"login: ")
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(StreamClosed):
            await stream.receive()
    await until(lambda: not client._streams)
    assert client._base._stream_bytes == 0


async def test_no_stream_on_an_ended_connection(ends: Ends) -> None:
    calls: list[Call] = []
    connection, client = ends.pair(lambda _, call: calls.append(call))
    task = asyncio.ensure_future(client.open_stream(*CONSOLE))
    await until(lambda: calls)
    client.close()
    await connection.wait_closed()
    with pytest.raises(ConnectionLost):
        await task
    stream = connection.open_stream(calls[0])
    with pytest.raises(StreamClosed):
        await stream.send(b"x")


async def test_one_task_receives_while_another_finishes(ends: Ends) -> None:
    async def work(stream: ServerStream) -> None:
        while await stream.receive() is not None:
            pass
        await stream.finish()

    daemon = Daemon(work)
    _, _, stream = await opened(ends, daemon, CONSOLE)
    reading = asyncio.ensure_future(stream.receive())
    await asyncio.sleep(0)
    await stream.finish()
    assert await reading is None
    await daemon.done()


@pytest.mark.parametrize("by_reply", [True, False])
async def test_our_own_end_wakes_who_receives(ends: Ends, by_reply: bool) -> None:
    calls: list[Call] = []
    connection, client = ends.pair(lambda _, call: calls.append(call))
    task = asyncio.ensure_future(client.open_stream(*CONSOLE))
    await until(lambda: calls)
    stream = connection.open_stream(calls[0])
    reading = asyncio.ensure_future(stream.receive())
    await asyncio.sleep(0)
    if by_reply:
        connection.reply_error(calls[0], OperationFailed("no"))
        with pytest.raises(OperationFailed):
            await task
    else:
        connection.reply(calls[0])
        stream.fail(OperationFailed("no"))
        with pytest.raises(OperationFailed):
            await (await task).receive()
    with pytest.raises(StreamClosed, match="ended here"):
        await reading
    assert not connection._streams


async def test_a_confirmation_needs_a_finish(ends: Ends) -> None:
    async def work(stream: ServerStream) -> None:
        with pytest.raises(LocalMistake):
            await stream.finish()
        stream.fail(OperationFailed("enough"))

    daemon = Daemon(work)
    _, _, stream = await opened(ends, daemon, UPLOAD)
    with pytest.raises(SternaError):
        await stream.finish()
    await daemon.done()


async def test_packets_behind_an_error_are_dropped(ends: Ends) -> None:
    async def work(stream: ServerStream) -> None:
        stream.fail(OperationFailed("no"))

    daemon = Daemon(work)
    connection, sock = ends.server(daemon)
    raw = call_packet(*UPLOAD) + b"".join(
        stream_packet(UPLOAD[0], 0, b"", status=status)
        for status in (Status.CONTINUE, Status.OK, Status.ERROR)
    )
    await asyncio.get_running_loop().sock_sendall(sock, raw[: len(call_packet(*UPLOAD))])
    await until(lambda: connection._written)
    await daemon.done()
    await asyncio.get_running_loop().sock_sendall(sock, raw[len(call_packet(*UPLOAD)) :])
    await asyncio.get_running_loop().sock_sendall(sock, call_packet("CONNECT_GET_HOSTNAME"))
    got = b""
    while b"h\0\0\0" not in got:
        got += await asyncio.get_running_loop().sock_recv(sock, 65_536)
    assert [p.type for p in packets(got)] == [
        PacketType.REPLY,
        PacketType.STREAM,
        PacketType.REPLY,
    ]
