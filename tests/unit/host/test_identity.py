from __future__ import annotations

import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sterna.host import identity

A_UUID = "3b0f9f5e-2f5e-4f33-9d24-0c6d4c5a2b11"


def test_name_given_wins() -> None:
    assert identity.host_name("blue") == "blue"


@pytest.mark.parametrize(
    ("short", "canonical", "name"),
    [
        ("h1", "h1.example.org", "h1.example.org"),
        ("h1", "localhost", "h1"),
        ("h1", None, "h1"),
        ("h1.example.org", "other", "h1.example.org"),
    ],
)
def test_bare_name_is_completed(
    monkeypatch: pytest.MonkeyPatch, short: str, canonical: str | None, name: str
) -> None:
    def lookup(*_args: Any, **_options: Any) -> list[Any]:
        if canonical is None:
            raise socket.gaierror
        return [(socket.AF_INET, 0, 0, canonical, ("192.0.2.1", 0))]

    monkeypatch.setattr(socket, "gethostname", lambda: short)
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert identity.host_name() == name


def test_uuid_is_the_stored_one_or_new() -> None:
    assert identity.host_uuid(A_UUID) == uuid.UUID(A_UUID)
    assert identity.host_uuid(None, lambda: uuid.UUID(A_UUID)) == uuid.UUID(A_UUID)
    with pytest.raises(ValueError, match="badly formed"):
        identity.host_uuid("nonsense")


@pytest.mark.parametrize(
    ("configured", "resolved", "own", "chosen"),
    [
        ("198.51.100.9", ["192.0.2.1"], ["192.0.2.1"], "198.51.100.9"),
        (None, ["192.0.2.1"], ["192.0.2.1"], "h1"),
        # Debian's /etc/hosts gives every machine's name this address: no use to a peer.
        (None, ["127.0.1.1"], ["127.0.0.1", "192.0.2.1"], "192.0.2.1"),
        (None, ["203.0.113.5"], ["192.0.2.1"], "192.0.2.1"),
        (None, [], ["127.0.0.1", "fe80::1", "2001:db8::1"], "2001:db8::1"),
        (None, [], ["127.0.0.1"], "127.0.0.1"),
    ],
)
def test_migration_address(
    configured: str | None, resolved: list[str], own: list[str], chosen: str
) -> None:
    address = identity.migration_address(
        configured,
        "h1",
        resolve=lambda _name: resolved,
        is_local=lambda address: address in own or address.startswith("127."),
        addresses=lambda: own,
    )
    assert address == chosen


def test_own_addresses(tree: Callable[[dict[str, object]], Path]) -> None:
    line = "20010db8000000000000000000000001 02 40 00 80     eth0"
    found = identity.own_addresses(tree({"proc/net/if_inet6": line}))
    assert "127.0.0.1" in found
    assert "2001:db8::1" in found


def test_only_our_addresses_are_local() -> None:
    assert identity.is_local_address("127.0.0.1")
    assert not identity.is_local_address("192.0.2.77")
    assert not identity.is_local_address("nonsense")
