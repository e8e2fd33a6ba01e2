"""The harmful proxy, between a client and a server that echoes packets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.proxy import HEADER, REMOTE_PROGRAM, Cut, Kind, Packet, Proxy, Rule

Connect = Callable[[Rule | None], tuple[Proxy, socket.socket]]


def packet(procedure: int, payload: bytes = b"") -> bytes:
    length = HEADER.size + len(payload)
    return HEADER.pack(length, REMOTE_PROGRAM, 1, procedure, Kind.CALL, 7, 0) + payload


def serve_echo(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)


@pytest.fixture
def connect(short_dir: Path) -> Iterator[Connect]:
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(short_dir / "echo"))
        listener.listen()
        server = threading.Thread(target=serve_echo, args=[listener])
        server.start()
        undo.callback(server.join)
        undo.callback(listener.shutdown, socket.SHUT_RDWR)

        def made(rule: Rule | None) -> tuple[Proxy, socket.socket]:
            proxy = undo.enter_context(Proxy(short_dir / "proxy", short_dir / "echo", rule))
            client = undo.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(10)
            client.connect(str(proxy.path))
            return proxy, client

        yield made


def test_it_forwards_and_records(connect: Connect) -> None:
    proxy, client = connect(None)
    sent = packet(303, b"cookie") + packet(305)
    client.sendall(sent[:10])
    client.sendall(sent[10:])
    assert client.recv(4096, socket.MSG_WAITALL)[:4] == sent[:4]
    found = proxy.wait_packet(lambda passed: passed.is_call(305))
    assert (found.serial, found.status, found.connection) == (7, 0, 0)


def test_a_rule_swallows_and_changes(connect: Connect) -> None:
    def rule(passing: Packet) -> bytes | None:
        return None if passing.is_call(1) else packet(3)

    _, client = connect(rule)
    client.sendall(packet(1) + packet(2))
    assert client.recv(4096) == packet(3)


def test_a_rule_cuts(connect: Connect) -> None:
    def rule(passing: Packet) -> bytes | None:
        raise Cut

    _, client = connect(rule)
    client.sendall(packet(1))
    assert client.recv(4096) == b""


def test_silence_holds_without_closing(connect: Connect) -> None:
    proxy, client = connect(None)
    proxy.silence()
    client.sendall(packet(1))
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.recv(1)
    proxy.resume()
    client.settimeout(10)
    assert client.recv(4096) == packet(1)
