"""Messages about a connection, its host and its authentication."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.rpc.msg_common import CpuMap, Dom, KeyValue64, StatsRecord, TypedParam
from sterna.xdr.message import Message
from sterna.xdr.wire import I32, U32, U64, Chars, Max, Str


class ConnectOpenArgs(Message):
    name: Str | None
    flags: U32


class ConnectGetTypeRet(Message):
    type: Str


class ConnectGetVersionRet(Message):
    hv_ver: U64


class ConnectGetMaxVcpusArgs(Message):
    type: Str | None


class ConnectGetMaxVcpusRet(Message):
    max_vcpus: I32


class NodeGetInfoRet(Message):
    model: Annotated[bytes, Chars(32, exact=True)]
    memory: U64
    cpus: I32
    mhz: I32
    nodes: I32
    sockets: I32
    cores: I32
    threads: I32


class ConnectGetCapabilitiesRet(Message):
    capabilities: Str


class ConnectListDefinedDomainsArgs(Message):
    maxnames: I32


class ConnectListDefinedDomainsRet(Message):
    names: Annotated[Sequence[Str], Max(16_384)]


class ConnectNumOfDefinedDomainsRet(Message):
    num: I32


class ConnectListDomainsArgs(Message):
    maxids: I32


class ConnectListDomainsRet(Message):
    ids: Annotated[Sequence[I32], Max(16_384)]


class ConnectNumOfDomainsRet(Message):
    num: I32


class ConnectGetHostnameRet(Message):
    hostname: Str


class ConnectSupportsFeatureArgs(Message):
    feature: I32


class ConnectSupportsFeatureRet(Message):
    supported: I32


class AuthListRet(Message):
    types: Annotated[Sequence[I32], Max(20)]


class AuthSaslInitRet(Message):
    mechlist: Str


class AuthSaslStartArgs(Message):
    mech: Str
    nil: I32
    data: Annotated[bytes, Chars(65_536)]


class AuthSaslStartRet(Message):
    complete: I32
    nil: I32
    data: Annotated[bytes, Chars(65_536)]


class AuthSaslStepArgs(Message):
    nil: I32
    data: Annotated[bytes, Chars(65_536)]


class AuthSaslStepRet(Message):
    complete: I32
    nil: I32
    data: Annotated[bytes, Chars(65_536)]


class AuthPolkitRet(Message):
    complete: I32


class NodeGetCellsFreeMemoryArgs(Message):
    startCell: I32
    maxcells: I32


class NodeGetCellsFreeMemoryRet(Message):
    cells: Annotated[Sequence[U64], Max(1_024)]


class NodeGetFreeMemoryRet(Message):
    freeMem: U64


class ConnectGetUriRet(Message):
    uri: Str


class NodeGetSecurityModelRet(Message):
    model: Annotated[bytes, Chars(257)]
    doi: Annotated[bytes, Chars(257)]


class ConnectDomainXmlFromNativeArgs(Message):
    nativeFormat: Str
    nativeConfig: Str
    flags: U32


class ConnectDomainXmlFromNativeRet(Message):
    domainXml: Str


class ConnectDomainXmlToNativeArgs(Message):
    nativeFormat: Str
    domainXml: Str
    flags: U32


class ConnectDomainXmlToNativeRet(Message):
    nativeConfig: Str


class ConnectIsSecureRet(Message):
    secure: I32


class ConnectGetLibVersionRet(Message):
    lib_ver: U64


class ConnectCompareCpuArgs(Message):
    xml: Str
    flags: U32


class ConnectCompareCpuRet(Message):
    result: I32


class ConnectBaselineCpuArgs(Message):
    xmlCPUs: Annotated[Sequence[Str], Max(256)]
    flags: U32


class ConnectBaselineCpuRet(Message):
    cpu: Str


class ConnectGetSysinfoArgs(Message):
    flags: U32


class ConnectGetSysinfoRet(Message):
    sysinfo: Str


class NodeGetCpuStatsArgs(Message):
    cpuNum: I32
    nparams: I32
    flags: U32


class NodeGetCpuStatsRet(Message):
    params: Annotated[Sequence[KeyValue64], Max(16)]
    nparams: I32


class NodeGetMemoryStatsArgs(Message):
    nparams: I32
    cellNum: I32
    flags: U32


class NodeGetMemoryStatsRet(Message):
    params: Annotated[Sequence[KeyValue64], Max(16)]
    nparams: I32


class NodeSuspendForDurationArgs(Message):
    target: U32
    duration: U64
    flags: U32


class ConnectListAllDomainsArgs(Message):
    need_results: I32
    flags: U32


class ConnectListAllDomainsRet(Message):
    domains: Annotated[Sequence[Dom], Max(16_384)]
    ret: U32


class NodeSetMemoryParametersArgs(Message):
    params: Annotated[Sequence[TypedParam], Max(64)]
    flags: U32


class NodeGetMemoryParametersArgs(Message):
    nparams: I32
    flags: U32


class NodeGetMemoryParametersRet(Message):
    params: Annotated[Sequence[TypedParam], Max(64)]
    nparams: I32


class NodeGetCpuMapArgs(Message):
    need_map: I32
    need_online: I32
    flags: U32


class NodeGetCpuMapRet(Message):
    cpumap: CpuMap
    online: U32
    ret: I32


class ConnectGetCpuModelNamesArgs(Message):
    arch: Str
    need_results: I32
    flags: U32


class ConnectGetCpuModelNamesRet(Message):
    models: Annotated[Sequence[Str], Max(8_192)]
    ret: I32


class NodeGetFreePagesArgs(Message):
    pages: Annotated[Sequence[U32], Max(1_024)]
    startCell: I32
    cellCount: U32
    flags: U32


class NodeGetFreePagesRet(Message):
    counts: Annotated[Sequence[U64], Max(1_024)]


class ConnectGetDomainCapabilitiesArgs(Message):
    emulatorbin: Str | None
    arch: Str | None
    machine: Str | None
    virttype: Str | None
    flags: U32


class ConnectGetDomainCapabilitiesRet(Message):
    capabilities: Str


class ConnectGetAllDomainStatsArgs(Message):
    doms: Annotated[Sequence[Dom], Max(16_384)]
    stats: U32
    flags: U32


class ConnectGetAllDomainStatsRet(Message):
    retStats: Annotated[Sequence[StatsRecord], Max(16_384)]


class NodeAllocPagesArgs(Message):
    pageSizes: Annotated[Sequence[U32], Max(1_024)]
    pageCounts: Annotated[Sequence[U64], Max(1_024)]
    startCell: I32
    cellCount: U32
    flags: U32


class NodeAllocPagesRet(Message):
    ret: I32


class ConnectCompareHypervisorCpuArgs(Message):
    emulator: Str | None
    arch: Str | None
    machine: Str | None
    virttype: Str | None
    xmlCPU: Str
    flags: U32


class ConnectCompareHypervisorCpuRet(Message):
    result: I32


class ConnectBaselineHypervisorCpuArgs(Message):
    emulator: Str | None
    arch: Str | None
    machine: Str | None
    virttype: Str | None
    xmlCPUs: Annotated[Sequence[Str], Max(256)]
    flags: U32


class ConnectBaselineHypervisorCpuRet(Message):
    cpu: Str


class NodeGetSevInfoArgs(Message):
    nparams: I32
    flags: U32


class NodeGetSevInfoRet(Message):
    params: Annotated[Sequence[TypedParam], Max(64)]
    nparams: I32


class ConnectSetIdentityArgs(Message):
    params: Annotated[Sequence[TypedParam], Max(20)]
    flags: U32
