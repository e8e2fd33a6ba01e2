"""Messages about a domain's disks: statistics, jobs, tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.rpc.msg_common import DiskError, Dom, PeekedBytes, TypedParam
from sterna.xdr.message import Message
from sterna.xdr.wire import I32, I64, U32, U64, Max, Str


class DomainBlockStatsArgs(Message):
    dom: Dom
    path: Str


class DomainBlockStatsRet(Message):
    rd_req: I64
    rd_bytes: I64
    wr_req: I64
    wr_bytes: I64
    errs: I64


class DomainBlockPeekArgs(Message):
    dom: Dom
    path: Str
    offset: U64
    size: U32
    flags: U32


class DomainBlockPeekRet(Message):
    buffer: PeekedBytes


class DomainGetBlockInfoArgs(Message):
    dom: Dom
    path: Str
    flags: U32


class DomainGetBlockInfoRet(Message):
    allocation: U64
    capacity: U64
    physical: U64


class DomainBlockJobAbortArgs(Message):
    dom: Dom
    path: Str
    flags: U32


class DomainGetBlockJobInfoArgs(Message):
    dom: Dom
    path: Str
    flags: U32


class DomainGetBlockJobInfoRet(Message):
    found: I32
    type: I32
    bandwidth: U64
    cur: U64
    end: U64


class DomainBlockJobSetSpeedArgs(Message):
    dom: Dom
    path: Str
    bandwidth: U64
    flags: U32


class DomainBlockPullArgs(Message):
    dom: Dom
    path: Str
    bandwidth: U64
    flags: U32


class DomainBlockStatsFlagsArgs(Message):
    dom: Dom
    path: Str
    nparams: I32
    flags: U32


class DomainBlockStatsFlagsRet(Message):
    params: Annotated[Sequence[TypedParam], Max(16)]
    nparams: I32


class DomainBlockResizeArgs(Message):
    dom: Dom
    disk: Str
    size: U64
    flags: U32


class DomainSetBlockIoTuneArgs(Message):
    dom: Dom
    disk: Str
    params: Annotated[Sequence[TypedParam], Max(32)]
    flags: U32


class DomainGetBlockIoTuneArgs(Message):
    dom: Dom
    disk: Str | None
    nparams: I32
    flags: U32


class DomainGetBlockIoTuneRet(Message):
    params: Annotated[Sequence[TypedParam], Max(32)]
    nparams: I32


class DomainGetDiskErrorsArgs(Message):
    dom: Dom
    maxerrors: U32
    flags: U32


class DomainGetDiskErrorsRet(Message):
    errors: Annotated[Sequence[DiskError], Max(256)]
    nerrors: I32


class DomainBlockRebaseArgs(Message):
    dom: Dom
    path: Str
    base: Str | None
    bandwidth: U64
    flags: U32


class DomainBlockCommitArgs(Message):
    dom: Dom
    disk: Str
    base: Str | None
    top: Str | None
    bandwidth: U64
    flags: U32


class DomainBlockCopyArgs(Message):
    dom: Dom
    path: Str
    destxml: Str
    params: Annotated[Sequence[TypedParam], Max(16)]
    flags: U32


class DomainSetBlockThresholdArgs(Message):
    dom: Dom
    dev: Str
    threshold: U64
    flags: U32
