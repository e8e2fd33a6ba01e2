"""Sockets: modes, long paths, stale files, loopback."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from sterna.server.listeners import (
    Listener,
    ListenError,
    bind_tcp,
    bind_unix,
    is_loopback,
    short_path,
)


async def test_accepts_and_removes_its_file(tmp_path: Path) -> None:
    path = tmp_path / "s"
    got: asyncio.Queue[tuple[socket.socket, bool]] = asyncio.Queue()
    listener = Listener(
        bind_unix(path, mode=0o640),
        lambda sock, read_only: got.put_nowait((sock, read_only)),
        read_only=True,
        name="test",
    )
    listener.remove_at_close(path)
    assert path.stat().st_mode & 0o777 == 0o640
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        served, read_only = await asyncio.wait_for(got.get(), 5)
        assert read_only
        assert not served.getblocking()
        served.close()
    listener.close()
    assert not path.exists()


async def test_another_daemons_socket_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = Listener(bind_unix(path, mode=0o600), lambda *_: None, read_only=False, name="t")
    listener.remove_at_close(path)
    path.unlink()
    path.write_text("somebody else's")
    listener.close()
    assert path.exists()


def test_paths_longer_than_an_address(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / ("e" * 100)
    path.mkdir(parents=True)
    bind_unix(path / "s", mode=0o600).close()
    with short_path(path / "s") as short, socket.socket(socket.AF_UNIX) as client:
        assert len(short) < 108
        assert client.connect_ex(short) != 0
    assert (path / "s").is_socket()


def test_a_dead_daemons_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bind_unix(path, mode=0o600).close()
    with bind_unix(path, mode=0o600), pytest.raises(ListenError, match="another process listens"):
        bind_unix(path, mode=0o600)


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ListenError, match="not a socket"):
        bind_unix(path, mode=0o600)
    assert path.read_text() == "precious"


def test_an_unknown_group_is_named(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="no group 'nosuch-group'"):
        bind_unix(tmp_path / "s", mode=0o600, group="nosuch-group")


def test_tcp_port_taken() -> None:
    (first,) = bind_tcp("127.0.0.1", 0)
    with first, pytest.raises(ListenError, match="cannot listen on TCP"):
        bind_tcp("127.0.0.1", first.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback(address: str, local: bool) -> None:
    assert is_loopback(address) is local


async def test_accept_failure_pauses_instead_of_spinning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = bind_unix(tmp_path / "s", mode=0o600)

    class NoDescriptors(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            raise OSError(24, "Too many open files")

    broken = NoDescriptors(fileno=bound.detach())
    listener = Listener(broken, lambda *_: None, read_only=False, name="t")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(tmp_path / "s"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert listener._resume is not None
    listener.close()
