from __future__ import annotations

import socket

import pytest

from sterna.errors import SystemCallError
from sterna.host.ports import claim_port

LOOPBACK = "127.0.0.1"


def test_a_port_in_use_is_passed_over() -> None:
    with socket.create_server((LOOPBACK, 0)) as busy:
        port = busy.getsockname()[1]
        assert claim_port(LOOPBACK, port, port) is None
    # The claim on it was given back.
    claim = claim_port(LOOPBACK, port, port)
    assert claim is not None
    assert claim.port == port
    claim.release()


def test_a_claimed_port_is_passed_over_by_everybody() -> None:
    with socket.create_server((LOOPBACK, 0)) as found:
        port = found.getsockname()[1]
    claim = claim_port(LOOPBACK, port, port)
    assert claim is not None
    assert claim_port(LOOPBACK, port, port) is None
    claim.release()
    claim.release()
    again = claim_port(LOOPBACK, port, port)
    assert again is not None
    again.release()


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(SystemCallError, match=r"192\.0\.2\.1 port 5900"):
        claim_port("192.0.2.1", 5900, 5901)


def test_nothing_is_free_in_an_empty_range() -> None:
    assert claim_port(LOOPBACK, 5901, 5900) is None
