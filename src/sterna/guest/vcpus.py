"""Plugging vcpus into a running guest and out of it.

A guest that had vcpus plugged in can be built again, for a restore or at a migration's
destination, only in the same two steps: first the machine with the vcpus it was started with
(devices count them, a virtio disk its queues), then the others. So the live definition keeps apart
which are which, in `<vcpus>`, as libvirt 9.0 does (observed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sterna.config.model import Vcpu
from sterna.errors import OperationInvalid
from sterna.guest.definitions import vcpus_max
from sterna.guest.surroundings import MONITOR_S

if TYPE_CHECKING:
    from sterna.guest.ports import Monitor
    from sterna.guest.running import Running


async def plug(running: Running, count: int) -> None:
    """Plug vcpus in or out until `count` are there.

    Raises: OperationInvalid (55) for a vcpu the guest was started with; QmpError.
    """
    qemu = running.qemu
    slots = await _slots(qemu)
    present = [number for number, slot in enumerate(slots) if slot.get("qom-path")]
    absent = [number for number in range(len(slots)) if number not in present]
    for number in absent[: max(count - len(present), 0)]:
        await _plug_one(qemu, slots, number)
    for number in reversed(present[count:]):
        name = str(slots[number]["qom-path"]).removeprefix("/machine/peripheral/")
        if name == slots[number]["qom-path"]:
            raise OperationInvalid(
                "failed to find appropriate hotpluggable vcpus to reach"
                " the desired target vcpu count"
            )
        await qemu.execute("device_del", {"id": name}, timeout_s=MONITOR_S)
    await learn(running)


async def plug_in_again(running: Running) -> None:
    """Plug in what a live definition says was plugged in. Before the CPUs run or a state is loaded.

    Raises: QmpError.
    """
    wanted = [v.id for v in running.definition.vcpus if v.enabled and v.hotpluggable]
    if not wanted:
        return
    slots = await _slots(running.qemu)
    for number in wanted:
        if number is not None and number < len(slots) and not slots[number].get("qom-path"):
            await _plug_one(running.qemu, slots, number)


async def learn(running: Running) -> None:
    """Ask QEMU which vcpus there are, and write it down: threads, and the live definition."""
    cpus: list[dict[str, Any]] = await running.qemu.execute("query-cpus-fast", timeout_s=MONITOR_S)
    running.vcpu_threads = {cpu["cpu-index"]: cpu["thread-id"] for cpu in cpus}
    slots = await _slots(running.qemu)
    live = running.definition
    started_with = {
        number
        for number, slot in enumerate(slots)
        if slot.get("qom-path") and "/peripheral/" not in str(slot["qom-path"])
    }
    live.vcpus = []
    order = 0
    for number, slot in enumerate(slots):
        enabled = bool(slot.get("qom-path"))
        order += enabled
        live.vcpus.append(
            Vcpu(
                id=number,
                enabled=enabled,
                hotpluggable=number not in started_with,
                order=order if enabled else None,
            )
        )
    count = len(running.vcpu_threads)
    live.vcpu_current = count if count != vcpus_max(live) else None
    running.definition_changed()


async def _slots(qemu: Monitor) -> list[dict[str, Any]]:
    """Places for vcpus, by number. QEMU lists them from the last to the first."""
    slots = await qemu.execute("query-hotpluggable-cpus", timeout_s=MONITOR_S)
    return list(reversed(slots))


async def _plug_one(qemu: Monitor, slots: list[dict[str, Any]], number: int) -> None:
    slot = slots[number]
    arguments = {"driver": slot["type"], "id": f"vcpu{number}", **slot["props"]}
    await qemu.execute("device_add", arguments, timeout_s=MONITOR_S)
