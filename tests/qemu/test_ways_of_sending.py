"""Parallel, compressed and zero-copy migrations of real QEMUs, asked for by virsh."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from typing import Any

import pytest

from qemu.moving import (
    GUEST,
    LONG,
    QUICK,
    check_moved,
    check_stayed,
    is_copying,
    migrate_words,
    slow_migration,
)
from support.fixtures import MakeGuest, TwoDaemons, TwoHosts
from support.host import Host
from support.processes import wait_for
from support.serial import SerialTap

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

PARALLEL = ("--parallel", "--parallel-connections", "3")


@pytest.fixture
def running(two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> TwoHosts:
    two_hosts.source.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks(5)
    return two_hosts


def migrate(hosts: TwoHosts, *options: str) -> None:
    hosts.source.said(*migrate_words(hosts.destination, *options), timeout_s=90)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(PARALLEL, id="parallel"),
        pytest.param((*PARALLEL, "--compressed", "--comp-methods", "zlib"), id="zlib"),
        pytest.param((*PARALLEL, "--compressed", "--comp-methods", "zstd"), id="zstd"),
        pytest.param(("--compressed",), id="compressed"),
        pytest.param(
            ("--compressed", "--comp-methods", "xbzrle", "--comp-xbzrle-cache", "67108864"),
            id="xbzrle",
        ),
        pytest.param(
            (
                *("--compressed", "--comp-methods", "mt", "--comp-mt-level", "3"),
                *("--comp-mt-threads", "2", "--comp-mt-dthreads", "3"),
            ),
            id="mt",
        ),
    ],
)
def test_a_guest_moves_this_way(
    running: TwoHosts, serial_tap: SerialTap, options: tuple[str, ...]
) -> None:
    """There and back, every page verified, so that what was set does not stay behind."""
    before_ns = time.monotonic_ns()
    migrate(running, *options)
    check_moved(running, serial_tap)
    serial_tap.wait_verified(before_ns)
    back = TwoHosts(running.destination, running.source)
    migrate(back)
    check_moved(back, serial_tap)
    serial_tap.wait_verified(time.monotonic_ns())


def asked_of_qemu(host: Host, command: str) -> Any:
    text = host.said("qemu-monitor-command", GUEST, json.dumps({"execute": command}))
    return json.loads(text)["return"]


def test_qemu_is_told_and_told_back(
    two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    """What was asked for is set while it is on its way, and nothing of it afterwards (I22)."""
    source = two_hosts.source
    source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks(5)
    before = asked_of_qemu(source, "query-migrate-parameters")
    with slow_migration(two_hosts, *PARALLEL, "--compressed", "--comp-methods", "zlib"):
        told = asked_of_qemu(source, "query-migrate-parameters")
        assert (told["multifd-channels"], told["multifd-compression"]) == (3, "zlib")
        switched = asked_of_qemu(source, "query-migrate-capabilities")
        on = {item["capability"] for item in switched if item["state"]}
        assert on == {"multifd", "return-path", "events"}
    check_stayed(two_hosts, serial_tap)
    assert asked_of_qemu(source, "query-migrate-parameters") == before


def test_xbzrle_is_in_the_figures(
    two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    two_hosts.source.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks(5)
    migrate(two_hosts, "--compressed")
    told = two_hosts.destination.said("domjobinfo", GUEST, "--completed")
    assert re.search(r"Compression cache: +64\.000 MiB", told)
    check_moved(two_hosts, serial_tap)


def test_a_destination_that_stops_taking_parallel_data(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    """Its sockets are not ours to watch, but that nothing moves is seen (I12)."""
    two_daemons.source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks(5)
    words = migrate_words(two_daemons.destination, *PARALLEL, "--bandwidth", "4")
    with two_daemons.source.start_virsh(*words) as controller:
        wait_for(lambda: is_copying(two_daemons.source), "memory on its way")
        [qemu] = two_daemons.destination.qemus()
        os.kill(qemu.pid, signal.SIGSTOP)
        ended = controller.wait()
    assert ended.code
    assert "stalled" in ended.err
    check_stayed(two_daemons, serial_tap)


def test_zero_copy(running: TwoHosts, serial_tap: SerialTap) -> None:
    """It locks memory. Where the daemon may not raise that limit it says so, and nothing moved."""
    words = migrate_words(running.destination, *PARALLEL, "--zerocopy")
    ran = running.source.virsh(*words, timeout_s=90)
    if ran.code:
        assert "cannot limit locked memory of process" in ran.err
        check_stayed(running, serial_tap)
    else:
        check_moved(running, serial_tap)


def test_rdma_is_refused(running: TwoHosts, serial_tap: SerialTap) -> None:
    words = migrate_words(running.destination, "--migrateuri", "rdma://127.0.0.1")
    told = running.source.refused(*words)
    assert "cannot start RDMA migration with no memory hard limit set" in told
    check_stayed(running, serial_tap)


def test_tuning_what_is_not_on_is_refused(running: TwoHosts, serial_tap: SerialTap) -> None:
    words = migrate_words(running.destination, "--parallel-connections", "2")
    assert "Turn parallel migration on to tune it" in running.source.refused(*words)
    check_stayed(running, serial_tap)
