"""Messages about network filters and their bindings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.rpc.msg_common import Nwfilter, NwfilterBinding
from sterna.xdr.message import Message
from sterna.xdr.wire import I32, U32, Max, Str, Uuid


class NwfilterLookupByNameArgs(Message):
    name: Str


class NwfilterLookupByNameRet(Message):
    nwfilter: Nwfilter


class NwfilterLookupByUuidArgs(Message):
    uuid: Uuid


class NwfilterLookupByUuidRet(Message):
    nwfilter: Nwfilter


class NwfilterGetXmlDescArgs(Message):
    nwfilter: Nwfilter
    flags: U32


class NwfilterGetXmlDescRet(Message):
    xml: Str


class ConnectNumOfNwfiltersRet(Message):
    num: I32


class ConnectListNwfiltersArgs(Message):
    maxnames: I32


class ConnectListNwfiltersRet(Message):
    names: Annotated[Sequence[Str], Max(16_384)]


class NwfilterDefineXmlArgs(Message):
    xml: Str


class NwfilterDefineXmlRet(Message):
    nwfilter: Nwfilter


class NwfilterUndefineArgs(Message):
    nwfilter: Nwfilter


class ConnectListAllNwfiltersArgs(Message):
    need_results: I32
    flags: U32


class ConnectListAllNwfiltersRet(Message):
    filters: Annotated[Sequence[Nwfilter], Max(16_384)]
    ret: U32


class NwfilterBindingLookupByPortDevArgs(Message):
    name: Str


class NwfilterBindingLookupByPortDevRet(Message):
    nwfilter: NwfilterBinding


class NwfilterBindingGetXmlDescArgs(Message):
    nwfilter: NwfilterBinding
    flags: U32


class NwfilterBindingGetXmlDescRet(Message):
    xml: Str


class NwfilterBindingCreateXmlArgs(Message):
    xml: Str
    flags: U32


class NwfilterBindingCreateXmlRet(Message):
    nwfilter: NwfilterBinding


class NwfilterBindingDeleteArgs(Message):
    nwfilter: NwfilterBinding


class ConnectListAllNwfilterBindingsArgs(Message):
    need_results: I32
    flags: U32


class ConnectListAllNwfilterBindingsRet(Message):
    bindings: Annotated[Sequence[NwfilterBinding], Max(16_384)]
    ret: U32


class NwfilterDefineXmlFlagsArgs(Message):
    xml: Str
    flags: U32


class NwfilterDefineXmlFlagsRet(Message):
    nwfilter: Nwfilter
