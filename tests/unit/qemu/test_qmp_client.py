"""The monitor's shell against a QEMU made of a socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sterna.qemu.qmp_client import QmpClient, listen
from sterna.qemu.qmp_errors import MonitorGone, MonitorTimeout, QmpError
from sterna.qemu.qmp_session import Event

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""},'
    b' "capabilities": ["oob"]}}\r\n'
)


class FakeQemu:
    """The other end: reads commands when told to, answers what it is told."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.data = b""
        self.fds: list[int] = []

    async def read(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        while b"\n" not in self.data:
            readable = loop.create_future()
            loop.add_reader(self.sock, lambda f=readable: f.done() or f.set_result(None))
            await readable
            loop.remove_reader(self.sock)
            data, fds, _, _ = socket.recv_fds(self.sock, 65536, 8)
            self.data += data
            self.fds += fds
        text, _, self.data = self.data.partition(b"\n")
        result: dict[str, Any] = json.loads(text)
        return result

    async def write(self, *messages: object) -> None:
        data = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def answer(self, value: object = None) -> dict[str, Any]:
        command = await self.read()
        await self.write({"return": {} if value is None else value, "id": command["id"]})
        return command


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[QmpClient, FakeQemu]]:
    ours, theirs = socket.socketpair()
    qemu = FakeQemu(theirs)
    theirs.send(GREETING)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(qemu.answer())
        client = await QmpClient.connect(ours, timeout_s=5)
    try:
        yield client, qemu
    finally:
        client.close()
        theirs.close()


def event(name: str) -> dict[str, Any]:
    return {"event": name, "timestamp": {"seconds": 1, "microseconds": 2}}


async def test_execute_returns_what_qemu_returned() -> None:
    async with connected() as (client, qemu), asyncio.TaskGroup() as tasks:
        tasks.create_task(qemu.answer({"running": True}))
        assert await client.execute("query-status", timeout_s=5) == {"running": True}
        assert client.version == (7, 2, 0)


async def test_refusal_carries_qemus_words() -> None:
    async with connected() as (client, qemu), asyncio.TaskGroup() as tasks:

        async def refuse() -> None:
            command = await qemu.read()
            await qemu.write(
                {"error": {"class": "DeviceNotFound", "desc": "gone"}, "id": command["id"]}
            )

        tasks.create_task(refuse())
        with pytest.raises(QmpError) as caught:
            await client.execute("device_del", {"id": "x"}, timeout_s=5)
    assert (caught.value.cls, caught.value.desc) == ("DeviceNotFound", "gone")
    assert caught.value.message == (
        "internal error: unable to execute QEMU command 'device_del': gone"
    )


async def test_events_reach_subscribers_before_the_answer_that_followed_them() -> None:
    seen: list[str] = []
    async with connected() as (client, qemu), asyncio.TaskGroup() as tasks:
        unsubscribe = client.subscribe(lambda item: seen.append(item.name))
        client.subscribe(_raises)

        async def stop() -> None:
            command = await qemu.read()
            await qemu.write(event("STOP"), {"return": {}, "id": command["id"]})

        tasks.create_task(stop())
        await client.execute("stop", timeout_s=5)
        assert seen == ["STOP"]
        unsubscribe()
        unsubscribe()
        tasks.create_task(stop())
        await client.execute("stop", timeout_s=5)
    assert seen == ["STOP"]


def _raises(_event: Event) -> None:
    raise ValueError("a listener's bug costs nobody else the monitor")


async def test_a_hung_monitor_times_out_and_its_late_answer_is_dropped() -> None:
    async with connected() as (client, qemu):
        with pytest.raises(MonitorTimeout, match="query-block"):
            await client.execute("query-block", timeout_s=0.01)
        late = await qemu.read()
        async with asyncio.TaskGroup() as tasks:

            async def both() -> None:
                command = await qemu.read()
                await qemu.write(
                    {"return": "late", "id": late["id"]}, {"return": "new", "id": command["id"]}
                )

            tasks.create_task(both())
            assert await client.execute("query-status", timeout_s=5) == "new"


async def test_closed_wakes_when_qemu_goes() -> None:
    async with connected() as (client, qemu), asyncio.TaskGroup() as tasks:

        async def ask() -> None:
            with pytest.raises(MonitorGone):
                await client.execute("query-status", timeout_s=30)

        waiting = tasks.create_task(ask())
        closing = tasks.create_task(client.wait_closed())
        await qemu.read()
        qemu.sock.close()
        assert await closing == "qemu unexpectedly closed the monitor"
        await waiting
        with pytest.raises(MonitorGone):
            await client.execute("query-status", timeout_s=5)
        assert not client.is_open


async def test_a_breach_of_the_protocol_closes() -> None:
    async with connected() as (client, qemu):
        await qemu.write(["what"])
        assert "not a message" in await client.wait_closed()


async def test_descriptors_travel_with_their_command() -> None:
    read_end, write_end = os.pipe()
    async with connected() as (client, qemu), asyncio.TaskGroup() as tasks:
        tasks.create_task(qemu.answer())
        await client.execute("getfd", {"fdname": "x"}, timeout_s=5, fds=[write_end])
        os.close(write_end)
        (received,) = qemu.fds
        os.write(received, b"hello")
        os.close(received)
    assert os.read(read_end, 10) == b"hello"
    os.close(read_end)


async def test_more_than_the_socket_takes_follows_by_itself() -> None:
    big = "x" * 3_000_000
    async with connected() as (client, qemu), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(client.execute("x", {"data": big}, timeout_s=10))
        command = await qemu.answer()
        await task
    assert command["arguments"]["data"] == big


async def test_a_cancelled_command_leaves_the_monitor_usable() -> None:
    async with connected() as (client, qemu), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(client.execute("slow", timeout_s=10))
        slow = await qemu.read()
        task.cancel()
        await asyncio.wait([task])
        await qemu.write({"return": {}, "id": slow["id"]})
        tasks.create_task(qemu.answer("ok"))
        assert await client.execute("fast", timeout_s=5) == "ok"


async def test_connect_fails_where_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(MonitorGone, match="monitor socket"):
        await QmpClient.connect(tmp_path / "nothing", timeout_s=1)


async def test_connect_gives_up_on_a_silent_qemu() -> None:
    ours, theirs = socket.socketpair()
    with pytest.raises(MonitorTimeout):
        await QmpClient.connect(ours, timeout_s=0.01)
    theirs.close()


async def test_sockets_work_in_deep_directories(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    path = deep / "monitor.sock"
    path.touch()
    with listen(path) as listener:
        assert path.stat().st_mode & 0o777 == 0o600
        async with asyncio.TaskGroup() as tasks:
            connecting = tasks.create_task(QmpClient.connect(path, timeout_s=5))
            sock, _ = await asyncio.to_thread(listener.accept)
            qemu = FakeQemu(sock)
            sock.send(GREETING)
            await qemu.answer()
            client = await connecting
        client.close()
        sock.close()
