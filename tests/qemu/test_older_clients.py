"""Controllers that know less: the plain calls without typed parameters, no change protection."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator

import pytest

from qemu.moving import GUEST, QUICK, check_moved, check_stayed
from support.clients import run, virsh_argv
from support.fixtures import MakeGuest, TwoHosts
from support.proxy import HEADER, Kind, Packet, Proxy
from support.serial import SerialTap

pytestmark = pytest.mark.qemu

SUPPORTS_FEATURE = 60
CHANGE_PROTECTION, TYPED_PARAMETERS = 7, 13
PLAIN_V3 = {213, 214, 216, 217, 218}
WITH_PARAMETERS = {302, 303, 305, 306, 307}


class Denies:
    """A rule for a proxy: the daemon behind it supports all features but these."""

    def __init__(self, features: set[int]) -> None:
        self._features = features
        self._asked: set[tuple[int, int]] = set()

    def __call__(self, packet: Packet) -> bytes:
        if packet.procedure != SUPPORTS_FEATURE:
            return packet.data
        call = (packet.connection, packet.serial)
        (value,) = struct.unpack(">i", packet.data[HEADER.size :])
        if packet.kind is Kind.CALL and value in self._features:
            self._asked.add(call)
        elif packet.kind is Kind.REPLY and call in self._asked:
            return packet.data[: HEADER.size] + bytes(4)
        return packet.data


@contextlib.contextmanager
def seen_through(hosts: TwoHosts, features: set[int]) -> Iterator[tuple[Proxy, Proxy]]:
    with (
        Proxy(
            hosts.source.root.with_name("a.sock"), hosts.source.socket, Denies(features)
        ) as source,
        Proxy(
            hosts.destination.root.with_name("b.sock"),
            hosts.destination.socket,
            Denies(features),
        ) as destination,
    ):
        yield source, destination


@pytest.fixture
def running(two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> TwoHosts:
    two_hosts.source.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks(5)
    return two_hosts


@pytest.mark.parametrize(
    "features",
    [{TYPED_PARAMETERS}, {TYPED_PARAMETERS, CHANGE_PROTECTION}, {CHANGE_PROTECTION}],
    ids=["plain v3", "plain v3, unprotected", "parameters, unprotected"],
)
def test_it_moves(running: TwoHosts, serial_tap: SerialTap, features: set[int]) -> None:
    with seen_through(running, features) as (source, destination):
        words = ["migrate", "--live", GUEST, destination.uri, "--bandwidth", "1000"]
        run(virsh_argv(source.uri, *words), timeout_s=60).check()
        called = {
            packet.procedure
            for proxy in (source, destination)
            for packet in proxy.packets
            if packet.kind is Kind.CALL
        }
    wanted = PLAIN_V3 if TYPED_PARAMETERS in features else WITH_PARAMETERS
    assert called & (PLAIN_V3 | WITH_PARAMETERS) == wanted
    check_moved(running, serial_tap)


def test_options_of_plain_v3(running: TwoHosts, serial_tap: SerialTap) -> None:
    with seen_through(running, {TYPED_PARAMETERS}) as (source, destination):
        words = ["migrate", "--live", GUEST, destination.uri, "--dname", "renamed"]
        run(virsh_argv(source.uri, *words), timeout_s=60).check()
    check_moved(running, serial_tap, name="renamed")


def test_a_failure_of_plain_v3(running: TwoHosts, serial_tap: SerialTap) -> None:
    with seen_through(running, {TYPED_PARAMETERS}) as (source, destination):
        words = ["migrate", "--live", GUEST, destination.uri, "--migrateuri", "foo://x:1"]
        assert "unsupported scheme foo" in run(virsh_argv(source.uri, *words)).err
    check_stayed(running, serial_tap)
