"""Messages about a domain's memory, processors, threads and resource limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.rpc.msg_common import (
    CpuMap,
    CpuMaps,
    Dom,
    IoThread,
    MemoryStat,
    PeekedBytes,
    TypedParam,
    VcpuInfo,
)
from sterna.xdr.message import Message
from sterna.xdr.wire import I32, U32, U64, Max, Str


class DomainGetMaxMemoryArgs(Message):
    dom: Dom


class DomainGetMaxMemoryRet(Message):
    memory: U64


class DomainGetMaxVcpusArgs(Message):
    dom: Dom


class DomainGetMaxVcpusRet(Message):
    num: I32


class DomainGetVcpusArgs(Message):
    dom: Dom
    maxinfo: I32
    maplen: I32


class DomainGetVcpusRet(Message):
    info: Annotated[Sequence[VcpuInfo], Max(16_384)]
    cpumaps: CpuMaps


class DomainPinVcpuArgs(Message):
    dom: Dom
    vcpu: U32
    cpumap: CpuMap


class DomainSetMaxMemoryArgs(Message):
    dom: Dom
    memory: U64


class DomainSetMemoryArgs(Message):
    dom: Dom
    memory: U64


class DomainSetVcpusArgs(Message):
    dom: Dom
    nvcpus: U32


class DomainGetSchedulerTypeArgs(Message):
    dom: Dom


class DomainGetSchedulerTypeRet(Message):
    type: Str
    nparams: I32


class DomainGetSchedulerParametersArgs(Message):
    dom: Dom
    nparams: I32


class DomainGetSchedulerParametersRet(Message):
    params: Annotated[Sequence[TypedParam], Max(16)]


class DomainSetSchedulerParametersArgs(Message):
    dom: Dom
    params: Annotated[Sequence[TypedParam], Max(16)]


class DomainMemoryPeekArgs(Message):
    dom: Dom
    offset: U64
    size: U32
    flags: U32


class DomainMemoryPeekRet(Message):
    buffer: PeekedBytes


class DomainMemoryStatsArgs(Message):
    dom: Dom
    maxStats: U32
    flags: U32


class DomainMemoryStatsRet(Message):
    stats: Annotated[Sequence[MemoryStat], Max(1_024)]


class DomainSetMemoryParametersArgs(Message):
    dom: Dom
    params: Annotated[Sequence[TypedParam], Max(16)]
    flags: U32


class DomainGetMemoryParametersArgs(Message):
    dom: Dom
    nparams: I32
    flags: U32


class DomainGetMemoryParametersRet(Message):
    params: Annotated[Sequence[TypedParam], Max(16)]
    nparams: I32


class DomainSetVcpusFlagsArgs(Message):
    dom: Dom
    nvcpus: U32
    flags: U32


class DomainGetVcpusFlagsArgs(Message):
    dom: Dom
    flags: U32


class DomainGetVcpusFlagsRet(Message):
    num: I32


class DomainSetMemoryFlagsArgs(Message):
    dom: Dom
    memory: U64
    flags: U32


class DomainSetBlkioParametersArgs(Message):
    dom: Dom
    params: Annotated[Sequence[TypedParam], Max(16)]
    flags: U32


class DomainGetBlkioParametersArgs(Message):
    dom: Dom
    nparams: I32
    flags: U32


class DomainGetBlkioParametersRet(Message):
    params: Annotated[Sequence[TypedParam], Max(16)]
    nparams: I32


class DomainSetSchedulerParametersFlagsArgs(Message):
    dom: Dom
    params: Annotated[Sequence[TypedParam], Max(16)]
    flags: U32


class DomainGetSchedulerParametersFlagsArgs(Message):
    dom: Dom
    nparams: I32
    flags: U32


class DomainGetSchedulerParametersFlagsRet(Message):
    params: Annotated[Sequence[TypedParam], Max(16)]


class DomainPinVcpuFlagsArgs(Message):
    dom: Dom
    vcpu: U32
    cpumap: CpuMap
    flags: U32


class DomainGetVcpuPinInfoArgs(Message):
    dom: Dom
    ncpumaps: I32
    maplen: I32
    flags: U32


class DomainGetVcpuPinInfoRet(Message):
    cpumaps: CpuMaps
    num: I32


class DomainSetNumaParametersArgs(Message):
    dom: Dom
    params: Annotated[Sequence[TypedParam], Max(16)]
    flags: U32


class DomainGetNumaParametersArgs(Message):
    dom: Dom
    nparams: I32
    flags: U32


class DomainGetNumaParametersRet(Message):
    params: Annotated[Sequence[TypedParam], Max(16)]
    nparams: I32


class DomainSetInterfaceParametersArgs(Message):
    dom: Dom
    device: Str
    params: Annotated[Sequence[TypedParam], Max(16)]
    flags: U32


class DomainGetInterfaceParametersArgs(Message):
    dom: Dom
    device: Str
    nparams: I32
    flags: U32


class DomainGetInterfaceParametersRet(Message):
    params: Annotated[Sequence[TypedParam], Max(16)]
    nparams: I32


class DomainGetCpuStatsArgs(Message):
    dom: Dom
    nparams: U32
    start_cpu: I32
    ncpus: U32
    flags: U32


class DomainGetCpuStatsRet(Message):
    params: Annotated[Sequence[TypedParam], Max(2_048)]
    nparams: I32


class DomainPinEmulatorArgs(Message):
    dom: Dom
    cpumap: CpuMap
    flags: U32


class DomainGetEmulatorPinInfoArgs(Message):
    dom: Dom
    maplen: I32
    flags: U32


class DomainGetEmulatorPinInfoRet(Message):
    cpumaps: CpuMaps
    ret: I32


class DomainSetMemoryStatsPeriodArgs(Message):
    dom: Dom
    period: I32
    flags: U32


class DomainGetIothreadInfoArgs(Message):
    dom: Dom
    flags: U32


class DomainGetIothreadInfoRet(Message):
    info: Annotated[Sequence[IoThread], Max(16_384)]
    ret: U32


class DomainPinIothreadArgs(Message):
    dom: Dom
    iothreads_id: U32
    cpumap: CpuMap
    flags: U32


class DomainAddIothreadArgs(Message):
    dom: Dom
    iothread_id: U32
    flags: U32


class DomainDelIothreadArgs(Message):
    dom: Dom
    iothread_id: U32
    flags: U32


class DomainGetPerfEventsArgs(Message):
    dom: Dom
    flags: U32


class DomainGetPerfEventsRet(Message):
    params: Annotated[Sequence[TypedParam], Max(64)]


class DomainSetPerfEventsArgs(Message):
    dom: Dom
    params: Annotated[Sequence[TypedParam], Max(64)]
    flags: U32


class DomainSetVcpuArgs(Message):
    dom: Dom
    cpumap: Str
    state: I32
    flags: U32


class DomainSetIothreadParamsArgs(Message):
    dom: Dom
    iothread_id: U32
    params: Annotated[Sequence[TypedParam], Max(64)]
    flags: U32


class DomainStartDirtyRateCalcArgs(Message):
    dom: Dom
    seconds: I32
    flags: U32


class DomainSetThrottleGroupArgs(Message):
    dom: Dom
    group: Str
    params: Annotated[Sequence[TypedParam], Max(32)]
    flags: U32


class DomainDelThrottleGroupArgs(Message):
    dom: Dom
    group: Str | None
    flags: U32
