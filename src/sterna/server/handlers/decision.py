"""Sterna's own program, between hosts: what was decided about a migration."""

from __future__ import annotations

import logging
from uuid import UUID

from sterna.errors import OperationInvalid
from sterna.migration.peers import Claim
from sterna.rpc.msg_decision import (
    GuestClaimArgs,
    GuestClaimRet,
    MigrationDecideArgs,
    MigrationDecideRet,
    MigrationRejoinArgs,
    MigrationRejoinRet,
)
from sterna.server.dispatch import handles
from sterna.server.logging import event
from sterna.server.peers import NUMBERS
from sterna.server.session import Session

log = logging.getLogger(__name__)


@handles("MIGRATION_DECIDE", early=True)
async def migration_decide(session: Session, args: MigrationDecideArgs) -> MigrationDecideRet:
    """Answer, and decide by that if nothing was decided (L4)."""
    context = session.context
    refuse_other(session, args.destination)
    migration, guest = UUID(bytes=args.migration), UUID(bytes=args.guest)
    event(
        log,
        "decision.asked",
        mig=migration,
        guest=guest,
        by=UUID(bytes=args.source),
        name=args.source_name,
    )
    decided = await context.migrations.destination.decide(str(migration), guest)
    return MigrationDecideRet(NUMBERS[decided.verdict], decided.epoch, decided.hostname)


@handles("MIGRATION_REJOIN", early=True)
async def migration_rejoin(session: Session, args: MigrationRejoinArgs) -> MigrationRejoinRet:
    """Listen for the rest of a guest in post-copy whose source has lost the connection (I23)."""
    refuse_other(session, args.destination)
    migration, guest = UUID(bytes=args.migration), UUID(bytes=args.guest)
    port = await session.context.migrations.destination.resume(str(migration), guest)
    event(log, "decision.rejoined", mig=migration, guest=guest, name=args.source_name, port=port)
    return MigrationRejoinRet(port)


@handles("GUEST_CLAIM", early=True)
async def guest_claim(session: Session, args: GuestClaimArgs) -> GuestClaimRet:
    """Give a guest back to the host that it came from, unless it is used here (L1)."""
    refuse_other(session, args.holder)
    places = (args.claimer_where,) if args.claimer_where else ()
    claim = Claim(
        str(UUID(bytes=args.migration)),
        UUID(bytes=args.guest),
        args.epoch,
        UUID(bytes=args.claimer),
        places,
    )
    said = await session.context.migrations.custody.release(claim, args.claimer_name)
    event(
        log,
        "decision.claimed",
        mig=claim.migration,
        guest=claim.guest,
        by=claim.host,
        name=args.claimer_name,
        granted=said.granted,
        epoch=said.epoch,
        why=said.why,
    )
    return GuestClaimRet(int(said.granted), said.epoch, said.hostname, said.why)


def refuse_other(session: Session, meant: bytes) -> None:
    """Whoever answers here by mistake would say "aborted" of a guest that runs elsewhere. (L1)

    Raises: OperationInvalid (55).
    """
    if UUID(bytes=meant) != session.context.host_uuid:
        raise OperationInvalid(f"this is host {session.context.host_uuid}, not {UUID(bytes=meant)}")
