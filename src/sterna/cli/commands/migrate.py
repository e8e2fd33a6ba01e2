"""`sterna migrate`: moves a guest, shows how far it is, and says how it ended."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from sterna.cli.command import Argument, Command, Context, guest_argument
from sterna.cli.commands.guests import read_xml
from sterna.cli.exits import Exit
from sterna.cli.output import print_error, print_json, print_json_line
from sterna.cli.progress import (
    JsonDisplay,
    LiveDisplay,
    PlainDisplay,
    result_fields,
    result_sentence,
)
from sterna.client.api import connect
from sterna.client.errors import MigrationFailed, MigrationInDoubt
from sterna.client.types import MigrationResult
from sterna.errors import InvalidArg

Display = PlainDisplay | JsonDisplay | LiveDisplay


async def run_migrate(context: Context) -> int:
    """Connects to the destination too, and drives the five phases."""
    args = context.args
    guest = context.host.guest(args.guest)
    options = options_from(args)
    async with connect(args.destination) as destination:
        try:
            with choose_display(context) as display:
                moving = guest.migrate(destination, on_progress=display.update, **options)
                result = await abortable(moving, display)
        except MigrationFailed as error:
            return failed(context, error)
        except MigrationInDoubt as error:
            print_error(str(error))
            return Exit.IN_DOUBT
    return await moved(context, result)


def options_from(args: Any) -> dict[str, Any]:
    """The client's options for this command line."""
    if args.bandwidth is not None and args.bandwidth <= 0:
        raise InvalidArg("--bandwidth must be at least 1 MiB/s")
    return {
        "live": not args.offline_memory,
        "persistent": args.persistent,
        "undefine_source": args.undefine_source,
        "paused": args.paused,
        "name": args.name or "",
        "xml": read_xml(args.xml) if args.xml else "",
        "bandwidth_mib_s": args.bandwidth or 0,
        "migrate_uri": args.migrate_uri or "",
        "unsafe": args.unsafe,
        "auto_converge": args.auto_converge,
        "postcopy": args.postcopy,
    }


def choose_display(context: Context) -> Display:
    """Drawn at a terminal, lines in a pipe, JSON lines if asked; nothing with --quiet."""
    if context.json:
        return JsonDisplay()
    if sys.stderr.isatty() and sys.stdout.isatty():
        return LiveDisplay(context.args.guest, context.args.destination)
    return PlainDisplay()


async def abortable(
    moving: Coroutine[Any, Any, MigrationResult], display: Display
) -> MigrationResult:
    """Runs the migration; Ctrl-C and SIGTERM ask it to abort and wait for its answer.

    A second Ctrl-C changes nothing: where the guest is must be known before we leave.
    """
    loop = asyncio.get_running_loop()
    me = asyncio.current_task()

    def abort() -> None:
        display.note("aborting the migration …")
        if me is not None:
            me.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, abort)
    try:
        return await moving
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def failed(context: Context, error: MigrationFailed) -> int:
    """Says what failed and where the guest is (L8)."""
    if context.json:
        print_json_line(
            {
                "error": str(error),
                "phase": error.phase,
                "side": error.side,
                "cause": error.cause,
                "aborted": error.aborted,
                "guest_state": error.guest_state,
            }
        )
    else:
        print_error(str(error))
    return Exit.MIGRATION_FAILED


async def moved(context: Context, result: MigrationResult) -> int:
    """Prints the result."""
    if context.json:
        print_json(result_fields(result))
        return Exit.OK
    sys.stdout.write(result_sentence(result) + "\n")
    for warning in result.warnings:
        print_error(f"warning: {warning}")
    return Exit.OK


MIGRATE = Command(
    "migrate",
    "move a guest to another host, running",
    "Moves a guest to another host while it runs. Ctrl-C aborts the migration; the guest then "
    "runs on where it was.",
    run_migrate,
    (
        guest_argument(),
        Argument(
            ("destination",),
            "host to move it to, as for --connect",
            {"metavar": "DESTINATION"},
            completes="file",
        ),
        Argument(
            ("--persistent",),
            "keep its definition at the destination",
            {"action": "store_true"},
        ),
        Argument(("--undefine-source",), "forget its definition here", {"action": "store_true"}),
        Argument(("--paused",), "leave it paused at the destination", {"action": "store_true"}),
        Argument(("--name",), "its name at the destination", {"metavar": "NAME"}),
        Argument(("--xml",), "domain XML to use at the destination", {"metavar": "FILE"}, "file"),
        Argument(
            ("--bandwidth",),
            "bound of the transfer in MiB/s, kept for the guest's next moves (default: as kept, "
            "at first none)",
            {"metavar": "MIB_PER_S", "type": int},
        ),
        Argument(
            ("--migrate-uri",),
            "where the memory goes, tcp://HOST[:PORT] (default: the destination says)",
            {"metavar": "URI"},
        ),
        Argument(
            ("--unsafe",),
            "skip the checks for disks that the other host may not see",
            {"action": "store_true"},
        ),
        Argument(
            ("--auto-converge",),
            "slow its CPUs down if it rewrites memory faster than it is sent",
            {"action": "store_true"},
        ),
        Argument(
            ("--postcopy",),
            "after one pass let it run there; what it has rewritten since follows",
            {"action": "store_true"},
        ),
        Argument(
            ("--pause-first",),
            "pause it for the whole transfer",
            {"action": "store_true", "dest": "offline_memory"},
        ),
    ),
    example="sterna migrate web1 qemu+tcp://hostb/system --persistent",
)
