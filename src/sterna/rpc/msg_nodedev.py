"""Messages about devices of the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.rpc.msg_common import NodeDev
from sterna.xdr.message import Message
from sterna.xdr.wire import I32, U32, Max, Str


class NodeNumOfDevicesArgs(Message):
    cap: Str | None
    flags: U32


class NodeNumOfDevicesRet(Message):
    num: I32


class NodeListDevicesArgs(Message):
    cap: Str | None
    maxnames: I32
    flags: U32


class NodeListDevicesRet(Message):
    names: Annotated[Sequence[Str], Max(65_536)]


class NodeDeviceLookupByNameArgs(Message):
    name: Str


class NodeDeviceLookupByNameRet(Message):
    dev: NodeDev


class NodeDeviceGetXmlDescArgs(Message):
    name: Str
    flags: U32


class NodeDeviceGetXmlDescRet(Message):
    xml: Str


class NodeDeviceGetParentArgs(Message):
    name: Str


class NodeDeviceGetParentRet(Message):
    parent: Str | None


class NodeDeviceNumOfCapsArgs(Message):
    name: Str


class NodeDeviceNumOfCapsRet(Message):
    num: I32


class NodeDeviceListCapsArgs(Message):
    name: Str
    maxnames: I32


class NodeDeviceListCapsRet(Message):
    names: Annotated[Sequence[Str], Max(65_536)]


class NodeDeviceDettachArgs(Message):
    name: Str


class NodeDeviceReAttachArgs(Message):
    name: Str


class NodeDeviceResetArgs(Message):
    name: Str


class NodeDeviceCreateXmlArgs(Message):
    xml_desc: Str
    flags: U32


class NodeDeviceCreateXmlRet(Message):
    dev: NodeDev


class NodeDeviceDestroyArgs(Message):
    name: Str


class ConnectListAllNodeDevicesArgs(Message):
    need_results: I32
    flags: U32


class ConnectListAllNodeDevicesRet(Message):
    devices: Annotated[Sequence[NodeDev], Max(65_536)]
    ret: U32


class NodeDeviceLookupScsiHostByWwnArgs(Message):
    wwnn: Str
    wwpn: Str
    flags: U32


class NodeDeviceLookupScsiHostByWwnRet(Message):
    dev: NodeDev


class NodeDeviceDetachFlagsArgs(Message):
    name: Str
    driverName: Str | None
    flags: U32


class NodeDeviceDefineXmlArgs(Message):
    xml_desc: Str
    flags: U32


class NodeDeviceDefineXmlRet(Message):
    dev: NodeDev


class NodeDeviceUndefineArgs(Message):
    name: Str
    flags: U32


class NodeDeviceCreateArgs(Message):
    name: Str
    flags: U32


class NodeDeviceGetAutostartArgs(Message):
    name: Str


class NodeDeviceGetAutostartRet(Message):
    autostart: I32


class NodeDeviceSetAutostartArgs(Message):
    name: Str
    autostart: I32


class NodeDeviceIsPersistentArgs(Message):
    name: Str


class NodeDeviceIsPersistentRet(Message):
    persistent: I32


class NodeDeviceIsActiveArgs(Message):
    name: Str


class NodeDeviceIsActiveRet(Message):
    active: I32


class NodeDeviceUpdateArgs(Message):
    name: Str
    xml_desc: Str
    flags: U32
