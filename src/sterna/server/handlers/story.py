"""Sterna's own program, for people: what happened to guests."""

from __future__ import annotations

import json
from uuid import UUID

from sterna.rpc.msg_story import (
    HISTORY_ENTRIES_MAX,
    GuestHistoryArgs,
    GuestHistoryRet,
    HistoryRecord,
)
from sterna.server.dispatch import handles
from sterna.server.session import Session
from sterna.store.ports import HistoryEntry


@handles("GUEST_HISTORY")
async def guest_history(session: Session, args: GuestHistoryArgs) -> GuestHistoryRet:
    """Newest first. A guest that is gone is found by the name it had, too."""
    store = session.context.store
    limit = min(args.limit or HISTORY_ENTRIES_MAX, HISTORY_ENTRIES_MAX)
    try:
        uuid = UUID(args.guest)
    except ValueError:
        entries = await store.history(None, HISTORY_ENTRIES_MAX)
        wanted = [e for e in entries if not args.guest or e.detail.get("name") == args.guest]
        return GuestHistoryRet([encode(entry) for entry in wanted[:limit]])
    return GuestHistoryRet([encode(entry) for entry in await store.history(uuid, limit)])


def encode(entry: HistoryEntry) -> HistoryRecord:
    """As it goes over the wire."""
    at_ms = round(entry.at * 1000)
    return HistoryRecord(at_ms, entry.uuid.bytes, entry.kind, json.dumps(entry.detail))
