"""A guest's memory written to a file on the host."""

from __future__ import annotations

from sterna.guest.dump import DumpFlags, dump
from sterna.rpc.msg_domain import DomainCoreDumpArgs, DomainCoreDumpWithFormatArgs
from sterna.server.dispatch import check_flags, handles
from sterna.server.handlers.lifecycle import absolute
from sterna.server.objects import find
from sterna.server.session import Session

ALL_DUMP_FLAGS = 31


@handles("DOMAIN_CORE_DUMP")
async def domain_core_dump(session: Session, args: DomainCoreDumpArgs) -> None:
    check_flags(args.flags, ALL_DUMP_FLAGS, "qemuDomainCoreDump")
    path = absolute(args.to, "virDomainCoreDump")
    api = "remoteDispatchDomainCoreDump"
    await dump(find(session, args.dom), path, DumpFlags(args.flags), api=api)


@handles("DOMAIN_CORE_DUMP_WITH_FORMAT")
async def domain_core_dump_with_format(
    session: Session, args: DomainCoreDumpWithFormatArgs
) -> None:
    check_flags(args.flags, ALL_DUMP_FLAGS, "qemuDomainCoreDumpWithFormat")
    path = absolute(args.to, "virDomainCoreDumpWithFormat")
    await dump(find(session, args.dom), path, DumpFlags(args.flags), format=args.dumpformat)
