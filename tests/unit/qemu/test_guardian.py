"""The guardian, with small programs in QEMU's place and daemons that die before its eyes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from sterna.qemu import guardian_program
from sterna.qemu.guardian import Guardian
from sterna.qemu.process import QemuProcess
from sterna.store.db import SqliteStore
from support.processes import resident_kib

NOBODY = uuid.UUID(int=1)


def spawn(*pass_fds: int) -> QemuProcess:
    return QemuProcess.spawn(["/bin/sleep", "1000"], log_path=None, pass_fds=pass_fds)


@pytest.fixture
def qemu() -> Iterator[Callable[..., QemuProcess]]:
    """Makes processes that are gone after the test."""
    made: list[QemuProcess] = []

    def make(*pass_fds: int) -> QemuProcess:
        made.append(spawn(*pass_fds))
        return made[-1]

    yield make
    for process in made:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)


@contextlib.contextmanager
def monitor(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener


@contextlib.asynccontextmanager
async def guardian(store: Path) -> AsyncIterator[Guardian]:
    made = Guardian(store)
    made.start()
    try:
        yield made
    finally:
        await made.close()


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another process's doing: no event of ours
            await asyncio.sleep(0.001)


async def killed(process: QemuProcess) -> bool:
    async with asyncio.timeout(10):
        return (await process.wait_gone()).status == -signal.SIGKILL


async def decide(path: Path, **verdicts: str) -> None:
    store = await SqliteStore.open(path)
    for migration, verdict in verdicts.items():
        await store.decide(migration, verdict, NOBODY)  # type: ignore[arg-type] # a Verdict
    await store.close()


async def test_the_undecided_die_with_the_daemon_and_the_others_live(
    tmp_path: Path, qemu: Callable[..., QemuProcess]
) -> None:
    """The store alone says who is decided; an order to disarm only spares it the look."""
    path = tmp_path / "it's 100% #1?.db"
    await decide(path, committed="committed", aborted="aborted")
    names = ("undecided", "aborted", "committed", "disarmed")
    wards = {name: qemu() for name in names}
    async with guardian(path) as it:
        with monitor(tmp_path / "m") as listener:
            for name, process in wards.items():
                it.expect(name, listener.fileno())
                it.arm(name, process)
        it.disarm("disarmed")
        it.disarm("disarmed")
    assert await killed(wards["undecided"])
    assert await killed(wards["aborted"])
    assert wards["committed"].alive
    assert wards["disarmed"].alive
    os.kill(wards["committed"].pid, 0)
    os.kill(wards["disarmed"].pid, 0)


async def test_one_that_was_only_expected_is_found_by_its_monitor(
    tmp_path: Path, qemu: Callable[..., QemuProcess]
) -> None:
    """The daemon dies between the spawn and the word of it."""
    await decide(tmp_path / "db")
    with monitor(tmp_path / "m") as listener:
        os.set_inheritable(listener.fileno(), True)
        inode = os.fstat(listener.fileno()).st_ino
        born, other = qemu(listener.fileno()), qemu()
    assert guardian_program.holders(inode) == [born.pid]
    guardian_program.end({"m": ("socket", inode)}, str(tmp_path / "db"))
    assert await killed(born)
    assert other.alive
    assert guardian_program.holders(inode) == []


async def test_who_cannot_read_the_store_kills_nobody(
    tmp_path: Path,
    qemu: Callable[..., QemuProcess],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another daemon has it, or there is none: a paused QEMU does less harm than a lost guest."""
    process = qemu()
    guardian_program.end({"m": ("pidfd", process.pidfd)}, str(tmp_path / "none"))
    assert "unable to open" in capfd.readouterr().err
    monkeypatch.setattr(guardian_program, "STORE_WAIT_S", 0.01)
    store = await SqliteStore.open(tmp_path / "db")
    guardian_program.end({"m": ("pidfd", process.pidfd)}, str(tmp_path / "db"))
    await store.close()
    assert "locked" in capfd.readouterr().err
    assert process.alive
    os.kill(process.pid, 0)


DIES_AFTER_COMMIT = """
import asyncio, os, signal, sys, uuid
from pathlib import Path
from sterna.store.db import SqliteStore
async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    await store.decide("m", "committed", uuid.UUID(int=1))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_a_decision_is_read_from_what_a_killed_daemon_left(tmp_path: Path) -> None:
    """Its last word stands in the write-ahead log, under its locks and without an index."""
    path = tmp_path / "db"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", DIES_AFTER_COMMIT, str(path)])
    assert path.with_name("db-wal").exists()
    assert guardian_program.committed(str(path), iter(["m", "n"])) == {"m"}
    # It changes nothing: what is in the log stays there for the next daemon.
    assert path.with_name("db-wal").exists()
    store = await SqliteStore.open(path)
    decision = await store.decision("m")
    await store.close()
    assert decision is not None
    assert decision.verdict == "committed"


async def test_a_guardian_that_dies_is_replaced_and_told_everything(
    tmp_path: Path, qemu: Callable[..., QemuProcess], caplog: pytest.LogCaptureFixture
) -> None:
    await decide(tmp_path / "db")
    process, released = qemu(), qemu()
    async with guardian(tmp_path / "db") as it:
        first = it.pid
        assert first is not None
        with monitor(tmp_path / "m") as listener:
            for name, ward in (("m", process), ("released", released)):
                it.expect(name, listener.fileno())
                it.arm(name, ward)
        it.disarm("released")
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: it.pid not in (None, first))
        assert process.alive
        assert "guardian.died how='was killed by SIGKILL' wards=1" in caplog.text
    assert await killed(process)
    assert released.alive


async def test_a_burst_of_orders_arrives_whole(
    tmp_path: Path, qemu: Callable[..., QemuProcess], caplog: pytest.LogCaptureFixture
) -> None:
    """More than its socket holds; it may still be starting."""
    await decide(tmp_path / "db")
    process, released = qemu(), qemu()
    async with guardian(tmp_path / "db") as it:
        with monitor(tmp_path / "m") as listener:
            for number in range(1000):
                it.expect(str(number), listener.fileno())
                it.arm(str(number), released)
            it.expect("m", listener.fileno())
            it.arm("m", process)
            for number in range(1000):
                it.disarm(str(number))
        await eventually(lambda: not it._untold)
    assert await killed(process)
    assert released.alive
    os.kill(released.pid, 0)
    assert "guardian.deaf" not in caplog.text


async def test_one_that_does_not_read_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sterna.qemu.guardian.DEAF_S", 0.05)
    async with guardian(tmp_path / "db") as it:
        first = it.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        with monitor(tmp_path / "m") as listener:
            for number in range(1000):
                it.expect(str(number), listener.fileno())
        for number in range(1000):
            it.disarm(str(number))
        await eventually(lambda: it.pid not in (None, first))


async def test_signals_meant_for_the_daemon_do_not_end_it(tmp_path: Path) -> None:
    async with guardian(tmp_path / "db") as it:
        assert it.pid is not None
        pid = it.pid
        await eventually(lambda: ignores_polite_signals(pid))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        assert os.getsid(pid) == pid
        # Measured: 10 MB, of which 4 MB are its own.
        assert resident_kib(pid) < 16_000
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def ignores_polite_signals(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")]
    polite = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return all(int(mask, 16) >> (number - 1) & 1 for number in polite)


# -- who is kept ---------------------------------------------------------------------------------

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'


def answer(listener: socket.socket, *lines: bytes) -> list[str]:
    """A monitor's part: greets, and sends these lines, one for each command it reads."""
    listener.settimeout(10)
    connection, _ = listener.accept()
    commands = []
    with connection, connection.makefile("rb") as heard:
        connection.sendall(GREETING)
        for line in lines:
            commands.append(json.JSONDecoder().raw_decode(heard.read1(4096).decode())[0]["execute"])
            connection.sendall(line)
    return commands


async def test_one_that_is_sent_away_is_kept(tmp_path: Path) -> None:
    """Its migration is cancelled when the daemon dies; one that has gone is left alone."""
    await decide(tmp_path / "db")
    with monitor(tmp_path / "going") as going, monitor(tmp_path / "gone") as gone:
        async with guardian(tmp_path / "db") as it:
            it.keep("going", tmp_path / "going")
            it.keep("gone", tmp_path / "gone")
            it.disarm("gone")
            done = asyncio.to_thread(
                answer,
                going,
                b'{"return": {}}\r\n',
                b'{"event": "STOP", "data": {}}\r\n{"return": {}}\r\n',
            )
            asked = asyncio.ensure_future(done)
            await asyncio.sleep(0)
        assert await asked == ["qmp_capabilities", "migrate_cancel"]
        gone.setblocking(False)
        with pytest.raises(BlockingIOError):
            gone.accept()


async def test_the_undecided_do_not_wait_for_a_monitor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L3: at once, whatever else there is to do."""
    await decide(tmp_path / "db")
    done: list[str] = []
    monkeypatch.setattr(guardian_program, "kill", lambda _ward: done.append("killed"))
    monkeypatch.setattr(guardian_program, "keep", lambda _name, _path: done.append("kept"))
    wards = {"going": ("monitor", "/nowhere"), "orphan": ("socket", 1)}
    guardian_program.end(wards, str(tmp_path / "db"))
    assert done == ["killed", "kept"]


def test_a_monitor_that_says_nothing_keeps_nobody_from_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guardian_program, "MONITOR_S", 0.01)
    with monitor(tmp_path / "hangs"):
        wards = {
            "hangs": ("monitor", str(tmp_path / "hangs")),
            "absent": ("monitor", str(tmp_path / "absent")),
        }
        guardian_program.end(wards, str(tmp_path / "no store is needed"))
    said = capfd.readouterr().err
    assert "guardian.not_kept mig=hangs" in said
    assert "guardian.not_kept mig=absent" in said
