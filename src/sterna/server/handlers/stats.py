"""Numbers of running guests. What a monitor must be asked for has a short deadline (L6)."""

from __future__ import annotations

from uuid import UUID

from sterna.errors import ArgumentUnsupported, InternalError
from sterna.guest import stats
from sterna.guest.stats import SERVED, Stat
from sterna.rpc.msg_block import (
    DomainBlockStatsArgs,
    DomainBlockStatsFlagsArgs,
    DomainBlockStatsFlagsRet,
    DomainBlockStatsRet,
    DomainGetBlockInfoArgs,
    DomainGetBlockInfoRet,
    DomainGetDiskErrorsArgs,
    DomainGetDiskErrorsRet,
)
from sterna.rpc.msg_common import MemoryStat, StatsRecord, TypedParam
from sterna.rpc.msg_connect import ConnectGetAllDomainStatsArgs, ConnectGetAllDomainStatsRet
from sterna.rpc.msg_device import DomainInterfaceStatsArgs, DomainInterfaceStatsRet
from sterna.rpc.msg_tuning import DomainMemoryStatsArgs, DomainMemoryStatsRet
from sterna.rpc.typed_params import STRING_OKAY, ParamType, encode_params
from sterna.server.dispatch import check_flags, handles
from sterna.server.handlers.lookup import filtered
from sterna.server.objects import encode_guest, find
from sterna.server.session import Session

STATS_FILTERS = 0xFF
NOWAIT, BACKING, ENFORCE = 0x20000000, 0x40000000, 0x80000000
MEMORY_STATS_MAX = 1024
BLOCK_STATS_MAX = 16


def encode_stats(found: list[Stat]) -> list[TypedParam]:
    return [TypedParam(name, int(kind), value) for name, kind, value in found]


@handles("CONNECT_GET_ALL_DOMAIN_STATS")
async def connect_get_all_domain_stats(
    session: Session, args: ConnectGetAllDomainStatsArgs
) -> ConnectGetAllDomainStatsRet:
    check_flags(
        args.flags, STATS_FILTERS | NOWAIT | BACKING | ENFORCE, "qemuConnectGetAllDomainStats"
    )
    unknown = args.stats & ~int(SERVED)
    if unknown and args.flags & ENFORCE:
        raise ArgumentUnsupported(
            f"Stats types bits 0x{unknown:x} are not supported by this daemon or QEMU"
        )
    registry = session.context.registry
    if args.doms:
        named = [registry.find(UUID(bytes=dom.uuid)) for dom in args.doms]
        guests = [guest for guest in named if guest is not None]
    else:
        guests = list(registry.all())
    chosen = list(filtered(guests, args.flags & STATS_FILTERS))
    if unknown == args.stats != 0:
        return ConnectGetAllDomainStatsRet(
            retStats=[StatsRecord(encode_guest(guest), []) for guest in chosen]
        )
    found = await stats.all_stats(chosen, args.stats)
    return ConnectGetAllDomainStatsRet(
        retStats=[StatsRecord(encode_guest(g), encode_stats(values)) for g, values in found]
    )


@handles("DOMAIN_BLOCK_STATS")
async def domain_block_stats(session: Session, args: DomainBlockStatsArgs) -> DomainBlockStatsRet:
    r = await stats.block_stats(find(session, args.dom), args.path)
    return DomainBlockStatsRet(
        rd_req=r.rd_reqs, rd_bytes=r.rd_bytes, wr_req=r.wr_reqs, wr_bytes=r.wr_bytes, errs=-1
    )


@handles("DOMAIN_BLOCK_STATS_FLAGS")
async def domain_block_stats_flags(
    session: Session, args: DomainBlockStatsFlagsArgs
) -> DomainBlockStatsFlagsRet:
    check_flags(args.flags, STRING_OKAY, "qemuDomainBlockStatsFlags")
    if args.nparams > BLOCK_STATS_MAX:
        raise InternalError("nparams too large")
    r = await stats.block_stats(find(session, args.dom), args.path)
    # Order and types of libvirt 9.0 (observed).
    params = encode_params(
        (name, value, ParamType.LLONG)
        for name, value in (
            ("wr_bytes", r.wr_bytes),
            ("wr_operations", r.wr_reqs),
            ("rd_bytes", r.rd_bytes),
            ("rd_operations", r.rd_reqs),
            ("flush_operations", r.fl_reqs),
            ("wr_total_times", r.wr_times),
            ("rd_total_times", r.rd_times),
            ("flush_total_times", r.fl_times),
        )
    )
    if args.nparams <= 0:
        return DomainBlockStatsFlagsRet(params=[], nparams=len(params))
    return DomainBlockStatsFlagsRet(params=params[: args.nparams], nparams=0)


@handles("DOMAIN_GET_BLOCK_INFO")
async def domain_get_block_info(
    session: Session, args: DomainGetBlockInfoArgs
) -> DomainGetBlockInfoRet:
    check_flags(args.flags, 0, "qemuDomainGetBlockInfo")
    found = await stats.block_info(find(session, args.dom), args.path)
    return DomainGetBlockInfoRet(
        allocation=found.allocation, capacity=found.capacity, physical=found.physical
    )


@handles("DOMAIN_INTERFACE_STATS")
def domain_interface_stats(
    session: Session, args: DomainInterfaceStatsArgs
) -> DomainInterfaceStatsRet:
    c = stats.interface_stats(find(session, args.dom), args.device)
    return DomainInterfaceStatsRet(
        rx_bytes=c.rx_bytes,
        rx_packets=c.rx_packets,
        rx_errs=c.rx_errors,
        rx_drop=c.rx_drops,
        tx_bytes=c.tx_bytes,
        tx_packets=c.tx_packets,
        tx_errs=c.tx_errors,
        tx_drop=c.tx_drops,
    )


@handles("DOMAIN_MEMORY_STATS")
async def domain_memory_stats(
    session: Session, args: DomainMemoryStatsArgs
) -> DomainMemoryStatsRet:
    check_flags(args.flags, 0, "qemuDomainMemoryStats")
    if args.maxStats > MEMORY_STATS_MAX:
        raise InternalError("maxStats > REMOTE_DOMAIN_MEMORY_STATS_MAX")
    found = await stats.memory_stats(find(session, args.dom))
    return DomainMemoryStatsRet(
        stats=[MemoryStat(int(tag), value) for tag, value in found[: args.maxStats]]
    )


@handles("DOMAIN_GET_DISK_ERRORS")
def domain_get_disk_errors(
    session: Session, args: DomainGetDiskErrorsArgs
) -> DomainGetDiskErrorsRet:
    """Disks that stopped the guest are told by event; none is kept in an error state."""
    check_flags(args.flags, 0, "qemuDomainGetDiskErrors")
    guest = find(session, args.dom)
    running = guest.live_or_refuse()
    if args.maxerrors == 0:
        return DomainGetDiskErrorsRet(errors=[], nerrors=len(running.definition.devices.disks))
    return DomainGetDiskErrorsRet(errors=[], nerrors=0)
