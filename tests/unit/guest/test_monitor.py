"""Each of QEMU's events as what clients are told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sterna.guest import events as e
from sterna.guest.states import RunningReason, State
from support.fake_host import domain_xml, fake_host

DEVICES = (
    "<disk type='file'><source file='/srv/a.raw'/><target dev='vda' bus='virtio'/></disk>"
    "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
)
VNC = {
    "server": {"family": "ipv4", "host": "127.0.0.1", "service": "5900", "auth": "none"},
    "client": {"family": "ipv6", "host": "::1", "service": "999", "sasl_username": "joe"},
}


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("RTC_CHANGE", {"offset": -3}, lambda g: e.RtcChangeEvent(g, -3)),
        ("WATCHDOG", {"action": "reset"}, lambda g: e.WatchdogEvent(g, 2)),
        ("DEVICE_DELETED", {"device": "net1"}, lambda g: e.DeviceRemovedEvent(g, "net1")),
        ("MIGRATION_PASS", {"pass": 2}, lambda g: e.MigrationIterationEvent(g, 2)),
        ("BALLOON_CHANGE", {"actual": 2048}, lambda g: e.BalloonChangeEvent(g, 2)),
        (
            "DEVICE_TRAY_MOVED",
            {"device": "", "id": "virtio-disk0", "tray-open": True},
            lambda g: e.TrayChangeEvent(g, "virtio-disk0", 0),
        ),
        (
            "BLOCK_IO_ERROR",
            {"device": "", "qom": "", "node-name": "x", "action": "report"},
            lambda g: e.IoErrorEvent(g, "", "", 2, ""),
        ),
        (
            "BLOCK_IO_ERROR",
            {"device": "virtio-disk0", "action": "stop", "nospace": True},
            lambda g: e.IoErrorEvent(g, "/srv/a.raw", "virtio-disk0", 1, "enospc"),
        ),
        (
            "MEMORY_FAILURE",
            {
                "recipient": "guest",
                "action": "inject",
                "flags": {"action-required": True, "recursive": True},
            },
            lambda g: e.MemoryFailureEvent(g, 1, 1, 3),
        ),
        (
            "VSERPORT_CHANGE",
            {"id": "channel0", "open": True},
            lambda g: e.AgentLifecycleEvent(g, 1, 2),
        ),
        (
            "VNC_CONNECTED",
            VNC,
            lambda g: e.GraphicsEvent(
                g,
                0,
                e.GraphicsAddress(0, "127.0.0.1", "5900"),
                e.GraphicsAddress(1, "::1", "999"),
                "none",
                (("saslUsername", "joe"),),
            ),
        ),
    ],
)
async def test_what_clients_are_told(
    tmp_path: Path, name: str, data: dict[str, Any], told: Any
) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml(devices=DEVICES))
        host.events.clear()
        host.launcher.monitor.say(name, **data)
        assert host.others == [told(guest.ref)]
        [raw] = [x for x in host.events if isinstance(x, e.MonitorEvent)]
        assert (raw.event, raw.seconds, raw.micros) == (name, 1, 0)
        await guest.destroy()


async def test_the_agent_s_channel_starts_unconnected(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml(devices=DEVICES))
        assert host.others == [e.AgentLifecycleEvent(guest.ref, 2, 1)]
        host.launcher.monitor.say("VSERPORT_CHANGE", id="channel0", open=False)
        assert len(host.others) == 1  # nothing new
        await guest.destroy()


async def test_a_guest_that_sleeps_and_wakes(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml())
        host.events.clear()
        host.launcher.monitor.say("SUSPEND")
        assert guest.state is State.PMSUSPENDED
        host.launcher.monitor.say("WAKEUP")
        assert (guest.state, guest.reason) == (State.RUNNING, RunningReason.WAKEUP)
        assert host.lifecycle == ["PMSUSPENDED/MEMORY", "STARTED/WAKEUP"]
        assert [type(x).__name__ for x in host.others] == ["PmSuspendEvent", "PmWakeupEvent"]
        host.launcher.monitor.say("SUSPEND_DISK")
        assert host.lifecycle[-1] == "PMSUSPENDED/DISK"
        await guest.destroy()


async def test_an_unknown_event_is_passed_on_raw(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml())
        host.events.clear()
        host.launcher.monitor.say("BRAND_NEW", x=1)
        assert host.others == []
        [raw] = host.events
        assert isinstance(raw, e.MonitorEvent)
        assert raw.details == '{"x": 1}'
        await guest.destroy()


async def test_what_is_said_of_an_earlier_life_is_not_this_one_s(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        await guest.start()
        earlier = host.launcher.monitor
        await guest.destroy()
        await guest.start()
        host.events.clear()
        earlier.say("STOP")
        assert guest.state is State.RUNNING
        assert host.events == []
        await guest.destroy()
