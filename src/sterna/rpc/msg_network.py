"""Messages about virtual networks and their ports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.rpc.msg_common import DhcpLease, Net, NetPort, TypedParam
from sterna.xdr.message import Message
from sterna.xdr.wire import I32, U32, Max, Str, Uuid


class ConnectListDefinedNetworksArgs(Message):
    maxnames: I32


class ConnectListDefinedNetworksRet(Message):
    names: Annotated[Sequence[Str], Max(16_384)]


class ConnectListNetworksArgs(Message):
    maxnames: I32


class ConnectListNetworksRet(Message):
    names: Annotated[Sequence[Str], Max(16_384)]


class NetworkCreateArgs(Message):
    net: Net


class NetworkCreateXmlArgs(Message):
    xml: Str


class NetworkCreateXmlRet(Message):
    net: Net


class NetworkDefineXmlArgs(Message):
    xml: Str


class NetworkDefineXmlRet(Message):
    net: Net


class NetworkDestroyArgs(Message):
    net: Net


class NetworkGetXmlDescArgs(Message):
    net: Net
    flags: U32


class NetworkGetXmlDescRet(Message):
    xml: Str


class NetworkGetAutostartArgs(Message):
    net: Net


class NetworkGetAutostartRet(Message):
    autostart: I32


class NetworkGetBridgeNameArgs(Message):
    net: Net


class NetworkGetBridgeNameRet(Message):
    name: Str


class NetworkLookupByNameArgs(Message):
    name: Str


class NetworkLookupByNameRet(Message):
    net: Net


class NetworkLookupByUuidArgs(Message):
    uuid: Uuid


class NetworkLookupByUuidRet(Message):
    net: Net


class NetworkSetAutostartArgs(Message):
    net: Net
    autostart: I32


class NetworkUndefineArgs(Message):
    net: Net


class ConnectNumOfDefinedNetworksRet(Message):
    num: I32


class ConnectNumOfNetworksRet(Message):
    num: I32


class NetworkIsActiveArgs(Message):
    net: Net


class NetworkIsActiveRet(Message):
    active: I32


class NetworkIsPersistentArgs(Message):
    net: Net


class NetworkIsPersistentRet(Message):
    persistent: I32


class ConnectListAllNetworksArgs(Message):
    need_results: I32
    flags: U32


class ConnectListAllNetworksRet(Message):
    nets: Annotated[Sequence[Net], Max(16_384)]
    ret: U32


class NetworkUpdateArgs(Message):
    net: Net
    command: U32
    section: U32
    parentIndex: I32
    xml: Str
    flags: U32


class NetworkGetDhcpLeasesArgs(Message):
    net: Net
    mac: Str | None
    need_results: I32
    flags: U32


class NetworkGetDhcpLeasesRet(Message):
    leases: Annotated[Sequence[DhcpLease], Max(65_536)]
    ret: U32


class NetworkListAllPortsArgs(Message):
    network: Net
    need_results: I32
    flags: U32


class NetworkListAllPortsRet(Message):
    ports: Annotated[Sequence[NetPort], Max(16_384)]
    ret: U32


class NetworkPortLookupByUuidArgs(Message):
    network: Net
    uuid: Uuid


class NetworkPortLookupByUuidRet(Message):
    port: NetPort


class NetworkPortCreateXmlArgs(Message):
    network: Net
    xml: Str
    flags: U32


class NetworkPortCreateXmlRet(Message):
    port: NetPort


class NetworkPortGetParametersArgs(Message):
    port: NetPort
    nparams: I32
    flags: U32


class NetworkPortGetParametersRet(Message):
    params: Annotated[Sequence[TypedParam], Max(16)]
    nparams: I32


class NetworkPortSetParametersArgs(Message):
    port: NetPort
    params: Annotated[Sequence[TypedParam], Max(16)]
    flags: U32


class NetworkPortGetXmlDescArgs(Message):
    port: NetPort
    flags: U32


class NetworkPortGetXmlDescRet(Message):
    xml: Str


class NetworkPortDeleteArgs(Message):
    port: NetPort
    flags: U32


class NetworkDefineXmlFlagsArgs(Message):
    xml: Str
    flags: U32


class NetworkDefineXmlFlagsRet(Message):
    net: Net


class NetworkCreateXmlFlagsArgs(Message):
    xml: Str
    flags: U32


class NetworkCreateXmlFlagsRet(Message):
    net: Net


class NetworkSetMetadataArgs(Message):
    network: Net
    type: I32
    metadata: Str | None
    key: Str | None
    uri: Str | None
    flags: U32


class NetworkGetMetadataArgs(Message):
    network: Net
    type: I32
    uri: Str | None
    flags: U32


class NetworkGetMetadataRet(Message):
    metadata: Str
