"""A guest in doubt, for people: what is known of it, and what may be done.

The design is in docs/explanation/asking.md.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final
from uuid import UUID

from sterna.errors import InvalidArg, OperationFailed, OperationInvalid
from sterna.migration.core.source_state import Phase
from sterna.migration.doubtful import Doubtful
from sterna.migration.ownership import Owners
from sterna.migration.peers import NoAnswer

ASK, TAKE_BACK, GIVE_UP = "ask", "take-back", "give-up"
ACTIONS: Final = (ASK, TAKE_BACK, GIVE_UP)
SETTLED_S: Final = 20.0
"""How long a reconciling call waits until what was decided is done; `cont` is retried for 10 s."""

RISKS: Final = {
    TAKE_BACK: "if it does run there, it will run twice, and two writers destroy its disks",
    GIVE_UP: "if it does not run there, what it had in memory is lost",
}


def in_doubt(outgoing: Doubtful) -> bool:
    return outgoing.state.phase is Phase.IN_DOUBT and outgoing.doubt is not None


def in_words(outgoing: Doubtful) -> str:
    """One sentence: since when, whom it waits for, when it asks next."""
    known, state = outgoing.doubt, outgoing.state
    there = outgoing.hostname or "another host"
    since = f" since {_clock(known.since_ms)}" if known is not None else ""
    text = f"in doubt{since}: domain '{state.guest}' was sent to another host ({there})"
    text += ", and nobody has said whether it runs there"
    if not state.asks:
        return f"{text}; that host cannot be asked, so look there: 'sterna reconcile' helps"
    if known is not None and known.why:
        text += f": {known.why}"
    when = f"at {_clock(known.next_ms)}" if known is not None and known.next_ms else "now"
    held = "cannot be started here" if state.gone else "is held paused here"
    return f"{text}; it {held} and is asked about {when}"


def evidence(outgoing: Doubtful) -> dict[str, Any]:
    """What this host knows; times are ms since the epoch, None where there was none.

    Whoever may only read sees it too: so not the migration's id, with which the destination could
    be asked, and by that the migration ended.
    """
    known, question = outgoing.doubt, outgoing.question
    return {
        "in_doubt": in_doubt(outgoing),
        "guest": outgoing.state.guest,
        "summary": in_words(outgoing) if in_doubt(outgoing) else outgoing.state.phase.value,
        "here": {
            "phase": outgoing.state.phase.value,
            "cpus": _cpus(outgoing),
            "memory": "sent completely" if outgoing.sent else "here",
            "shall_run": outgoing.state.shall_run,
            "since": known.since_ms if known is not None else None,
        },
        "there": {
            "host": outgoing.hostname,
            "host_uuid": str(question.host) if question is not None else None,
            "places": list(question.places) if question is not None else [],
            "can_be_asked": outgoing.state.asks,
            "asked": known.asked_ms or None if known is not None else None,
            "next": known.next_ms or None if known is not None else None,
            "answer": known.why if known is not None else "",
        },
        "risks": dict(RISKS),
    }


async def reconcile(outgoing: Doubtful, action: str, *, force: bool) -> dict[str, Any]:
    """Ask, and if nobody answers do what a person says, who must mean it.

    Raises: InvalidArg (8): no such action; OperationInvalid (55): not in doubt;
        OperationFailed (9): nobody answered, and it was not forced.
    """
    if action not in ACTIONS:
        raise InvalidArg(f"action must be one of {', '.join(ACTIONS)}, not '{action}'")
    if not in_doubt(outgoing):
        raise OperationInvalid(f"domain '{outgoing.state.guest}' is not in doubt")
    if outgoing.state.asks:
        await outgoing.ask_now()
    by = "the destination's word"
    if in_doubt(outgoing):
        if action == ASK:
            return {"settled": False, "by": "", **evidence(outgoing)}
        if not force:
            text = f"{in_words(outgoing)}. To {action} unproven wants force: {RISKS[action]}"
            raise OperationFailed(text)
        await outgoing.force(taken_back=action == TAKE_BACK)
        by = "force"
    # What is decided is being done; whoever asked wants to see it done.
    await asyncio.wait([outgoing.over], timeout=SETTLED_S)
    runs = "there" if outgoing.handed_over else "here"
    return {"settled": True, "by": by, "runs": runs, **evidence(outgoing)}


def given_away(owners: Owners, guest: UUID, name: str) -> dict[str, Any] | None:
    """Whose a guest is that this host gave away; None if it is ours, or in doubt."""
    known = owners.away(guest)
    if known is None or known.holder != "elsewhere":
        return None
    there = known.detail.get("question") or {}
    host = there.get("hostname") or "another host"
    return {
        "in_doubt": False,
        "given_away": True,
        "guest": name,
        "summary": f"was handed over to {host}",
        "there": {
            "host": host,
            "host_uuid": there.get("host"),
            "places": there.get("places", []),
            "epoch": known.epoch,
        },
        "risks": {TAKE_BACK: RISKS[TAKE_BACK]},
    }


async def take_back(owners: Owners, guest: UUID, name: str, *, force: bool) -> dict[str, Any]:
    """Have a guest again that was handed over: by the holder's word, or if nobody answers by force.

    Raises: OperationInvalid (55): it runs there; OperationFailed (9): nobody answered, and it was
        not forced; StoreFailed.
    """
    by = "the holder's word"
    try:
        await owners.claim(guest, name)
    except OperationInvalid as exc:
        if not isinstance(exc.__cause__, NoAnswer):
            raise
        if not force:
            text = f"{exc.detail}. To take it back unproven wants force: {RISKS[TAKE_BACK]}"
            raise OperationFailed(text) from exc
        await owners.take(guest)
        by = "force"
    return {"in_doubt": False, "settled": True, "by": by, "runs": "here", "guest": name}


def _cpus(outgoing: Doubtful) -> str:
    if outgoing.state.gone:
        return "gone with its QEMU"
    return "stopped" if outgoing.state.stopped else "running"


def _clock(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))
