"""The guest's processor around a launch: what `<cpu>` comes to, and what QEMU made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sterna.config.clone import clone
from sterna.config.model.cpu import Cpu
from sterna.guest.support import guest_support
from sterna.host.cpu_guest import actual_cpu, settled_cpu
from sterna.qemu.qmp_errors import QmpError

if TYPE_CHECKING:
    from sterna.config import DomainDef
    from sterna.guest.running import Running
    from sterna.qemu.caps import QemuCaps

QUERY_S = 10.0


def settle_processor(live: DomainDef, caps: QemuCaps) -> None:
    """Replace, in place, the CPU asked for by the one to start.

    What another host shall be told later is the same with libvirt 9.0 (observed): a CPU that
    followed the host is named for good, any other stays as it was asked for.

    Raises:
        ConfigUnsupported, InternalError, CpuIncompatible: it can't be had here; says why.
    """
    if live.cpu is None:
        return
    followed_host = live.cpu.mode == "host-model" or live.cpu.match == "minimum"
    live.cpu = settled_cpu(live.cpu, guest_support(caps), live.type or "qemu")
    live.original_cpu = None if followed_host else clone(live.cpu)


async def read_back_processor(running: Running, cpus: Sequence[Mapping[str, Any]]) -> None:
    """Write into the live definition which features QEMU could not give after all.

    Args:
        cpus: QEMU's answer to query-cpus-fast.

    Raises:
        OperationFailed: the definition wants exactly what it says (check='full').
        QmpError, MonitorGone, MonitorTimeout.
    """
    live, caps = running.definition, running.caps
    if caps is None or live.cpu is None or live.cpu.mode != "custom" or not cpus:
        return
    arguments = {"path": cpus[0]["qom-path"], "property": "unavailable-features"}
    try:
        unavailable = await running.qemu.execute("qom-get", arguments, timeout_s=QUERY_S)
    except QmpError:
        # CPUs of other architectures have no such property.
        return
    virt_type = live.type or "qemu"
    actual: Cpu = actual_cpu(live.cpu, frozenset(unavailable), guest_support(caps), virt_type)
    if actual == live.cpu:
        live.original_cpu = None
    live.cpu = actual
