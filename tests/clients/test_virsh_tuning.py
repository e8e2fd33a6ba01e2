"""virsh's commands for where threads run and what follows a power-off."""

from __future__ import annotations

import os

from support.host import Host


def test_a_vcpu_is_pinned_live_and_for_the_next_start(defined: Host) -> None:
    defined.said("start", "web1", "--paused")
    (line,) = defined.said("vcpupin", "web1").splitlines()
    assert line.split()[0] == "0"
    defined.said("vcpupin", "web1", "0", "0", "--live")
    assert "<vcpupin vcpu='0' cpuset='0'/>" in defined.said("dumpxml", "web1")
    assert "<vcpupin" not in defined.said("dumpxml", "web1", "--inactive")
    defined.said("vcpupin", "web1", "0", "0", "--config")
    assert "<vcpupin vcpu='0' cpuset='0'/>" in defined.said("dumpxml", "web1", "--inactive")
    assert "vcpu" in defined.refused("vcpupin", "web1", "5", "0").lower()


def test_the_emulators_threads_are_pinned(defined: Host) -> None:
    defined.said("start", "web1", "--paused")
    defined.said("emulatorpin", "web1", "0", "--live", "--config")
    for option in ("--live", "--config"):
        last = defined.said("emulatorpin", "web1", option).splitlines()[-1]
        assert last.split()[-1] == "0"
    (qemu,) = defined.qemus()
    assert os.sched_getaffinity(qemu.pid) == {0}
    defined.said("destroy", "web1")
    defined.said("start", "web1", "--paused")
    (qemu,) = defined.qemus()
    assert os.sched_getaffinity(qemu.pid) == {0}


def test_what_follows_is_changed(defined: Host) -> None:
    defined.said("set-lifecycle-action", "web1", "poweroff", "restart")
    assert "<on_poweroff>restart</on_poweroff>" in defined.said("dumpxml", "web1", "--inactive")
    both = defined.refused("set-lifecycle-action", "web1", "reboot", "destroy")
    assert "'onReboot' set to 'destroy and 'onPoweroff' set to 'reboot'" in both
    defined.said("set-lifecycle-action", "web1", "poweroff", "destroy")
    defined.said("start", "web1", "--paused")
    defined.said("set-lifecycle-action", "web1", "reboot", "destroy", "--live", "--config")
    for options in ((), ("--inactive",)):
        assert "<on_reboot>destroy</on_reboot>" in defined.said("dumpxml", "web1", *options)
    refused = defined.refused("set-lifecycle-action", "web1", "reboot", "coredump-destroy")
    assert "lifecycle" in refused
