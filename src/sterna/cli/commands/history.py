"""`sterna history`: what happened to guests."""

from __future__ import annotations

import sys
import time
from typing import Any

from sterna.cli.command import Argument, Command, Context
from sterna.cli.exits import Exit
from sterna.cli.output import format_bytes, format_ms, print_json, print_table

LIMIT = 20


async def run_history(context: Context) -> int:
    """Tells what happened, newest first."""
    args = context.args
    entries = await context.host.history(args.guest or "", limit=args.limit)
    if context.json:
        print_json(entries)
        return Exit.OK
    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["at"] / 1000)),
            entry["detail"].get("name", entry["guest"]),
            sentence(entry["kind"], entry["detail"]),
        )
        for entry in entries
    ]
    print_table(("WHEN", "GUEST", "WHAT"), rows, terminal=sys.stdout.isatty())
    return Exit.OK


def sentence(kind: str, detail: dict[str, Any]) -> str:
    """One happening in words."""
    if "migration" not in detail:
        return f"{kind}: {detail.get('reason', '')}".removesuffix(": ")
    host = detail["host"]
    direction = f"to {host}" if kind == "migrated away" else f"from {host}"
    if not detail["succeeded"]:
        place = f" {direction}" if host else ""
        return f"migration{place} failed: {detail['why'] or 'given up'}"
    stats = detail["stats"]
    parts = [
        format_ms(stats["time_elapsed"]) if "time_elapsed" in stats else "",
        f"silent for {format_ms(stats['downtime'])}" if "downtime" in stats else "",
        format_bytes(stats["data_processed"]) if "data_processed" in stats else "",
    ]
    told = ", ".join(part for part in parts if part)
    return f"migrated {direction if host else ''}".rstrip() + (f": {told}" if told else "")


HISTORY = Command(
    "history",
    "tell what happened to a guest",
    "Tells what happened to a guest, newest first: every migration, how long it took or why it"
    " failed, and every stop. Without a guest, what happened to all; --json has each phase's time.",
    run_history,
    (
        Argument(
            ("guest",),
            "name or UUID of the guest; all of them without it",
            {"metavar": "GUEST", "nargs": "?"},
            completes="guest",
        ),
        Argument(
            ("--limit",),
            f"how many entries (default {LIMIT})",
            {"type": int, "default": LIMIT, "metavar": "N"},
        ),
    ),
    example="sterna history web1",
)
