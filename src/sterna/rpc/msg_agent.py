"""Messages that a guest agent or firmware inside the guest answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.rpc.msg_common import Dom, DomainInterface, FsInfo, TypedParam
from sterna.xdr.message import Message
from sterna.xdr.wire import I32, I64, U32, U64, Max, Str


class DomainGetHostnameArgs(Message):
    dom: Dom
    flags: U32


class DomainGetHostnameRet(Message):
    hostname: Str


class DomainFstrimArgs(Message):
    dom: Dom
    mountPoint: Str | None
    minimum: U64
    flags: U32


class DomainSendProcessSignalArgs(Message):
    dom: Dom
    pid_value: I64
    signum: U32
    flags: U32


class DomainFsfreezeArgs(Message):
    dom: Dom
    mountpoints: Annotated[Sequence[Str], Max(256)]
    flags: U32


class DomainFsfreezeRet(Message):
    filesystems: I32


class DomainFsthawArgs(Message):
    dom: Dom
    mountpoints: Annotated[Sequence[Str], Max(256)]
    flags: U32


class DomainFsthawRet(Message):
    filesystems: I32


class DomainGetTimeArgs(Message):
    dom: Dom
    flags: U32


class DomainGetTimeRet(Message):
    seconds: I64
    nseconds: U32


class DomainSetTimeArgs(Message):
    dom: Dom
    seconds: I64
    nseconds: U32
    flags: U32


class DomainGetFsinfoArgs(Message):
    dom: Dom
    flags: U32


class DomainGetFsinfoRet(Message):
    info: Annotated[Sequence[FsInfo], Max(256)]
    ret: U32


class DomainInterfaceAddressesArgs(Message):
    dom: Dom
    source: U32
    flags: U32


class DomainInterfaceAddressesRet(Message):
    ifaces: Annotated[Sequence[DomainInterface], Max(2_048)]


class DomainSetUserPasswordArgs(Message):
    dom: Dom
    user: Str | None
    password: Str | None
    flags: U32


class DomainGetGuestVcpusArgs(Message):
    dom: Dom
    flags: U32


class DomainGetGuestVcpusRet(Message):
    params: Annotated[Sequence[TypedParam], Max(64)]


class DomainSetGuestVcpusArgs(Message):
    dom: Dom
    cpumap: Str
    state: I32
    flags: U32


class DomainGetLaunchSecurityInfoArgs(Message):
    dom: Dom
    flags: U32


class DomainGetLaunchSecurityInfoRet(Message):
    params: Annotated[Sequence[TypedParam], Max(64)]


class DomainGetGuestInfoArgs(Message):
    dom: Dom
    types: U32
    flags: U32


class DomainGetGuestInfoRet(Message):
    params: Annotated[Sequence[TypedParam], Max(2_048)]


class DomainAgentSetResponseTimeoutArgs(Message):
    dom: Dom
    timeout: I32
    flags: U32


class DomainAgentSetResponseTimeoutRet(Message):
    result: I32


class DomainAuthorizedSshKeysGetArgs(Message):
    dom: Dom
    user: Str
    flags: U32


class DomainAuthorizedSshKeysGetRet(Message):
    keys: Annotated[Sequence[Str], Max(2_048)]


class DomainAuthorizedSshKeysSetArgs(Message):
    dom: Dom
    user: Str
    keys: Annotated[Sequence[Str], Max(2_048)]
    flags: U32


class DomainSetLaunchSecurityStateArgs(Message):
    dom: Dom
    params: Annotated[Sequence[TypedParam], Max(64)]
    flags: U32
