"""The relay itself: what it forwards, and what each way of ending it looks like at the ends."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from support.relay import Relay


@pytest.fixture
def ends() -> Iterator[tuple[Relay, socket.socket, socket.socket]]:
    """A relay and the two ends of a connection through it."""
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(socket.create_server(("127.0.0.1", 0)))
        relay = Relay("127.0.0.1", listener.getsockname())
        undo.callback(relay.close)
        near = undo.enter_context(socket.create_connection(("127.0.0.1", relay.port), 10))
        far, _ = listener.accept()
        undo.enter_context(far).settimeout(10)
        near.sendall(b"!")
        assert far.recv(1) == b"!"
        yield relay, near, far


Ends = tuple[Relay, socket.socket, socket.socket]


def test_it_forwards_both_ways(ends: Ends) -> None:
    _, near, far = ends
    near.sendall(b"there")
    assert far.recv(16) == b"there"
    far.sendall(b"back")
    assert near.recv(16) == b"back"


def test_a_cut_is_an_end_at_both(ends: Ends) -> None:
    relay, near, far = ends
    relay.cut()
    assert near.recv(1) == b""
    assert far.recv(1) == b""


def test_a_reset_is_one(ends: Ends) -> None:
    relay, near, _ = ends
    relay.reset()
    with pytest.raises(ConnectionResetError):
        near.recv(1)


def test_who_writes_to_an_end_that_has_gone_does_not_hang(ends: Ends) -> None:
    _, near, far = ends
    far.close()
    near.settimeout(10)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        near.sendall(bytes(64 << 20))


def test_silence_ends_when_it_is_told_to(ends: Ends) -> None:
    relay, near, far = ends
    relay.silence()
    near.sendall(b"late")
    far.settimeout(0.05)
    with pytest.raises(TimeoutError):
        far.recv(16)
    far.settimeout(10)
    threading.Timer(0.05, relay.resume).start()
    assert far.recv(16) == b"late"
