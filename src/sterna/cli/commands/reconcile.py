"""`sterna reconcile`: a guest of which nobody knows where it runs."""

from __future__ import annotations

import sys
import time
from typing import Any

from sterna.cli.command import Argument, Command, Context, guest_argument
from sterna.cli.exits import Exit
from sterna.cli.output import print_fields, print_json
from sterna.errors import InvalidArg


async def run_reconcile(context: Context) -> int:
    """Asks the destination, and shows what is known on both sides if nobody answers."""
    args = context.args
    if args.take_back and args.give_up:
        raise InvalidArg("--take-back and --give-up exclude each other")
    guest = context.host.guest(args.guest)
    known = await guest.evidence()
    if known["in_doubt"] or (known.get("given_away") and args.take_back):
        action = "take-back" if args.take_back else "give-up" if args.give_up else "ask"
        known = await guest.reconcile(action, force=args.force)
    else:
        known["settled"] = True
    if context.json:
        print_json(known)
    elif known["settled"]:
        sys.stdout.write(settled_sentence(args.guest, known))
    else:
        print_fields(evidence_fields(known))
        sys.stdout.write(advice(args.guest, known))
    return Exit.OK if known["settled"] else Exit.IN_DOUBT


def settled_sentence(name: str, known: dict[str, Any]) -> str:
    """What became of it."""
    if "by" not in known:
        given = known.get("given_away")
        return f"{name} {known['summary']}\n" if given else f"{name} is not in doubt\n"
    where = "this host"
    if known["runs"] == "there":
        where = f"{known['there']['host'] or 'its destination'}, and its copy here has ended"
    return f"{name} belongs to {where}: by {known['by']}\n"


def evidence_fields(known: dict[str, Any]) -> dict[str, str]:
    """Both sides, for people."""
    here, there = known["here"], known["there"]
    return {
        "guest": known["guest"],
        "in doubt since": clock(here["since"]),
        "here": f"CPUs {here['cpus']}, memory {here['memory']}",
        "there": there["host"] or "unknown",
        "asked at": ", ".join(there["places"]) or "cannot be asked: it is not Sterna",
        "last asked": clock(there["asked"]),
        "its answer": there["answer"] or "none",
        "asked next": clock(there["next"]),
    }


def advice(name: str, known: dict[str, Any]) -> str:
    """The safe way, and the others with what they risk."""
    host, risks = known["there"]["host"] or "the destination", known["risks"]
    return (
        f"\nSafe: bring {host} or the network to it back. It is asked until it answers.\n"
        f"Is {host} lost for good, and have you seen to it that it stays off?\n"
        f"  sterna reconcile {name} --take-back --force   runs it here again: "
        f"{risks['take-back']}.\n"
        f"Have you seen it run there?\n"
        f"  sterna reconcile {name} --give-up --force     ends the copy here: "
        f"{risks['give-up']}.\n"
    )


def clock(at_ms: int | None) -> str:
    """Local time."""
    if at_ms is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))


RECONCILE = Command(
    "reconcile",
    "settle a guest in doubt, or have one back",
    "Asks the destination what became of a guest that is in doubt, which the daemon also does by"
    " itself. If nobody answers, shows what both sides know and what may be done. Of a guest that"
    " was handed over it says to whom; with --take-back it is claimed from there.",
    run_reconcile,
    (
        guest_argument(),
        Argument(
            ("--take-back",),
            "run it here again, if the destination cannot have it, or does not use it any more",
            {"action": "store_true"},
        ),
        Argument(
            ("--give-up",),
            "end the copy here, if the destination has it",
            {"action": "store_true"},
        ),
        Argument(
            ("--force",),
            "also if nobody has answered: you know, and answer for it",
            {"action": "store_true"},
        ),
    ),
    example="sterna reconcile web1",
)
