"""`sterna migrate` and its options: how a guest is sent, and one that does not run."""

from __future__ import annotations

import json

import pytest

from qemu.moving import GUEST, QUICK, check_moved, check_stayed
from support.clients import sterna
from support.fixtures import MakeGuest, TwoDaemons
from support.serial import SerialTap

pytestmark = [pytest.mark.clients, pytest.mark.qemu, pytest.mark.timeout(120)]


@pytest.fixture
def running(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> TwoDaemons:
    two_daemons.source.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks(5)
    return two_daemons


def words(hosts: TwoDaemons, *options: str) -> tuple[str, ...]:
    return ("migrate", GUEST, str(hosts.destination.root), *options)


@pytest.mark.parametrize(
    "options",
    [
        ("--parallel",),
        ("--parallel", "3", "--compress", "zstd", "--compress-level", "2"),
        ("--parallel", "--compress", "zlib", "--compress-level", "1"),
        ("--compress", "xbzrle"),
        ("--abort-on-error", "--listen-address", "127.0.0.1", "--migrate-uri", "tcp://127.0.0.1"),
    ],
)
def test_ways(running: TwoDaemons, serial_tap: SerialTap, options: tuple[str, ...]) -> None:
    sterna(running.source.root, *words(running, *options)).check()
    check_moved(running, serial_tap)


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--parallel=-1",), 1, "--parallel must be followed by a number of connections"),
        (("--compress-level", "2"), 1, "--compress-level needs --compress"),
        (("--compress", "best"), 2, "invalid choice"),
        (("--compress", "zlib"), 5, "only available for parallel migration"),
        (("--zero-copy",), 5, "zero-copy is only available for parallel migration"),
        (("--offline",), 5, "domain is running"),
        (("--persistent-xml", "/nonexistent"), 1, "/nonexistent"),
    ],
)
def test_refusals(
    running: TwoDaemons, serial_tap: SerialTap, options: tuple[str, ...], code: int, told: str
) -> None:
    ran = sterna(running.source.root, *words(running, *options))
    assert ran.code == code
    assert told in ran.err
    check_stayed(running, serial_tap)


def test_a_guest_that_does_not_run(two_daemons: TwoDaemons, tick_guest_xml: MakeGuest) -> None:
    """It moves with its definition, whether one said --offline or not."""
    source, destination = two_daemons.source, two_daemons.destination
    source.define(tick_guest_xml(GUEST, QUICK))
    said = sterna(source.root, *words(two_daemons, "--undefine-source")).check().out
    assert said == (
        f"{GUEST} does not run: its definition moved to {destination.root}, where it is kept.\n"
    )
    assert (source.guests("--all"), destination.guests("--all")) == (set(), {GUEST})
    assert "migrated to beta" in sterna(source.root, "history").check().out
    assert "migrated from alpha" in sterna(destination.root, "history").check().out
    back = TwoDaemons(destination, source)
    out = sterna(destination.root, *words(back, "--offline", "--json")).check().out
    assert json.loads(out)["offline"] is True
    assert source.guests("--all") == {GUEST}
