"""virsh looks at a guest's devices and touches them."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest

from clients.conftest import SMALL
from support.clients import PLAIN, virsh_argv
from support.domains import tick_xml
from support.fixtures import MakeGuest
from support.host import Host
from support.leaks import own_tap
from support.serial import SerialTap
from support.tick_guest import TickParameters

DISK_BYTES = 8 << 20
TINY = TickParameters(region_mib=1, dirty_mib_s=1, check_mib_s=1)


@pytest.fixture
def machine(host: Host, tick_elf: Path) -> Host:
    """`web1`, running, with one disk, one interface, a display, a balloon."""
    disk = host.root.with_name("disk.img")
    disk.write_bytes(b"")
    os.truncate(disk, DISK_BYTES)
    devices = f"""
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/>
      <target dev='vda' bus='virtio'/><serial>WD-1</serial></disk>
    <interface type='user'><mac address='52:54:00:12:34:56'/><model type='virtio'/></interface>
    <graphics type='vnc' port='-1' listen='127.0.0.1'/>
    <video><model type='vga'/></video>"""
    xml = tick_xml("web1", tick_elf, SMALL, devices=devices)
    xml = xml.replace("<memballoon model='none'/>", "<memballoon model='virtio'/>")
    host.create(xml)
    return host


def test_domblklist(machine: Host) -> None:
    disk = str(machine.root.with_name("disk.img"))
    assert machine.said("domblklist", "web1").split() == ["vda", disk]
    assert machine.said("domblklist", "web1", "--details").split() == ["file", "disk", "vda", disk]


def test_domiflist(machine: Host) -> None:
    name, kind, source, model, mac = machine.said("domiflist", "web1").split()
    assert (name, kind, source) == ("-", "user", "-")
    assert (model, mac) == ("virtio", "52:54:00:12:34:56")


def test_domblkinfo(machine: Host) -> None:
    told = machine.said("domblkinfo", "web1", "vda")
    sizes = {line.split(":")[0]: int(line.split(":")[1]) for line in told.splitlines()}
    assert sizes["Capacity"] == DISK_BYTES
    assert sizes["Physical"] == DISK_BYTES
    assert sizes["Allocation"] <= DISK_BYTES


def test_domblkstat(machine: Host) -> None:
    told = dict(line.split()[1:] for line in machine.said("domblkstat", "web1", "vda").splitlines())
    assert {"rd_req", "rd_bytes", "wr_req", "wr_bytes", "flush_operations"} <= set(told)
    assert int(told["wr_bytes"]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="a tap is root's to make")
def test_domifstat(host: Host, tick_elf: Path) -> None:
    tap = own_tap()
    devices = f"""<interface type='ethernet'><mac address='52:54:00:12:34:58'/>
      <target dev='{tap}'/><model type='e1000'/></interface>"""
    host.create(tick_xml("web1", tick_elf, SMALL, devices=devices))
    rows = [line.split() for line in host.said("domifstat", "web1", tap).splitlines()]
    told = {name: int(value) for _, name, value in rows}
    assert {"rx_bytes", "rx_packets", "tx_bytes", "tx_packets", "tx_drop"} <= set(told)
    assert tap in host.said("domiflist", "web1")
    host.refused("domifstat", "web1", "52:54:00:12:34:99")


def test_domcontrol(machine: Host) -> None:
    assert machine.said("domcontrol", "web1") == "ok"


def test_dommemstat(machine: Host) -> None:
    told = dict(line.split() for line in machine.said("dommemstat", "web1").splitlines())
    assert told["actual"] == str(SMALL.memory_mib * 1024)
    assert int(told["rss"]) > 0


def test_domstats(machine: Host) -> None:
    told = dict(
        line.strip().split("=", 1)
        for line in machine.said("domstats", "web1").splitlines()
        if "=" in line
    )
    assert told["state.state"] == "1"
    assert told["vcpu.current"] == "1"
    assert told["balloon.current"] == str(SMALL.memory_mib * 1024)
    assert told["block.count"] == "1"
    assert told["block.0.name"] == "vda"
    assert told["block.0.capacity"] == str(DISK_BYTES)
    assert told["net.count"] == "1"
    assert int(told["cpu.time"]) > 0
    chosen = machine.said("domstats", "--state", "--block", "--list-active")
    assert "cpu.time" not in chosen
    assert "block.count=1" in chosen


def test_vcpuinfo(machine: Host) -> None:
    told = machine.said("vcpuinfo", "web1")
    assert "VCPU:           0" in told
    assert "State:          running" in told


def test_vncdisplay_and_domdisplay(machine: Host) -> None:
    display = machine.said("vncdisplay", "web1")
    assert display.startswith("127.0.0.1:")
    assert machine.said("domdisplay", "web1") == f"vnc://{display}"


def test_screenshot(machine: Host) -> None:
    path = machine.root.with_name("shot")
    machine.virsh("screenshot", "web1", str(path)).check()
    assert path.read_bytes().startswith((b"P6", b"\x89PNG"))


def test_qemu_monitor_command(machine: Host) -> None:
    told = machine.said("qemu-monitor-command", "web1", '{"execute": "query-status"}')
    assert json.loads(told)["return"]["status"] == "running"
    assert "VM status: running" in machine.said(
        "qemu-monitor-command", "web1", "--hmp", "info status"
    )


def test_send_key(host: Host, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> None:
    host.create(tick_guest_xml("web1", TINY))
    serial_tap.wait_more_ticks(2)
    host.virsh("send-key", "web1", "KEY_A").check()
    serial_tap.wait_line("scan 1e")


def test_ttyconsole(host: Host, tick_elf: Path) -> None:
    host.create(tick_xml("web1", tick_elf, SMALL), "--paused")
    assert host.said("ttyconsole", "web1").startswith("/dev/pts/")


def read_until(descriptor: int, wanted: bytes, timeout_s: float = 20) -> bytes:
    deadline, heard = time.monotonic() + timeout_s, b""
    while wanted not in heard:
        ready, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"no {wanted!r} in {heard[-200:]!r}"
        heard += os.read(descriptor, 65536)
    return heard


def test_console(host: Host, tick_elf: Path) -> None:
    """A person at a terminal sees the guest tick, types at it, and leaves with ^]."""
    host.create(tick_xml("web1", tick_elf, SMALL))
    terminal, theirs = pty.openpty()
    with subprocess.Popen(
        virsh_argv(host.uri, "console", "web1"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, **PLAIN},
        start_new_session=True,
    ) as client:
        os.close(theirs)
        read_until(terminal, b"tick ")
        os.write(terminal, b"Z")
        read_until(terminal, b"heard 5a")
        os.write(terminal, b"\x1d")
        assert client.wait(20) == 0
    os.close(terminal)
