"""Migration URIs: what is asked for and what is answered (libvirt 9.0, observed)."""

from __future__ import annotations

import pytest

from sterna.errors import ArgumentUnsupported, InternalError, InvalidArg, OperationInvalid
from sterna.migration.uri import Endpoint, Incoming, bracketed, parse, plan_incoming


def plan(uri_in: str | None, **more: str | None) -> Incoming:
    said = {"listen_address": None, "own_host": "hostb", "any_address": "::", **more}
    return plan_incoming(uri_in, take_port=lambda: 49152, **said)  # type: ignore[arg-type]  # texts by name


@pytest.mark.parametrize(
    ("uri_in", "listen", "uri_out", "port"),
    [
        (None, "tcp:[::]:49152", "tcp:hostb:49152", 49152),
        ("tcp://hostb", "tcp:[::]:49152", "tcp://hostb:49152", 49152),
        ("tcp:hostb", "tcp:[::]:49152", "tcp:hostb:49152", 49152),
        ("tcp://[fd00::1]", "tcp:[::]:49152", "tcp://[fd00::1]:49152", 49152),
        ("tcp://hostb:7000", "tcp:[::]:7000", None, None),
        ("unix:///run/m.sock", "unix:/run/m.sock", None, None),
    ],
)
def test_what_is_answered(uri_in: str | None, listen: str, uri_out: str | None, port: int) -> None:
    assert plan(uri_in) == Incoming(listen, uri_out, port)


def test_the_configured_address_is_told_and_listened_on() -> None:
    found = plan(None, listen_address="fd00::2", own_host="fd00::2")
    assert found == Incoming("tcp:[fd00::2]:49152", "tcp:[fd00::2]:49152", 49152)


@pytest.mark.parametrize(
    ("uri", "error", "text"),
    [
        ("hostb", InvalidArg, "missing scheme"),
        ("rdma://hostb", OperationInvalid, "cannot start RDMA migration with no memory hard limit"),
        ("foo://hostb", ArgumentUnsupported, "unsupported scheme foo in migration URI foo://hostb"),
        ("tcp://", InvalidArg, "missing host in migration URI: tcp://"),
        ("tcp:", InvalidArg, "missing host"),
        ("tcp://hostb:99999", InvalidArg, "malformed"),
        ("tcp://[::1", InvalidArg, "malformed"),
        ("unix://", InvalidArg, "missing path"),
    ],
)
def test_what_is_refused(uri: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        parse(uri)


def test_a_host_that_nobody_else_can_reach_is_not_told() -> None:
    with pytest.raises(InternalError, match="resolved to localhost"):
        plan(None, own_host="localhost.localdomain")


@pytest.mark.parametrize("text", ["tcp://h:1", "tcp:h:1", "tcp://[::1]:5", "unix:///a/b"])
def test_an_endpoint_says_what_was_read(text: str) -> None:
    assert parse(text).text() == text


def test_brackets_are_for_ipv6_alone() -> None:
    assert [bracketed(h) for h in ("h", "::1", "[::1]")] == ["h", "[::1]", "[::1]"]
    assert Endpoint("tcp", "h").text() == "tcp://h"
