"""A real QEMU: its monitor, its death, its last words."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sterna.qemu.process import QemuProcess, last_words
from sterna.qemu.qmp_client import QmpClient, listen
from sterna.qemu.qmp_errors import MonitorGone, MonitorTimeout, QmpError
from support import argv_start

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(argv_start.QEMU is None, reason="no qemu-system-x86_64 here"),
]


@asynccontextmanager
async def running(directory: Path, *options: str) -> AsyncIterator[tuple[QemuProcess, QmpClient]]:
    """A QEMU without any device, CPUs stopped."""
    assert argv_start.QEMU is not None
    with listen(directory / "monitor.sock") as listener:
        argv = [
            *(argv_start.QEMU, "-S", "-no-user-config", "-nodefaults", "-display", "none"),
            *("-accel", "tcg", "-m", "16", *options),
            *("-chardev", f"socket,id=m,fd={listener.fileno()},server=on,wait=off"),
            *("-mon", "chardev=m,mode=control"),
        ]
        process = QemuProcess.spawn(argv, log_path=directory / "log", pass_fds=[listener.fileno()])
    try:
        client = await QmpClient.connect(directory / "monitor.sock", timeout_s=20)
        try:
            yield process, client
        finally:
            client.close()
    finally:
        process.kill()
        async with asyncio.timeout(20):
            await process.wait_gone()


async def test_it_answers_and_refuses(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, qemu):
        assert qemu.version >= (6, 0, 0)
        status = await qemu.execute("query-status", timeout_s=10)
        assert status["status"] == "prelaunch"
        with pytest.raises(QmpError) as caught:
            await qemu.execute("no-such-command", timeout_s=10)
        assert caught.value.cls == "CommandNotFound"


async def test_events_come(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, qemu):
        seen: list[str] = []
        qemu.subscribe(lambda event: seen.append(event.name))
        await qemu.execute("cont", timeout_s=10)
        await qemu.execute("stop", timeout_s=10)
        assert seen == ["RESUME", "STOP"]


async def test_it_takes_descriptors(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    async with running(tmp_path) as (_, qemu):
        await qemu.execute("getfd", {"fdname": "x"}, timeout_s=10, fds=[theirs.fileno()])
        theirs.close()
        await qemu.execute("closefd", {"fdname": "x"}, timeout_s=10)
        assert ours.recv(1) == b""
    ours.close()


async def test_out_of_band_works_while_commands_wait(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, qemu), asyncio.TaskGroup() as tasks:
        slow = [
            tasks.create_task(qemu.execute("query-qmp-schema", timeout_s=20)) for _ in range(20)
        ]
        await qemu.execute("yank", {"instances": []}, timeout_s=10, oob=True)
        assert not all(task.done() for task in slow)


async def test_death_is_noticed_at_once_everywhere(tmp_path: Path) -> None:
    async with running(tmp_path) as (process, qemu):
        started = time.monotonic()
        process.kill()
        await qemu.wait_closed()
        end = await process.wait_gone()
        assert str(end) == "was killed by SIGKILL"
        assert time.monotonic() - started < 2
        with pytest.raises(MonitorGone):
            await qemu.execute("query-status", timeout_s=10)


async def test_a_hung_qemu_times_out_and_can_be_killed(tmp_path: Path) -> None:
    async with running(tmp_path) as (process, qemu):
        process.kill(signal.SIGSTOP)
        with pytest.raises(MonitorTimeout):
            await qemu.execute("query-status", timeout_s=0.2)
        assert qemu.is_open
        process.kill()
        await process.wait_gone()
        await qemu.wait_closed()


async def test_a_start_that_fails_leaves_qemus_words(tmp_path: Path) -> None:
    with pytest.raises(MonitorGone):
        async with running(tmp_path, "-device", "no-such-device"):
            pass
    assert "'no-such-device' is not a valid device model name" in last_words(tmp_path / "log")


async def test_a_later_daemon_finds_it_by_its_identity_and_its_socket(tmp_path: Path) -> None:
    async with running(tmp_path) as (process, qemu):
        qemu.close()
        again = QemuProcess.attach(process.ident)
        client = await QmpClient.connect(tmp_path / "monitor.sock", timeout_s=10)
        assert (await client.execute("query-status", timeout_s=10))["running"] is False
        client.close()
        again.kill()
        await again.wait_gone()


async def test_it_is_in_a_session_of_its_own(tmp_path: Path) -> None:
    async with running(tmp_path) as (process, _):
        assert os.getsid(process.pid) == process.pid
