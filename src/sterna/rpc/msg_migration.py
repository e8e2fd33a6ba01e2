"""Messages of migration, all versions of the protocol.

Flags are 64 bits wide in the forms without typed parameters and 32 bits in the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.rpc.msg_common import Cookie, Dom, TypedParam
from sterna.xdr.message import Message
from sterna.xdr.wire import I32, U32, U64, Max, Str


class DomainMigratePrepareArgs(Message):
    uri_in: Str | None
    flags: U64
    dname: Str | None
    resource: U64


class DomainMigratePrepareRet(Message):
    cookie: Cookie
    uri_out: Str | None


class DomainMigratePerformArgs(Message):
    dom: Dom
    cookie: Cookie
    uri: Str
    flags: U64
    dname: Str | None
    resource: U64


class DomainMigrateFinishArgs(Message):
    dname: Str
    cookie: Cookie
    uri: Str
    flags: U64


class DomainMigrateFinishRet(Message):
    ddom: Dom


class DomainMigratePrepare2Args(Message):
    uri_in: Str | None
    flags: U64
    dname: Str | None
    resource: U64
    dom_xml: Str


class DomainMigratePrepare2Ret(Message):
    cookie: Cookie
    uri_out: Str | None


class DomainMigrateFinish2Args(Message):
    dname: Str
    cookie: Cookie
    uri: Str
    flags: U64
    retcode: I32


class DomainMigrateFinish2Ret(Message):
    ddom: Dom


class DomainMigratePrepareTunnelArgs(Message):
    flags: U64
    dname: Str | None
    resource: U64
    dom_xml: Str


class DomainMigrateSetMaxDowntimeArgs(Message):
    dom: Dom
    downtime: U64
    flags: U32


class DomainMigrateSetMaxSpeedArgs(Message):
    dom: Dom
    bandwidth: U64
    flags: U32


class DomainMigrateBegin3Args(Message):
    dom: Dom
    xmlin: Str | None
    flags: U64
    dname: Str | None
    resource: U64


class DomainMigrateBegin3Ret(Message):
    cookie_out: Cookie
    xml: Str


class DomainMigratePrepare3Args(Message):
    cookie_in: Cookie
    uri_in: Str | None
    flags: U64
    dname: Str | None
    resource: U64
    dom_xml: Str


class DomainMigratePrepare3Ret(Message):
    cookie_out: Cookie
    uri_out: Str | None


class DomainMigratePrepareTunnel3Args(Message):
    cookie_in: Cookie
    flags: U64
    dname: Str | None
    resource: U64
    dom_xml: Str


class DomainMigratePrepareTunnel3Ret(Message):
    cookie_out: Cookie


class DomainMigratePerform3Args(Message):
    dom: Dom
    xmlin: Str | None
    cookie_in: Cookie
    dconnuri: Str | None
    uri: Str | None
    flags: U64
    dname: Str | None
    resource: U64


class DomainMigratePerform3Ret(Message):
    cookie_out: Cookie


class DomainMigrateFinish3Args(Message):
    dname: Str
    cookie_in: Cookie
    dconnuri: Str | None
    uri: Str | None
    flags: U64
    cancelled: I32


class DomainMigrateFinish3Ret(Message):
    dom: Dom
    cookie_out: Cookie


class DomainMigrateConfirm3Args(Message):
    dom: Dom
    cookie_in: Cookie
    flags: U64
    cancelled: I32


class DomainMigrateGetMaxSpeedArgs(Message):
    dom: Dom
    flags: U32


class DomainMigrateGetMaxSpeedRet(Message):
    bandwidth: U64


class DomainMigrateGetCompressionCacheArgs(Message):
    dom: Dom
    flags: U32


class DomainMigrateGetCompressionCacheRet(Message):
    cacheSize: U64


class DomainMigrateSetCompressionCacheArgs(Message):
    dom: Dom
    cacheSize: U64
    flags: U32


class DomainMigrateBegin3ParamsArgs(Message):
    dom: Dom
    params: Annotated[Sequence[TypedParam], Max(64)]
    flags: U32


class DomainMigrateBegin3ParamsRet(Message):
    cookie_out: Cookie
    xml: Str


class DomainMigratePrepare3ParamsArgs(Message):
    params: Annotated[Sequence[TypedParam], Max(64)]
    cookie_in: Cookie
    flags: U32


class DomainMigratePrepare3ParamsRet(Message):
    cookie_out: Cookie
    uri_out: Str | None


class DomainMigratePrepareTunnel3ParamsArgs(Message):
    params: Annotated[Sequence[TypedParam], Max(64)]
    cookie_in: Cookie
    flags: U32


class DomainMigratePrepareTunnel3ParamsRet(Message):
    cookie_out: Cookie


class DomainMigratePerform3ParamsArgs(Message):
    dom: Dom
    dconnuri: Str | None
    params: Annotated[Sequence[TypedParam], Max(64)]
    cookie_in: Cookie
    flags: U32


class DomainMigratePerform3ParamsRet(Message):
    cookie_out: Cookie


class DomainMigrateFinish3ParamsArgs(Message):
    params: Annotated[Sequence[TypedParam], Max(64)]
    cookie_in: Cookie
    flags: U32
    cancelled: I32


class DomainMigrateFinish3ParamsRet(Message):
    dom: Dom
    cookie_out: Cookie


class DomainMigrateConfirm3ParamsArgs(Message):
    dom: Dom
    params: Annotated[Sequence[TypedParam], Max(64)]
    cookie_in: Cookie
    flags: U32
    cancelled: I32


class DomainMigrateStartPostCopyArgs(Message):
    dom: Dom
    flags: U32


class DomainMigrateGetMaxDowntimeArgs(Message):
    dom: Dom
    flags: U32


class DomainMigrateGetMaxDowntimeRet(Message):
    downtime: U64
