from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sterna.errors import InternalError
from sterna.migration.transports import PortPool

LOOPBACK = "127.0.0.1"


@pytest.fixture
def first() -> Iterator[int]:
    """The first of three neighbouring ports that nobody has now."""
    for start in range(41000, 49000, 3):
        pool = PortPool(start, start + 2)
        found = []
        try:
            found = [pool.take(LOOPBACK) for _ in range(3)]
        except InternalError:
            continue
        finally:
            for port in found:
                pool.release(port)
        yield start
        return
    pytest.skip("no three neighbouring ports are free")


def test_two_daemons_share_a_range(first: int) -> None:
    one, other = PortPool(first, first + 2), PortPool(first, first + 2)
    taken = [one.take(LOOPBACK), other.take(LOOPBACK), one.take(LOOPBACK)]
    assert taken == [first, first + 1, first + 2]
    with pytest.raises(InternalError, match=f"range 'migration' \\({first}-{first + 2}\\)"):
        other.take(LOOPBACK)
    one.release(first)
    assert other.take(LOOPBACK) == first
    for pool, port in ((one, first + 2), (other, first), (other, first + 1)):
        pool.release(port)
        pool.release(port)


def test_a_port_somebody_listens_on_is_passed_over(first: int) -> None:
    pool = PortPool(first, first + 2)
    with socket.create_server((LOOPBACK, first)):
        assert pool.take(LOOPBACK) == first + 1
    # The claim on the busy one was given back.
    assert pool.take(LOOPBACK) == first
    pool.release(first)
    pool.release(first + 1)
