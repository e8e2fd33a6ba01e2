"""The host: size, load, memory, capabilities, CPU models.

What reads more than a few small files runs on a thread, so that no other client waits for it.
"""

from __future__ import annotations

import asyncio

from sterna.host import node
from sterna.rpc.msg_common import KeyValue64
from sterna.rpc.msg_connect import (
    NodeGetCellsFreeMemoryArgs,
    NodeGetCellsFreeMemoryRet,
    NodeGetCpuMapArgs,
    NodeGetCpuMapRet,
    NodeGetCpuStatsArgs,
    NodeGetCpuStatsRet,
    NodeGetFreeMemoryRet,
    NodeGetFreePagesArgs,
    NodeGetFreePagesRet,
    NodeGetInfoRet,
    NodeGetMemoryStatsArgs,
    NodeGetMemoryStatsRet,
    NodeGetSecurityModelRet,
)
from sterna.server.dispatch import check_flags, handles
from sterna.server.session import Session

_MODEL_BYTES = 32


@handles("NODE_GET_INFO")
async def node_get_info(session: Session, args: None) -> NodeGetInfoRet:
    info = await asyncio.to_thread(node.node_info)
    return NodeGetInfoRet(
        model=info.model.encode()[: _MODEL_BYTES - 1].ljust(_MODEL_BYTES, b"\0"),
        memory=info.memory_kib,
        cpus=info.cpus,
        mhz=info.mhz,
        nodes=info.nodes,
        sockets=info.sockets,
        cores=info.cores,
        threads=info.threads,
    )


@handles("NODE_GET_FREE_MEMORY")
def node_get_free_memory(session: Session, args: None) -> NodeGetFreeMemoryRet:
    return NodeGetFreeMemoryRet(freeMem=node.free_memory())


@handles("NODE_GET_CELLS_FREE_MEMORY")
async def node_get_cells_free_memory(
    session: Session, args: NodeGetCellsFreeMemoryArgs
) -> NodeGetCellsFreeMemoryRet:
    cells = await asyncio.to_thread(node.cells_free_memory, args.startCell, args.maxcells)
    return NodeGetCellsFreeMemoryRet(cells=cells)


@handles("NODE_GET_FREE_PAGES")
async def node_get_free_pages(session: Session, args: NodeGetFreePagesArgs) -> NodeGetFreePagesRet:
    check_flags(args.flags, 0, "qemuNodeGetFreePages")
    counts = await asyncio.to_thread(node.free_pages, args.pages, args.startCell, args.cellCount)
    return NodeGetFreePagesRet(counts=counts)


@handles("NODE_GET_CPU_MAP")
def node_get_cpu_map(session: Session, args: NodeGetCpuMapArgs) -> NodeGetCpuMapRet:
    check_flags(args.flags, 0, "virHostCPUGetMap")
    cpus = node.cpu_map()
    return NodeGetCpuMapRet(
        cpumap=cpus.bitmap if args.need_map else b"",
        online=cpus.online if args.need_online else 0,
        ret=cpus.present,
    )


@handles("NODE_GET_CPU_STATS")
def node_get_cpu_stats(session: Session, args: NodeGetCpuStatsArgs) -> NodeGetCpuStatsRet:
    check_flags(args.flags, 0, "virHostCPUGetStats")
    found = [KeyValue64(name, value) for name, value in node.cpu_stats(args.cpuNum).items()]
    asked = args.nparams
    return NodeGetCpuStatsRet(params=found if asked else [], nparams=0 if asked else len(found))


@handles("NODE_GET_MEMORY_STATS")
def node_get_memory_stats(session: Session, args: NodeGetMemoryStatsArgs) -> NodeGetMemoryStatsRet:
    check_flags(args.flags, 0, "virHostMemGetStats")
    found = [KeyValue64(name, value) for name, value in node.memory_stats(args.cellNum).items()]
    asked = args.nparams
    return NodeGetMemoryStatsRet(params=found if asked else [], nparams=0 if asked else len(found))


@handles("NODE_GET_SECURITY_MODEL")
def node_get_security_model(session: Session, args: None) -> NodeGetSecurityModelRet:
    """No security driver, in the words of one that has none (libvirt 9.0, observed)."""
    return NodeGetSecurityModelRet(model=b"none\0", doi=b"0\0")
