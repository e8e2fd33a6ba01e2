"""Migration: the five phases in both forms of their calls, and what is asked beside them."""

from __future__ import annotations

from typing import Any, Final

from sterna.migration.answers import Finished
from sterna.migration.params import Request, from_plain, from_typed
from sterna.migration.service import Migrations
from sterna.rpc.asyncio_shell import Call
from sterna.rpc.enums import MigrateFlag
from sterna.rpc.msg_common import Dom
from sterna.rpc.msg_migration import (
    DomainMigrateBegin3Args,
    DomainMigrateBegin3ParamsArgs,
    DomainMigrateBegin3ParamsRet,
    DomainMigrateBegin3Ret,
    DomainMigrateConfirm3Args,
    DomainMigrateConfirm3ParamsArgs,
    DomainMigrateFinish3Args,
    DomainMigrateFinish3ParamsArgs,
    DomainMigrateFinish3ParamsRet,
    DomainMigrateFinish3Ret,
    DomainMigrateGetCompressionCacheArgs,
    DomainMigrateGetCompressionCacheRet,
    DomainMigrateGetMaxDowntimeArgs,
    DomainMigrateGetMaxDowntimeRet,
    DomainMigrateGetMaxSpeedArgs,
    DomainMigrateGetMaxSpeedRet,
    DomainMigratePerform3Args,
    DomainMigratePerform3ParamsArgs,
    DomainMigratePerform3ParamsRet,
    DomainMigratePerform3Ret,
    DomainMigratePrepare3Args,
    DomainMigratePrepare3ParamsArgs,
    DomainMigratePrepare3ParamsRet,
    DomainMigratePrepare3Ret,
    DomainMigratePrepareTunnel3ParamsRet,
    DomainMigratePrepareTunnel3Ret,
    DomainMigrateSetCompressionCacheArgs,
    DomainMigrateSetMaxDowntimeArgs,
    DomainMigrateSetMaxSpeedArgs,
    DomainMigrateStartPostCopyArgs,
)
from sterna.server.dispatch import check_flags, handles
from sterna.server.objects import find
from sterna.server.session import Session

SPEED_POSTCOPY: Final = 1
"""Flag of the calls for the speed: that of post-copy."""


def _migrations(session: Session) -> Migrations:
    return session.context.migrations


# -- the form with typed parameters --------------------------------------------------------------


@handles("DOMAIN_MIGRATE_BEGIN3_PARAMS")
async def begin_params(
    session: Session, args: DomainMigrateBegin3ParamsArgs
) -> DomainMigrateBegin3ParamsRet:
    request = from_typed(args.params, flags=args.flags, function="qemuDomainMigrateBegin3Params")
    guest = find(session, args.dom)
    begun = await _migrations(session).source.begin(guest, session.connection, request)
    return DomainMigrateBegin3ParamsRet(cookie_out=begun.cookie, xml=begun.xml)


@handles("DOMAIN_MIGRATE_PREPARE3_PARAMS")
async def prepare_params(
    session: Session, args: DomainMigratePrepare3ParamsArgs
) -> DomainMigratePrepare3ParamsRet:
    function = "qemuDomainMigratePrepare3Params"
    request = from_typed(args.params, flags=args.flags, function=function, at_source=False)
    prepared = await _migrations(session).destination.prepare(
        session.connection, request, request.xml or "", args.cookie_in
    )
    return DomainMigratePrepare3ParamsRet(cookie_out=prepared.cookie, uri_out=prepared.uri_out)


@handles("DOMAIN_MIGRATE_PERFORM3_PARAMS")
async def perform_params(
    session: Session, args: DomainMigratePerform3ParamsArgs
) -> DomainMigratePerform3ParamsRet:
    request = from_typed(args.params, flags=args.flags, function="qemuDomainMigratePerform3Params")
    cookie = await _perform(session, args, request)
    return DomainMigratePerform3ParamsRet(cookie_out=cookie)


@handles("DOMAIN_MIGRATE_FINISH3_PARAMS")
async def finish_params(
    session: Session, args: DomainMigrateFinish3ParamsArgs
) -> DomainMigrateFinish3ParamsRet:
    function = "qemuDomainMigrateFinish3Params"
    request = from_typed(args.params, flags=args.flags, function=function, at_source=False)
    finished = await _finish(session, request, args.cookie_in, cancelled=args.cancelled)
    return DomainMigrateFinish3ParamsRet(dom=_dom(finished), cookie_out=finished.cookie)


@handles("DOMAIN_MIGRATE_CONFIRM3_PARAMS")
async def confirm_params(session: Session, args: DomainMigrateConfirm3ParamsArgs) -> None:
    from_typed(args.params, flags=args.flags, function="qemuDomainMigrateConfirm3Params")
    await _confirm(session, args.dom, args.cookie_in, cancelled=args.cancelled)


# -- the plain form --------------------------------------------------------------------------------


@handles("DOMAIN_MIGRATE_BEGIN3")
async def begin(session: Session, args: DomainMigrateBegin3Args) -> DomainMigrateBegin3Ret:
    request = from_plain(
        flags=args.flags,
        dname=args.dname,
        resource=args.resource,
        xml=args.xmlin,
        function="qemuDomainMigrateBegin3",
    )
    guest = find(session, args.dom)
    begun = await _migrations(session).source.begin(guest, session.connection, request)
    return DomainMigrateBegin3Ret(cookie_out=begun.cookie, xml=begun.xml)


@handles("DOMAIN_MIGRATE_PREPARE3")
async def prepare(session: Session, args: DomainMigratePrepare3Args) -> DomainMigratePrepare3Ret:
    request = from_plain(
        flags=args.flags,
        dname=args.dname,
        resource=args.resource,
        uri=args.uri_in,
        function="qemuDomainMigratePrepare3",
    )
    prepared = await _migrations(session).destination.prepare(
        session.connection, request, args.dom_xml, args.cookie_in
    )
    return DomainMigratePrepare3Ret(cookie_out=prepared.cookie, uri_out=prepared.uri_out)


@handles("DOMAIN_MIGRATE_PERFORM3")
async def perform(session: Session, args: DomainMigratePerform3Args) -> DomainMigratePerform3Ret:
    request = from_plain(
        flags=args.flags,
        dname=args.dname,
        resource=args.resource,
        uri=args.uri,
        xml=args.xmlin,
        function="qemuDomainMigratePerform3",
    )
    cookie = await _perform(session, args, request)
    return DomainMigratePerform3Ret(cookie_out=cookie)


@handles("DOMAIN_MIGRATE_FINISH3")
async def finish(session: Session, args: DomainMigrateFinish3Args) -> DomainMigrateFinish3Ret:
    request = from_plain(
        flags=args.flags,
        dname=args.dname,
        resource=0,
        uri=args.uri,
        function="qemuDomainMigrateFinish3",
    )
    finished = await _finish(session, request, args.cookie_in, cancelled=args.cancelled)
    return DomainMigrateFinish3Ret(dom=_dom(finished), cookie_out=finished.cookie)


@handles("DOMAIN_MIGRATE_CONFIRM3")
async def confirm(session: Session, args: DomainMigrateConfirm3Args) -> None:
    function = "qemuDomainMigrateConfirm3"
    from_plain(flags=args.flags, dname=None, resource=0, function=function)
    await _confirm(session, args.dom, args.cookie_in, cancelled=args.cancelled)


async def _perform(
    session: Session,
    args: DomainMigratePerform3Args | DomainMigratePerform3ParamsArgs,
    request: Request,
) -> bytes:
    """One phase, or all five if this host shall drive them; no cookie comes of that."""
    guest, migrations = find(session, args.dom), _migrations(session)
    if MigrateFlag.PEER2PEER in request.flags:
        await migrations.peer_to_peer.migrate(guest, request, args.dconnuri, args.cookie_in)
        return b""
    return await migrations.source.perform(guest, session.connection, request, args.cookie_in)


async def _finish(session: Session, request: Request, cookie: bytes, *, cancelled: int) -> Finished:
    return await _migrations(session).destination.finish(
        session.connection, request, cookie, cancelled=bool(cancelled)
    )


async def _confirm(session: Session, dom: Dom, cookie: bytes, *, cancelled: int) -> None:
    guest = find(session, dom)
    await _migrations(session).source.confirm(
        guest, session.connection, cookie, cancelled=bool(cancelled)
    )


def _dom(finished: Finished) -> Dom:
    return Dom(finished.name, finished.uuid.bytes, finished.id)


# -- through the connection ------------------------------------------------------------------------


@handles("DOMAIN_MIGRATE_PREPARE_TUNNEL3_PARAMS", whole_call=True)
async def prepare_tunnel_params(session: Session, call: Call) -> None:
    args: Any = call.args
    function = "qemuDomainMigratePrepareTunnel3Params"
    request = from_typed(args.params, flags=args.flags, function=function, at_source=False)
    cookie = await _prepare_tunnel(session, call, request, request.xml or "")
    session.connection.reply(call, DomainMigratePrepareTunnel3ParamsRet(cookie_out=cookie))


@handles("DOMAIN_MIGRATE_PREPARE_TUNNEL3", whole_call=True)
async def prepare_tunnel(session: Session, call: Call) -> None:
    args: Any = call.args
    request = from_plain(
        flags=args.flags,
        dname=args.dname,
        resource=args.resource,
        function="qemuDomainMigratePrepareTunnel3",
    )
    cookie = await _prepare_tunnel(session, call, request, args.dom_xml)
    session.connection.reply(call, DomainMigratePrepareTunnel3Ret(cookie_out=cookie))


async def _prepare_tunnel(session: Session, call: Call, request: Request, xml: str) -> bytes:
    """The stream is open before the guest is launched, so that its end is never missed."""
    args: Any = call.args
    stream = session.connection.open_stream(call)
    prepared = await _migrations(session).destination.prepare(
        session.connection, request, xml, args.cookie_in, download=stream
    )
    return prepared.cookie


# -- beside ----------------------------------------------------------------------------------------


@handles("DOMAIN_MIGRATE_SET_MAX_DOWNTIME")
async def set_max_downtime(session: Session, args: DomainMigrateSetMaxDowntimeArgs) -> None:
    check_flags(args.flags, 0, "qemuDomainMigrateSetMaxDowntime")
    await _migrations(session).source.controls.set_max_downtime(
        find(session, args.dom), args.downtime
    )


@handles("DOMAIN_MIGRATE_GET_MAX_DOWNTIME")
async def get_max_downtime(
    session: Session, args: DomainMigrateGetMaxDowntimeArgs
) -> DomainMigrateGetMaxDowntimeRet:
    check_flags(args.flags, 0, "qemuDomainMigrateGetMaxDowntime")
    downtime_ms = await _migrations(session).source.controls.max_downtime(find(session, args.dom))
    return DomainMigrateGetMaxDowntimeRet(downtime=downtime_ms)


@handles("DOMAIN_MIGRATE_START_POST_COPY")
async def start_post_copy(session: Session, args: DomainMigrateStartPostCopyArgs) -> None:
    check_flags(args.flags, 0, "qemuDomainMigrateStartPostCopy")
    await _migrations(session).source.start_postcopy(find(session, args.dom))


@handles("DOMAIN_MIGRATE_SET_MAX_SPEED")
async def set_max_speed(session: Session, args: DomainMigrateSetMaxSpeedArgs) -> None:
    check_flags(args.flags, SPEED_POSTCOPY, "qemuDomainMigrateSetMaxSpeed")
    guest, controls = find(session, args.dom), _migrations(session).source.controls
    if args.flags & SPEED_POSTCOPY:
        await controls.set_max_postcopy_speed(guest, args.bandwidth)
    else:
        await controls.set_max_speed(guest, args.bandwidth)


@handles("DOMAIN_MIGRATE_GET_MAX_SPEED")
async def get_max_speed(
    session: Session, args: DomainMigrateGetMaxSpeedArgs
) -> DomainMigrateGetMaxSpeedRet:
    check_flags(args.flags, SPEED_POSTCOPY, "qemuDomainMigrateGetMaxSpeed")
    guest, controls = find(session, args.dom), _migrations(session).source.controls
    if args.flags & SPEED_POSTCOPY:
        return DomainMigrateGetMaxSpeedRet(bandwidth=await controls.max_postcopy_speed(guest))
    mib = controls.max_speed(guest)
    return DomainMigrateGetMaxSpeedRet(bandwidth=mib)


@handles("DOMAIN_MIGRATE_SET_COMPRESSION_CACHE")
async def set_compression_cache(
    session: Session, args: DomainMigrateSetCompressionCacheArgs
) -> None:
    check_flags(args.flags, 0, "qemuDomainMigrateSetCompressionCache")
    await _migrations(session).source.controls.set_compression_cache(
        find(session, args.dom), args.cacheSize
    )


@handles("DOMAIN_MIGRATE_GET_COMPRESSION_CACHE")
async def get_compression_cache(
    session: Session, args: DomainMigrateGetCompressionCacheArgs
) -> DomainMigrateGetCompressionCacheRet:
    check_flags(args.flags, 0, "qemuDomainMigrateGetCompressionCache")
    size_bytes = await _migrations(session).source.controls.compression_cache(
        find(session, args.dom)
    )
    return DomainMigrateGetCompressionCacheRet(cacheSize=size_bytes)
