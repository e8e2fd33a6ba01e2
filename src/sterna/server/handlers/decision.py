"""Sterna's own program, between hosts: what was decided about a migration."""

from __future__ import annotations

import logging
from uuid import UUID

from sterna.errors import OperationInvalid
from sterna.rpc.msg_decision import MigrationDecideArgs, MigrationDecideRet
from sterna.server.dispatch import handles
from sterna.server.logging import event
from sterna.server.peers import NUMBERS
from sterna.server.session import Session

log = logging.getLogger(__name__)


@handles("MIGRATION_DECIDE", early=True)
async def migration_decide(session: Session, args: MigrationDecideArgs) -> MigrationDecideRet:
    """Answer, and decide by that if nothing was decided (L4)."""
    context = session.context
    meant = UUID(bytes=args.destination)
    if meant != context.host_uuid:
        # Whoever answers here by mistake would say "aborted" of a guest that runs elsewhere. (L1)
        raise OperationInvalid(f"this is host {context.host_uuid}, not {meant}")
    migration, guest = UUID(bytes=args.migration), UUID(bytes=args.guest)
    event(
        log,
        "decision.asked",
        mig=migration,
        guest=guest,
        by=UUID(bytes=args.source),
        name=args.source_name,
    )
    decided = await context.migrations.decide(str(migration), guest)
    return MigrationDecideRet(NUMBERS[decided.verdict], decided.epoch, decided.hostname)
