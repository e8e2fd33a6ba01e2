"""Which CPU can stand in for which: virsh's cpu-compare and cpu-baseline, and hypervisor-cpu-*."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from sterna.errors import OperationUnsupported
from sterna.host.cpu import host_cpu, named_models, richest_guest_cpu
from sterna.host.cpu_compare import baseline_xml, compare_cpu, parse_cpu
from sterna.host.cpu_features import FEATURES
from sterna.host.domaincaps import choose
from sterna.host.support import GuestSupport
from sterna.rpc.msg_connect import (
    ConnectBaselineCpuArgs,
    ConnectBaselineCpuRet,
    ConnectBaselineHypervisorCpuArgs,
    ConnectBaselineHypervisorCpuRet,
    ConnectCompareCpuArgs,
    ConnectCompareCpuRet,
    ConnectCompareHypervisorCpuArgs,
    ConnectCompareHypervisorCpuRet,
)
from sterna.server.dispatch import check_flags, handles
from sterna.server.emulators import host_supports
from sterna.server.session import Session

FAIL_INCOMPATIBLE, VALIDATE_XML = 1, 2
EXPAND_FEATURES, MIGRATABLE = 1, 2

MIGRATABLE_FEATURES = frozenset(FEATURES) - {"invtsc", "xsaves"}
"""A time stamp counter that never changes its rate can't be promised on another host; libvirt 9.0
leaves xsaves out as well (observed)."""


@handles("CONNECT_COMPARE_CPU")
async def connect_compare_cpu(
    session: Session, args: ConnectCompareCpuArgs
) -> ConnectCompareCpuRet:
    check_flags(args.flags, FAIL_INCOMPATIBLE | VALIDATE_XML, "qemuConnectCompareCPU")
    support, _machine, _virt_type = choose(await host_supports(session.context.emulators))

    def compare() -> int:
        cpu = host_cpu()
        return compare_cpu(
            parse_cpu(args.xml, named_models(support, "qemu")),
            cpu.features,
            cpu.vendor,
            fail_if_incompatible=bool(args.flags & FAIL_INCOMPATIBLE),
        )

    return ConnectCompareCpuRet(result=await asyncio.to_thread(compare))


@handles("CONNECT_COMPARE_HYPERVISOR_CPU")
async def connect_compare_hypervisor_cpu(
    session: Session, args: ConnectCompareHypervisorCpuArgs
) -> ConnectCompareHypervisorCpuRet:
    check_flags(args.flags, FAIL_INCOMPATIBLE | VALIDATE_XML, "qemuConnectCompareHypervisorCPU")
    support, virt_type = await _chosen(session, args)
    cpu = richest_guest_cpu(support, virt_type)
    if cpu is None:
        raise OperationUnsupported(f"{support.emulator} doesn't tell its CPU models")
    wanted = parse_cpu(args.xmlCPU, named_models(support, virt_type))
    fail = bool(args.flags & FAIL_INCOMPATIBLE)
    result = compare_cpu(wanted, cpu.features, cpu.vendor, fail_if_incompatible=fail)
    return ConnectCompareHypervisorCpuRet(result=result)


@handles("CONNECT_BASELINE_CPU")
async def connect_baseline_cpu(
    session: Session, args: ConnectBaselineCpuArgs
) -> ConnectBaselineCpuRet:
    check_flags(args.flags, EXPAND_FEATURES | MIGRATABLE, "qemuConnectBaselineCPU")
    support, _machine, _virt_type = choose(await host_supports(session.context.emulators))
    make = _baseline(args.xmlCPUs, support, "qemu", args.flags)
    return ConnectBaselineCpuRet(cpu=await asyncio.to_thread(make))


@handles("CONNECT_BASELINE_HYPERVISOR_CPU")
async def connect_baseline_hypervisor_cpu(
    session: Session, args: ConnectBaselineHypervisorCpuArgs
) -> ConnectBaselineHypervisorCpuRet:
    check_flags(args.flags, EXPAND_FEATURES | MIGRATABLE, "qemuConnectBaselineHypervisorCPU")
    support, virt_type = await _chosen(session, args)
    make = _baseline(args.xmlCPUs, support, virt_type, args.flags)
    return ConnectBaselineHypervisorCpuRet(cpu=await asyncio.to_thread(make))


def _baseline(
    documents: Sequence[str], support: GuestSupport, virt_type: str, flags: int
) -> Callable[[], str]:
    return lambda: baseline_xml(
        documents,
        named_models(support, virt_type),
        within=MIGRATABLE_FEATURES if flags & MIGRATABLE else None,
        expand=bool(flags & EXPAND_FEATURES),
    )


async def _chosen(
    session: Session, args: ConnectCompareHypervisorCpuArgs | ConnectBaselineHypervisorCpuArgs
) -> tuple[GuestSupport, str]:
    """The emulator and virt type that these arguments mean."""
    support, _machine, virt_type = choose(
        await host_supports(session.context.emulators),
        emulator=args.emulator,
        arch=args.arch,
        machine=args.machine,
        virt_type=args.virttype,
    )
    return support, virt_type
