"""`sterna migrate` and `sterna watch`: a guest moves, how far it is, and how it ended."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
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
from sterna.client.moving import OnProgress
from sterna.client.types import MigrationResult
from sterna.errors import InvalidArg

METHODS = ("xbzrle", "mt", "zlib", "zstd")
Display = PlainDisplay | JsonDisplay | LiveDisplay


async def run_migrate(context: Context) -> int:
    """Has the source drive the migration, or drives it from here."""
    args = context.args
    guest = context.host.guest(args.guest)
    options = options_from(args)
    if args.direct:
        async with connect(args.destination) as destination:
            return await show(
                context, lambda update: guest.migrate(destination, on_progress=update, **options)
            )
    there = args.destination
    if args.detach:
        try:
            await guest.begin_migration(there, **options)
        except MigrationFailed as error:
            return failed(context, error)
        if context.json:
            print_json({"guest": args.guest, "destination": there, "under_way": True})
        else:
            sys.stdout.write(f"{args.guest} is on its way; `sterna watch {args.guest}` shows it.\n")
        return Exit.OK
    return await show(context, lambda update: guest.migrate(there, on_progress=update, **options))


async def run_watch(context: Context) -> int:
    """Shows a migration that somebody asked for."""
    guest = context.host.guest(context.args.guest)
    return await show(context, guest.watch_migration, aborts=False)


async def show(
    context: Context,
    move: Callable[[OnProgress], Coroutine[Any, Any, MigrationResult]],
    *,
    aborts: bool = True,
) -> int:
    """Its progress, then its result. With `aborts` Ctrl-C ends the migration, else the watching."""
    try:
        with choose_display(context) as display:
            moving = move(display.update)
            result = await (abortable(moving, display) if aborts else moving)
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
    if args.direct and (args.tunnelled or args.detach):
        word = "--tunnelled" if args.tunnelled else "--detach"
        raise InvalidArg(f"{word} needs the source to drive the migration: not with --direct")
    if args.parallel is not None and args.parallel < 0:
        raise InvalidArg("--parallel must be followed by a number of connections, or nothing")
    if args.compress_level is not None and not args.compress:
        raise InvalidArg("--compress-level needs --compress")
    if (args.copy_disks or args.synchronous_writes) and not args.copy_storage:
        word = "--copy-disks" if args.copy_disks else "--synchronous-writes"
        raise InvalidArg(f"{word} needs --copy-storage")
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
        "tunnelled": args.tunnelled,
        "parallel": args.parallel is not None,
        "connections": args.parallel or 0,
        "compression": args.compress or "",
        "compression_level": args.compress_level or 0,
        "zero_copy": args.zero_copy,
        "tls": args.tls,
        "tls_name": args.tls_name or "",
        "offline": args.offline,
        "abort_on_error": args.abort_on_error,
        "listen_address": args.listen_address or "",
        "persistent_xml": read_xml(args.persistent_xml) if args.persistent_xml else "",
        "copy_storage": args.copy_storage or "",
        "copy_disks": tuple(filter(None, (args.copy_disks or "").split(","))),
        "synchronous_writes": args.synchronous_writes,
        "postcopy": args.postcopy,
    }


def choose_display(context: Context) -> Display:
    """Drawn at a terminal, lines in a pipe, JSON lines if asked; nothing with --quiet."""
    if context.json:
        return JsonDisplay()
    if sys.stderr.isatty() and sys.stdout.isatty():
        destination = getattr(context.args, "destination", "…")
        return LiveDisplay(context.args.guest, destination)
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


WAYS = (
    Argument(
        ("--parallel",),
        "send over several connections at once, N of them (default: as QEMU does, 2)",
        {"metavar": "N", "type": int, "nargs": "?", "const": 0},
    ),
    Argument(
        ("--compress",),
        "compress it: xbzrle or mt, with --parallel zlib or zstd",
        {"metavar": "METHOD", "choices": METHODS},
    ),
    Argument(
        ("--compress-level",),
        "how hard mt, zlib or zstd shall try",
        {"metavar": "LEVEL", "type": int},
    ),
    Argument(
        ("--zero-copy",),
        "with --parallel: have the kernel send from the guest's own memory, which is locked",
        {"action": "store_true"},
    ),
    Argument(
        ("--tls",),
        "have QEMU encrypt it, with the hosts' certificates (setting migration_tls_dir)",
        {"action": "store_true"},
    ),
    Argument(
        ("--tls-name",),
        "the name in the destination's certificate, if it is not its host's",
        {"metavar": "NAME"},
    ),
    Argument(
        ("--offline",),
        "move the definition of a guest that does not run; refused if it does",
        {"action": "store_true"},
    ),
    Argument(
        ("--abort-on-error",),
        "end it if the guest meets an I/O error meanwhile",
        {"action": "store_true"},
    ),
    Argument(
        ("--listen-address",),
        "where the destination listens for the memory (default: as it is set up)",
        {"metavar": "ADDR"},
    ),
    Argument(
        ("--persistent-xml",),
        "domain XML to keep at the destination, with --persistent",
        {"metavar": "FILE"},
        "file",
    ),
)

MIGRATE = Command(
    "migrate",
    "move a guest to another host, running",
    "Moves a guest to another host while it runs. The source's daemon connects to the destination "
    "and drives the migration, so that it goes on whatever happens to this program. Ctrl-C aborts "
    "it; the guest then runs on where it was. A guest that does not run moves with its definition, "
    "which is then kept at the destination.",
    run_migrate,
    (
        guest_argument(),
        Argument(
            ("destination",),
            "host to move it to: a connection URI as the source sees it; with --direct as for "
            "--connect",
            {"metavar": "DESTINATION"},
            completes="file",
        ),
        Argument(
            ("--direct",),
            "drive it from here: for a source that cannot reach the destination's daemon",
            {"action": "store_true"},
        ),
        Argument(
            ("--detach",),
            "leave once memory moves; the migration goes on",
            {"action": "store_true"},
        ),
        Argument(
            ("--tunnelled",),
            "send its memory through the connection of the two daemons",
            {"action": "store_true"},
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
            ("--copy-storage",),
            "copy its disks, too: all of each, or with inc what its top image holds",
            {"choices": ("all", "inc"), "nargs": "?", "const": "all"},
        ),
        Argument(
            ("--copy-disks",),
            "the disks to copy, by target (default: all that are only on this host)",
            {"metavar": "VDA,VDB"},
        ),
        Argument(
            ("--synchronous-writes",),
            "its writes to a copied disk end when both hosts have them",
            {"action": "store_true"},
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
        *WAYS,
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

WATCH = Command(
    "watch",
    "show a guest's migration",
    "Shows how far the migration is by which a guest leaves, whoever asked for it, and how it "
    "ends. Ctrl-C ends the watching, not the migration.",
    run_watch,
    (guest_argument(),),
    example="sterna watch web1",
)
