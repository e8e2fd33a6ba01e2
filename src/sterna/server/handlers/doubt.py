"""Sterna's own program, for people: a guest of which nobody knows where it runs."""

from __future__ import annotations

import json
import logging
from uuid import UUID

from sterna.errors import OperationInvalid
from sterna.guest.actor import Guest
from sterna.migration import doubt
from sterna.migration.doubtful import Doubtful
from sterna.rpc.msg_story import (
    GuestEvidenceArgs,
    GuestEvidenceRet,
    GuestReconcileArgs,
    GuestReconcileRet,
)
from sterna.server.dispatch import handles
from sterna.server.logging import event
from sterna.server.session import Session

log = logging.getLogger(__name__)


@handles("GUEST_EVIDENCE")
def guest_evidence(session: Session, args: GuestEvidenceArgs) -> GuestEvidenceRet:
    guest = named(session, args.guest)
    outgoing = session.context.migrations.doubtful(guest.uuid)
    if outgoing is not None:
        return GuestEvidenceRet(json.dumps(doubt.evidence(outgoing)))
    known = {"in_doubt": False, "guest": guest.name, "summary": "is not being migrated"}
    owners = session.context.migrations.custody.owners
    given = doubt.given_away(owners, guest.uuid, guest.name)
    return GuestEvidenceRet(json.dumps(given or known))


@handles("GUEST_RECONCILE")
async def guest_reconcile(session: Session, args: GuestReconcileArgs) -> GuestReconcileRet:
    guest = named(session, args.guest)
    force = bool(args.force)
    event(
        log,
        "doubt.reconcile",
        logging.WARNING if force else logging.INFO,
        guest=guest.name,
        action=args.action,
        force=force,
    )
    owners = session.context.migrations.custody.owners
    if args.action == doubt.TAKE_BACK and doubt.given_away(owners, guest.uuid, guest.name):
        back = await doubt.take_back(owners, guest.uuid, guest.name, force=force)
        return GuestReconcileRet(json.dumps(back))
    outgoing = outgoing_in_doubt(session, guest)
    done = await doubt.reconcile(outgoing, args.action, force=force)
    return GuestReconcileRet(json.dumps(done))


def named(session: Session, text: str) -> Guest:
    """A guest by uuid or name. Raises: NoDomain (42)."""
    registry = session.context.registry
    try:
        return registry.lookup_by_uuid(UUID(text), text)
    except ValueError:
        return registry.lookup_by_name(text)


def outgoing_in_doubt(session: Session, guest: Guest) -> Doubtful:
    """Raises: OperationInvalid (55)."""
    outgoing = session.context.migrations.doubtful(guest.uuid)
    if outgoing is None:
        raise OperationInvalid(f"domain '{guest.name}' is not in doubt")
    return outgoing
