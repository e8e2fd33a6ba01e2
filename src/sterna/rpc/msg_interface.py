"""Messages about the host's network interfaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.rpc.msg_common import Iface
from sterna.xdr.message import Message
from sterna.xdr.wire import I32, U32, Max, Str


class ConnectNumOfInterfacesRet(Message):
    num: I32


class ConnectListInterfacesArgs(Message):
    maxnames: I32


class ConnectListInterfacesRet(Message):
    names: Annotated[Sequence[Str], Max(16_384)]


class InterfaceLookupByNameArgs(Message):
    name: Str


class InterfaceLookupByNameRet(Message):
    iface: Iface


class InterfaceLookupByMacStringArgs(Message):
    mac: Str


class InterfaceLookupByMacStringRet(Message):
    iface: Iface


class InterfaceGetXmlDescArgs(Message):
    iface: Iface
    flags: U32


class InterfaceGetXmlDescRet(Message):
    xml: Str


class InterfaceDefineXmlArgs(Message):
    xml: Str
    flags: U32


class InterfaceDefineXmlRet(Message):
    iface: Iface


class InterfaceUndefineArgs(Message):
    iface: Iface


class InterfaceCreateArgs(Message):
    iface: Iface
    flags: U32


class InterfaceDestroyArgs(Message):
    iface: Iface
    flags: U32


class ConnectNumOfDefinedInterfacesRet(Message):
    num: I32


class ConnectListDefinedInterfacesArgs(Message):
    maxnames: I32


class ConnectListDefinedInterfacesRet(Message):
    names: Annotated[Sequence[Str], Max(16_384)]


class InterfaceIsActiveArgs(Message):
    iface: Iface


class InterfaceIsActiveRet(Message):
    active: I32


class InterfaceChangeBeginArgs(Message):
    flags: U32


class InterfaceChangeCommitArgs(Message):
    flags: U32


class InterfaceChangeRollbackArgs(Message):
    flags: U32


class ConnectListAllInterfacesArgs(Message):
    need_results: I32
    flags: U32


class ConnectListAllInterfacesRet(Message):
    ifaces: Annotated[Sequence[Iface], Max(16_384)]
    ret: U32
