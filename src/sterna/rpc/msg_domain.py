"""Messages about domains: looking up, defining, starting and stopping, saving, states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.rpc.msg_common import Dom, SecLabel, TypedParam
from sterna.xdr.message import Message
from sterna.xdr.wire import I32, U8, U16, U32, U64, Chars, Max, Str, Uuid


class DomainCreateArgs(Message):
    dom: Dom


class DomainCreateXmlArgs(Message):
    xml_desc: Str
    flags: U32


class DomainCreateXmlRet(Message):
    dom: Dom


class DomainDefineXmlArgs(Message):
    xml: Str


class DomainDefineXmlRet(Message):
    dom: Dom


class DomainDestroyArgs(Message):
    dom: Dom


class DomainGetXmlDescArgs(Message):
    dom: Dom
    flags: U32


class DomainGetXmlDescRet(Message):
    xml: Str


class DomainGetAutostartArgs(Message):
    dom: Dom


class DomainGetAutostartRet(Message):
    autostart: I32


class DomainGetInfoArgs(Message):
    dom: Dom


class DomainGetInfoRet(Message):
    state: U8
    maxMem: U64
    memory: U64
    nrVirtCpu: U16
    cpuTime: U64


class DomainGetOsTypeArgs(Message):
    dom: Dom


class DomainGetOsTypeRet(Message):
    type: Str


class DomainLookupByIdArgs(Message):
    id: I32


class DomainLookupByIdRet(Message):
    dom: Dom


class DomainLookupByNameArgs(Message):
    name: Str


class DomainLookupByNameRet(Message):
    dom: Dom


class DomainLookupByUuidArgs(Message):
    uuid: Uuid


class DomainLookupByUuidRet(Message):
    dom: Dom


class DomainRebootArgs(Message):
    dom: Dom
    flags: U32


class DomainResumeArgs(Message):
    dom: Dom


class DomainSetAutostartArgs(Message):
    dom: Dom
    autostart: I32


class DomainShutdownArgs(Message):
    dom: Dom


class DomainSuspendArgs(Message):
    dom: Dom


class DomainUndefineArgs(Message):
    dom: Dom


class DomainCoreDumpArgs(Message):
    dom: Dom
    to: Str
    flags: U32


class DomainRestoreArgs(Message):
    from_: Str


class DomainSaveArgs(Message):
    dom: Dom
    to: Str


class DomainGetSecurityLabelArgs(Message):
    dom: Dom


class DomainGetSecurityLabelRet(Message):
    label: Annotated[bytes, Chars(4_097)]
    enforcing: I32


class DomainIsActiveArgs(Message):
    dom: Dom


class DomainIsActiveRet(Message):
    active: I32


class DomainIsPersistentArgs(Message):
    dom: Dom


class DomainIsPersistentRet(Message):
    persistent: I32


class DomainGetJobInfoArgs(Message):
    dom: Dom


class DomainGetJobInfoRet(Message):
    type: I32
    timeElapsed: U64
    timeRemaining: U64
    dataTotal: U64
    dataProcessed: U64
    dataRemaining: U64
    memTotal: U64
    memProcessed: U64
    memRemaining: U64
    fileTotal: U64
    fileProcessed: U64
    fileRemaining: U64


class DomainAbortJobArgs(Message):
    dom: Dom


class DomainManagedSaveArgs(Message):
    dom: Dom
    flags: U32


class DomainHasManagedSaveImageArgs(Message):
    dom: Dom
    flags: U32


class DomainHasManagedSaveImageRet(Message):
    result: I32


class DomainManagedSaveRemoveArgs(Message):
    dom: Dom
    flags: U32


class DomainCreateWithFlagsArgs(Message):
    dom: Dom
    flags: U32


class DomainCreateWithFlagsRet(Message):
    dom: Dom


class DomainIsUpdatedArgs(Message):
    dom: Dom


class DomainIsUpdatedRet(Message):
    updated: I32


class DomainInjectNmiArgs(Message):
    dom: Dom
    flags: U32


class DomainGetStateArgs(Message):
    dom: Dom
    flags: U32


class DomainGetStateRet(Message):
    state: I32
    reason: I32


class DomainGetControlInfoArgs(Message):
    dom: Dom
    flags: U32


class DomainGetControlInfoRet(Message):
    state: U32
    details: U32
    stateTime: U64


class DomainUndefineFlagsArgs(Message):
    dom: Dom
    flags: U32


class DomainSaveFlagsArgs(Message):
    dom: Dom
    to: Str
    dxml: Str | None
    flags: U32


class DomainRestoreFlagsArgs(Message):
    from_: Str
    dxml: Str | None
    flags: U32


class DomainDestroyFlagsArgs(Message):
    dom: Dom
    flags: U32


class DomainSaveImageGetXmlDescArgs(Message):
    file: Str
    flags: U32


class DomainSaveImageGetXmlDescRet(Message):
    xml: Str


class DomainSaveImageDefineXmlArgs(Message):
    file: Str
    dxml: Str
    flags: U32


class DomainResetArgs(Message):
    dom: Dom
    flags: U32


class DomainShutdownFlagsArgs(Message):
    dom: Dom
    flags: U32


class DomainPmSuspendForDurationArgs(Message):
    dom: Dom
    target: U32
    duration: U64
    flags: U32


class DomainPmWakeupArgs(Message):
    dom: Dom
    flags: U32


class DomainGetSecurityLabelListArgs(Message):
    dom: Dom


class DomainGetSecurityLabelListRet(Message):
    labels: Annotated[Sequence[SecLabel], Max(64)]
    ret: I32


class DomainGetJobStatsArgs(Message):
    dom: Dom
    flags: U32


class DomainGetJobStatsRet(Message):
    type: I32
    params: Annotated[Sequence[TypedParam], Max(64)]


class DomainCreateXmlWithFilesArgs(Message):
    xml_desc: Str
    flags: U32


class DomainCreateXmlWithFilesRet(Message):
    dom: Dom


class DomainCreateWithFilesArgs(Message):
    dom: Dom
    flags: U32


class DomainCreateWithFilesRet(Message):
    dom: Dom


class DomainCoreDumpWithFormatArgs(Message):
    dom: Dom
    to: Str
    dumpformat: U32
    flags: U32


class DomainDefineXmlFlagsArgs(Message):
    xml: Str
    flags: U32


class DomainDefineXmlFlagsRet(Message):
    dom: Dom


class DomainRenameArgs(Message):
    dom: Dom
    new_name: Str | None
    flags: U32


class DomainRenameRet(Message):
    retcode: I32


class DomainManagedSaveGetXmlDescArgs(Message):
    dom: Dom
    flags: U32


class DomainManagedSaveGetXmlDescRet(Message):
    xml: Str


class DomainManagedSaveDefineXmlArgs(Message):
    dom: Dom
    dxml: Str | None
    flags: U32


class DomainSetLifecycleActionArgs(Message):
    dom: Dom
    type: U32
    action: U32
    flags: U32


class DomainGetMessagesArgs(Message):
    dom: Dom
    flags: U32


class DomainGetMessagesRet(Message):
    msgs: Annotated[Sequence[Str], Max(2_048)]


class DomainSaveParamsArgs(Message):
    dom: Dom
    params: Annotated[Sequence[TypedParam], Max(64)]
    flags: U32


class DomainRestoreParamsArgs(Message):
    params: Annotated[Sequence[TypedParam], Max(64)]
    flags: U32


class DomainAbortJobFlagsArgs(Message):
    dom: Dom
    flags: U32


class DomainGetAutostartOnceArgs(Message):
    dom: Dom


class DomainGetAutostartOnceRet(Message):
    autostart: I32


class DomainSetAutostartOnceArgs(Message):
    dom: Dom
    autostart: I32
