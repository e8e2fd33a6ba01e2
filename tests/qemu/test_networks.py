"""Guests on a bridge, in a network namespace of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from typing import Any

import pytest

from support.daemon import Daemon
from support.fixtures import Hosts
from support.processes import wait_for

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(
        os.geteuid() != 0 or not os.path.exists("/dev/net/tun"),
        reason="only root can make taps, and only with the tun driver",
    ),
]

# Words before the daemon's own command line: a namespace with a bridge in it.
BRIDGED = (
    *("unshare", "--net", "sh", "-c"),
    'ip link set lo up && ip link add br0 type bridge && ip link set br0 up && exec "$@"',
    "sh",
)


@pytest.fixture
def bridged(hosts: Hosts) -> Daemon:
    return hosts.start("alpha", prefix=BRIDGED)


def links(host: Daemon) -> dict[str, dict[str, Any]]:
    """The interfaces of the host's namespace, by name, without loopback and bridge."""
    shown = subprocess.run(
        ["nsenter", "--target", str(host.pid), "--net", "ip", "-json", "link"],
        check=True,
        capture_output=True,
    )
    return {link["ifname"]: link for link in json.loads(shown.stdout)[2:]}


def guest(*interfaces: str) -> str:
    return (
        f"<domain type='qemu'><name>net</name><uuid>{uuid.uuid4()}</uuid><memory>32768</memory>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os>"
        f"<devices>{''.join(interfaces)}<memballoon model='none'/></devices></domain>"
    )


ON_BRIDGE = (
    "<interface type='bridge'><mac address='52:54:00:11:22:33'/><source bridge='br0'/>"
    "<model type='virtio'/><mtu size='1400'/></interface>"
)
TWO_QUEUES = (
    "<interface type='bridge'><source bridge='br0'/><model type='virtio'/>"
    "<driver queues='2'/></interface>"
)
NAMED = "<interface type='ethernet'><target dev='mine'/><model type='e1000'/></interface>"


def test_taps_are_made_and_gone_with_the_guest(bridged: Daemon) -> None:
    bridged.create(guest(ON_BRIDGE, TWO_QUEUES, NAMED), "--paused")
    made = links(bridged)
    assert set(made) == {"vnet0", "vnet1", "mine"}
    first = made["vnet0"]
    assert (first["address"], first["mtu"], first["master"]) == ("fe:54:00:11:22:33", 1400, "br0")
    assert made["vnet1"]["master"] == "br0"
    assert "master" not in made["mine"]
    assert all("UP" in link["flags"] for link in made.values())
    bridged.said("destroy", "net")
    assert links(bridged) == {}


def test_counters_are_the_guests_view(bridged: Daemon) -> None:
    bridged.create(guest(ON_BRIDGE), "--paused")
    shown = bridged.said("domifstat", "net", "vnet0").split()
    assert shown[:2] == ["vnet0", "rx_bytes"]
    assert "tx_drop" in shown


def test_a_sigkilled_qemu_leaves_no_tap(bridged: Daemon) -> None:
    bridged.create(guest(ON_BRIDGE), "--paused")
    (qemu,) = bridged.qemus()
    os.kill(qemu.pid, 9)
    wait_for(lambda: not links(bridged), "the tap to be gone")


def test_a_failed_start_leaves_no_tap(bridged: Daemon) -> None:
    missing = ON_BRIDGE.replace("br0", "nowhere")
    path = bridged.file("bad.xml", guest(missing))
    assert "Unable to add bridge nowhere port vnet0" in bridged.refused("create", path)
    assert links(bridged) == {}
