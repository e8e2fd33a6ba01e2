"""Events, and the calls that ask for them.

The callback forms carry the id that the registration was answered with; the older forms do not.
Note the places where `reason` stands before `dom`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.rpc.msg_common import (
    Dom,
    GraphicsAddress,
    GraphicsIdentity,
    Net,
    NodeDev,
    Pool,
    Secret,
    TypedParam,
)
from sterna.xdr.message import Message
from sterna.xdr.wire import I32, I64, U32, U64, Max, Str


class ConnectDomainEventRegisterRet(Message):
    cb_registered: I32


class ConnectDomainEventDeregisterRet(Message):
    cb_registered: I32


class DomainEventLifecycleMsg(Message):
    dom: Dom
    event: I32
    detail: I32


class ConnectDomainEventRegisterAnyArgs(Message):
    eventID: I32


class ConnectDomainEventDeregisterAnyArgs(Message):
    eventID: I32


class DomainEventRebootMsg(Message):
    dom: Dom


class DomainEventRtcChangeMsg(Message):
    dom: Dom
    offset: I64


class DomainEventWatchdogMsg(Message):
    dom: Dom
    action: I32


class DomainEventIoErrorMsg(Message):
    dom: Dom
    srcPath: Str
    devAlias: Str
    action: I32


class DomainEventGraphicsMsg(Message):
    dom: Dom
    phase: I32
    local: GraphicsAddress
    remote: GraphicsAddress
    authScheme: Str
    subject: Annotated[Sequence[GraphicsIdentity], Max(20)]


class DomainEventIoErrorReasonMsg(Message):
    dom: Dom
    srcPath: Str
    devAlias: Str
    action: I32
    reason: Str


class DomainEventControlErrorMsg(Message):
    dom: Dom


class DomainEventBlockJobMsg(Message):
    dom: Dom
    path: Str
    type: I32
    status: I32


class DomainEventDiskChangeMsg(Message):
    dom: Dom
    oldSrcPath: Str | None
    newSrcPath: Str | None
    devAlias: Str
    reason: I32


class DomainEventTrayChangeMsg(Message):
    dom: Dom
    devAlias: Str
    reason: I32


class DomainEventPmwakeupMsg(Message):
    dom: Dom


class DomainEventPmsuspendMsg(Message):
    dom: Dom


class DomainEventBalloonChangeMsg(Message):
    dom: Dom
    actual: U64


class DomainEventPmsuspendDiskMsg(Message):
    dom: Dom


class DomainEventDeviceRemovedMsg(Message):
    dom: Dom
    devAlias: Str


class ConnectNetworkEventRegisterAnyArgs(Message):
    eventID: I32
    net: Net | None


class ConnectNetworkEventRegisterAnyRet(Message):
    callbackID: I32


class ConnectNetworkEventDeregisterAnyArgs(Message):
    callbackID: I32


class NetworkEventLifecycleMsg(Message):
    callbackID: I32
    net: Net
    event: I32
    detail: I32


class ConnectDomainEventCallbackRegisterAnyArgs(Message):
    eventID: I32
    dom: Dom | None


class ConnectDomainEventCallbackRegisterAnyRet(Message):
    callbackID: I32


class ConnectDomainEventCallbackDeregisterAnyArgs(Message):
    callbackID: I32


class DomainEventCallbackLifecycleMsg(Message):
    callbackID: I32
    dom: Dom
    event: I32
    detail: I32


class DomainEventCallbackRebootMsg(Message):
    callbackID: I32
    dom: Dom


class DomainEventCallbackRtcChangeMsg(Message):
    callbackID: I32
    dom: Dom
    offset: I64


class DomainEventCallbackWatchdogMsg(Message):
    callbackID: I32
    dom: Dom
    action: I32


class DomainEventCallbackIoErrorMsg(Message):
    callbackID: I32
    dom: Dom
    srcPath: Str
    devAlias: Str
    action: I32


class DomainEventCallbackGraphicsMsg(Message):
    callbackID: I32
    dom: Dom
    phase: I32
    local: GraphicsAddress
    remote: GraphicsAddress
    authScheme: Str
    subject: Annotated[Sequence[GraphicsIdentity], Max(20)]


class DomainEventCallbackIoErrorReasonMsg(Message):
    callbackID: I32
    dom: Dom
    srcPath: Str
    devAlias: Str
    action: I32
    reason: Str


class DomainEventCallbackControlErrorMsg(Message):
    callbackID: I32
    dom: Dom


class DomainEventCallbackBlockJobMsg(Message):
    callbackID: I32
    dom: Dom
    path: Str
    type: I32
    status: I32


class DomainEventCallbackDiskChangeMsg(Message):
    callbackID: I32
    dom: Dom
    oldSrcPath: Str | None
    newSrcPath: Str | None
    devAlias: Str
    reason: I32


class DomainEventCallbackTrayChangeMsg(Message):
    callbackID: I32
    dom: Dom
    devAlias: Str
    reason: I32


class DomainEventCallbackPmwakeupMsg(Message):
    callbackID: I32
    reason: I32
    dom: Dom


class DomainEventCallbackPmsuspendMsg(Message):
    callbackID: I32
    reason: I32
    dom: Dom


class DomainEventCallbackBalloonChangeMsg(Message):
    callbackID: I32
    dom: Dom
    actual: U64


class DomainEventCallbackPmsuspendDiskMsg(Message):
    callbackID: I32
    reason: I32
    dom: Dom


class DomainEventCallbackDeviceRemovedMsg(Message):
    callbackID: I32
    dom: Dom
    devAlias: Str


class DomainEventBlockJob2Msg(Message):
    callbackID: I32
    dom: Dom
    dst: Str
    type: I32
    status: I32


class DomainEventCallbackTunableMsg(Message):
    callbackID: I32
    dom: Dom
    params: Annotated[Sequence[TypedParam], Max(2_048)]


class DomainEventCallbackAgentLifecycleMsg(Message):
    callbackID: I32
    dom: Dom
    state: I32
    reason: I32


class DomainEventCallbackDeviceAddedMsg(Message):
    callbackID: I32
    dom: Dom
    devAlias: Str


class DomainEventCallbackMigrationIterationMsg(Message):
    callbackID: I32
    dom: Dom
    iteration: I32


class ConnectEventConnectionClosedMsg(Message):
    reason: I32


class DomainEventCallbackJobCompletedMsg(Message):
    callbackID: I32
    dom: Dom
    params: Annotated[Sequence[TypedParam], Max(64)]


class DomainEventCallbackDeviceRemovalFailedMsg(Message):
    callbackID: I32
    dom: Dom
    devAlias: Str


class ConnectStoragePoolEventRegisterAnyArgs(Message):
    eventID: I32
    pool: Pool | None


class ConnectStoragePoolEventRegisterAnyRet(Message):
    callbackID: I32


class ConnectStoragePoolEventDeregisterAnyArgs(Message):
    callbackID: I32


class StoragePoolEventLifecycleMsg(Message):
    callbackID: I32
    pool: Pool
    event: I32
    detail: I32


class StoragePoolEventRefreshMsg(Message):
    callbackID: I32
    pool: Pool


class ConnectNodeDeviceEventRegisterAnyArgs(Message):
    eventID: I32
    dev: NodeDev | None


class ConnectNodeDeviceEventRegisterAnyRet(Message):
    callbackID: I32


class ConnectNodeDeviceEventDeregisterAnyArgs(Message):
    callbackID: I32


class NodeDeviceEventLifecycleMsg(Message):
    callbackID: I32
    dev: NodeDev
    event: I32
    detail: I32


class NodeDeviceEventUpdateMsg(Message):
    callbackID: I32
    dev: NodeDev


class DomainEventCallbackMetadataChangeMsg(Message):
    callbackID: I32
    dom: Dom
    type: I32
    nsuri: Str | None


class ConnectSecretEventRegisterAnyArgs(Message):
    eventID: I32
    secret: Secret | None


class ConnectSecretEventRegisterAnyRet(Message):
    callbackID: I32


class ConnectSecretEventDeregisterAnyArgs(Message):
    callbackID: I32


class SecretEventLifecycleMsg(Message):
    callbackID: I32
    secret: Secret
    event: I32
    detail: I32


class SecretEventValueChangedMsg(Message):
    callbackID: I32
    secret: Secret


class DomainEventBlockThresholdMsg(Message):
    callbackID: I32
    dom: Dom
    dev: Str
    path: Str | None
    threshold: U64
    excess: U64


class DomainEventMemoryFailureMsg(Message):
    callbackID: I32
    dom: Dom
    recipient: I32
    action: I32
    flags: U32


class DomainEventMemoryDeviceSizeChangeMsg(Message):
    callbackID: I32
    dom: Dom
    alias: Str
    size: U64


class NetworkEventCallbackMetadataChangeMsg(Message):
    callbackID: I32
    net: Net
    type: I32
    nsuri: Str | None


class DomainEventNicMacChangeMsg(Message):
    callbackID: I32
    dom: Dom
    alias: Str
    oldMAC: Str
    newMAC: Str
