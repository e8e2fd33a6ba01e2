"""Connections on asyncio over real sockets: descriptors, and the addresses they are reached at."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from pathlib import Path

import pytest

from sterna.errors import NoDomain
from sterna.rpc.asyncio_shell import Call, ClientConnection, ServerConnection
from sterna.rpc.msg_common import Dom
from sterna.rpc.msg_qemu import (
    DomainMonitorCommandWithFilesArgs,
    DomainMonitorCommandWithFilesRet,
)
from support.rpc_ends import Collects, Ends, ended, hostname, open_fds, until
from support.wire import call_packet

DOM = Dom("g", bytes(16), 1)
FILES = "DOMAIN_MONITOR_COMMAND_WITH_FILES"


# -- descriptors


def contents(fds: tuple[int, ...]) -> list[bytes]:
    found = []
    for fd in fds:
        assert not os.get_inheritable(fd)
        found.append(os.pread(fd, 100, 0))
        os.close(fd)
    return found


async def test_descriptors_both_ways(ends: Ends, tmp_path: Path) -> None:
    got: list[bytes] = []

    def serve(connection: ServerConnection, call: Call) -> None:
        fds = call.take_fds()
        connection.reply(call, DomainMonitorCommandWithFilesRet("{}"), fds)
        got.extend(contents(fds))

    files = []
    for n in range(3):
        (tmp_path / str(n)).write_bytes(b"%d" % n)
        files.append(os.open(tmp_path / str(n), os.O_RDONLY))
    _, client = ends.pair(serve)
    args = DomainMonitorCommandWithFilesArgs(DOM, "{}", 0)
    for _ in range(3):
        ret, back = await client.call_for_fds(FILES, args, files)
        assert ret.result == "{}"
        assert contents(back) == [b"0", b"1", b"2"]
    await client.call(FILES, args, files)  # what comes back unasked is closed
    assert got == [b"0", b"1", b"2"] * 4
    for fd in files:
        os.close(fd)


async def test_descriptors_nobody_takes_are_closed(ends: Ends, tmp_path: Path) -> None:
    keeper = Collects()
    connection, client = ends.pair(keeper)
    fd = os.open(tmp_path, os.O_RDONLY)
    args = DomainMonitorCommandWithFilesArgs(DOM, "{}", 0)
    before = len(open_fds())
    tasks = [asyncio.ensure_future(client.call(FILES, args, [fd])) for _ in range(2)]
    await until(lambda: len(keeper.calls) == 2)
    assert len(open_fds()) == before + 2
    connection.reply_error(keeper.calls[0], NoDomain("x"))
    assert len(open_fds()) == before + 1
    connection.abort("the other is never answered")
    await asyncio.gather(*tasks, return_exceptions=True)
    connection.reply(keeper.calls[1], DomainMonitorCommandWithFilesRet("{}"))
    os.close(fd)


@pytest.mark.parametrize("count", [1, 20])
async def test_descriptors_that_no_packet_announced(ends: Ends, count: int) -> None:
    connection, sock = ends.server(hostname)
    rights = array.array("i", [sock.fileno()] * count)
    raw = call_packet("CONNECT_GET_HOSTNAME")[:20]
    before = len(open_fds())
    sock.sendmsg([raw], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    await ended(connection)
    assert len(open_fds()) <= before


# -- connecting


async def test_connecting_by_a_path_of_any_length(ends: Ends, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    for path in (tmp_path / "s", deep / "socket"):
        with socket.socket(socket.AF_UNIX) as listening:
            if len(str(path)) > 107:
                directory = os.open(path.parent, os.O_PATH)
                listening.bind(f"/proc/self/fd/{directory}/{path.name}")
                os.close(directory)
            else:
                listening.bind(str(path))
            listening.listen()
            client = await ClientConnection.connect_unix(path)
            accepted, _ = listening.accept()
        connection = ServerConnection(accepted, hostname)
        ends.open += [connection, client]
        assert await client.call("CONNECT_GET_HOSTNAME")
    with pytest.raises(FileNotFoundError):
        await ClientConnection.connect_unix(tmp_path / "nobody")


async def test_connecting_over_tcp(ends: Ends) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        client = await ClientConnection.connect_tcp("127.0.0.1", port)
        accepted, _ = listening.accept()
    ends.open += [ServerConnection(accepted, hostname), client]
    assert await client.call("CONNECT_GET_HOSTNAME")
    with pytest.raises(ConnectionRefusedError):
        await ClientConnection.connect_tcp("127.0.0.1", port)
