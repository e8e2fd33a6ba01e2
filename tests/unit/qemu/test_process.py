"""Processes by pidfd, with small programs in QEMU's place."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from pathlib import Path

import pytest

from sterna.qemu.process import (
    Exit,
    ProcessId,
    QemuProcess,
    User,
    last_words,
    log_size,
    read_ident,
)


def shell(script: str, log: Path, **options: object) -> QemuProcess:
    return QemuProcess.spawn(["/bin/sh", "-c", script], log_path=log, **options)  # type: ignore[arg-type]  # options are spawn's own


def reap(pid: int) -> None:
    """Collect a child whose handle was told to forget it."""
    os.waitpid(pid, 0)


def oom_score(pid: int) -> str:
    return Path(f"/proc/{pid}/oom_score_adj").read_text()


async def end(process: QemuProcess) -> Exit:
    async with asyncio.timeout(10):
        return await process.wait_gone()


async def test_its_end_is_told_with_its_status(tmp_path: Path) -> None:
    process = shell("exit 3", tmp_path / "log")
    assert process.alive
    assert await end(process) == Exit(3)
    assert not process.alive
    assert await end(process) == Exit(3)
    assert str(process.exit) == "exited with status 3"
    process.kill()


async def test_a_killed_one_says_by_which_signal(tmp_path: Path) -> None:
    process = shell("sleep 100", tmp_path / "log")
    process.kill(signal.SIGTERM)
    assert str(await end(process)) == "was killed by SIGTERM"


async def test_it_is_reaped(tmp_path: Path) -> None:
    process = shell("true", tmp_path / "log")
    await end(process)
    with pytest.raises(ProcessLookupError):
        read_ident(process.pid)


async def test_callbacks_hear_of_the_end_once_and_can_be_taken_back(tmp_path: Path) -> None:
    process = shell("read x", tmp_path / "log")
    heard: list[str] = []
    process.when_gone(lambda _end: heard.append("first"))
    process.when_gone(lambda _end: heard.append("forgotten"))()
    await end(process)
    process.when_gone(lambda _end: heard.append("late"))
    assert heard == ["first", "late"]


async def test_it_has_a_session_and_an_environment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "1")
    log = tmp_path / "log"
    process = shell("env; cat /proc/$$/stat; pwd", log, environment={"TZ": "Europe/Paris"})
    await end(process)
    words = last_words(log)
    assert "TZ=Europe/Paris" in words
    assert "LC_ALL=C" in words
    assert "SECRET" not in words
    # proc(5): pid (comm) state ppid pgrp session
    assert words.splitlines()[-2].split(") ")[-1].split()[3] == str(process.pid)
    assert words.splitlines()[-1] == "/"


async def test_only_named_descriptors_are_inherited(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    other = os.open("/", os.O_RDONLY)
    log = tmp_path / "log"
    process = shell(
        f"echo hi > /proc/self/fd/{write_end}; ls /proc/$$/fd", log, pass_fds=[write_end]
    )
    await end(process)
    assert os.read(read_end, 10) == b"hi\n"
    inherited = set(last_words(log).split())
    assert str(write_end) in inherited
    assert str(other) not in inherited
    for fd in (read_end, write_end, other):
        os.close(fd)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
async def test_it_runs_as_another_user(tmp_path: Path) -> None:
    log = tmp_path / "log"
    await end(shell("id -u; id -g; id -G", log, user=User(65534, 65533, (65532,))))
    assert last_words(log).split() == ["65534", "65533", "65533", "65532"]


async def test_it_is_found_again_by_its_identity_and_by_no_other(tmp_path: Path) -> None:
    process = shell("sleep 100", tmp_path / "log")
    again = QemuProcess.attach(process.ident)
    other = dataclasses.replace(process.ident, start_time=process.ident.start_time + 1)
    with pytest.raises(ProcessLookupError):
        QemuProcess.attach(other)
    with pytest.raises(ProcessLookupError):
        QemuProcess.attach(dataclasses.replace(process.ident, boot="another"))
    again.kill()
    assert await end(process) == Exit(-signal.SIGKILL)
    assert await end(again) == Exit(None)
    assert str(again.exit) == "ended"
    with pytest.raises(ProcessLookupError):
        QemuProcess.attach(process.ident)


async def test_letting_go_leaves_it_running(tmp_path: Path) -> None:
    process = shell("sleep 100", tmp_path / "log")
    process.close()
    process.close()
    process.kill()
    with pytest.raises(RuntimeError):
        await process.wait_gone()
    again = QemuProcess.attach(process.ident)
    again.kill()
    await end(again)
    reap(process.pid)


async def test_an_end_somebody_else_collected_is_an_end(tmp_path: Path) -> None:
    process = shell("exit 3", tmp_path / "log")
    reap(process.pid)
    assert await end(process) == Exit(None)


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        QemuProcess.spawn(["/nonexistent"], log_path=tmp_path / "log")


async def test_out_of_memory_score(tmp_path: Path) -> None:
    process = shell("sleep 100", tmp_path / "log", oom_score_adj=500)
    assert oom_score(process.pid) == "500\n"
    process.kill()
    await end(process)


def test_names_with_parentheses_are_read() -> None:
    assert read_ident(os.getpid()).pid == os.getpid()
    assert isinstance(read_ident(os.getpid()), ProcessId)


def test_last_words_begin_where_told_and_are_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_words(log) == ""
    assert log_size(log) == 0
    log.write_text("old\n")
    since = log_size(log)
    assert last_words(log, since) == ""
    with log.open("a") as stream:
        stream.write("new\n" + "x" * 5000 + "\nend\n")
    assert last_words(log, since) == "end"
