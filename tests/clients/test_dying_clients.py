"""Clients that are gone in the middle of a call, or never read: others don't notice."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

from support.host import Host

REMOTE = 0x20008086
LIST_ALL_DOMAINS, AUTH_LIST, OPEN, LOOKUP_BY_NAME = 273, 66, 1, 23
LAST_PROCEDURE = 453


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack(">I", len(raw)) + raw + bytes(-len(raw) % 4)


def call(procedure: int, serial: int, body: bytes = b"") -> bytes:
    return struct.pack(">IIIiiIi", 28 + len(body), REMOTE, 1, procedure, 0, serial, 0) + body


def opened(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(path))
    for packet in (
        call(AUTH_LIST, 0),
        call(OPEN, 1, struct.pack(">I", 1) + text("qemu:///system") + struct.pack(">I", 0)),
    ):
        client.sendall(packet)
        assert client.recv(4096)
    return client


def test_a_client_dies_in_every_call(defined: Host) -> None:
    with opened(defined.socket) as client:
        client.sendall(call(LOOKUP_BY_NAME, 2, text("web1")))
        guest = client.recv(4096)[28:]
    for procedure in range(1, LAST_PROCEDURE + 1):
        with opened(defined.socket) as client:
            client.sendall(call(procedure, 2, guest + bytes(64)))
    assert defined.said("hostname")
    # What its calls asked for may have been done: it started, or was undefined. It is not half so.
    for name in defined.guests("--all"):
        assert defined.state(name)


def test_a_client_that_never_reads_is_not_served_further(host: Host) -> None:
    packet = call(LIST_ALL_DOMAINS, 2, struct.pack(">iI", 1, 3))
    with opened(host.socket) as client:
        client.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 << 20:
                sent += client.send(packet * 1000)
        assert sent < 64 << 20
        assert host.said("hostname")
