"""`sterna`: parses the command line, connects, runs one command, and says what went wrong."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence

import sterna
from sterna.cli.command import Argument, Command, Context
from sterna.cli.exits import Exit, exit_for
from sterna.cli.output import print_error
from sterna.cli.registry import COMMANDS
from sterna.client.api import connect
from sterna.client.errors import ConnectionFailed
from sterna.errors import SternaError

EPILOG = """\
exit status:
  0 done   1 failed   2 wrong command line   3 no connection   4 no such guest
  5 migration failed, the guest is where it was   6 not known where the guest runs
  130 interrupted

environment:
  STERNA_URI   the host to talk to when -c is not given
"""

# What commands of two words have in common.
GROUPS = {"pki": "make and install certificates for hosts"}

# Every command takes these, after its name, so that `sterna list --json` reads naturally.
COMMON = (
    Argument(
        ("-c", "--connect"),
        "host to talk to: a connection URI, a socket, or a daemon's root directory",
        {"metavar": "URI", "default": None},
        completes="file",
    ),
    Argument(("--json",), "print JSON", {"action": "store_true"}),
)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, from the registry."""
    parser = argparse.ArgumentParser(
        prog="sterna",
        description="Manages QEMU guests on a host and moves them, running, between hosts.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sterna {sterna.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    groups: dict[str, argparse._SubParsersAction[argparse.ArgumentParser]] = {}
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group and group not in groups:
            made = commands.add_parser(group, help=GROUPS[group], description=GROUPS[group])
            groups[group] = made.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
        sub = (groups[group] if group else commands).add_parser(
            name,
            help=command.help,
            description=command.description,
            epilog=f"example:\n  {command.example}" if command.example else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for argument in (*command.arguments, *COMMON):
            sub.add_argument(*argument.names, help=argument.help, **argument.options)
        sub.set_defaults(definition=command)
    return parser


async def run_command(command: Command, args: argparse.Namespace) -> int:
    """Connects if the command wants a host, and runs it."""
    if not command.needs_host:
        return await command.run(Context(args, None))
    async with connect(args.connect) as host:
        return await command.run(Context(args, host))


def main(argv: Sequence[str] | None = None) -> int:
    """The program. Never shows a traceback for what a user can meet."""
    args = build_parser().parse_args(argv)
    try:
        status = asyncio.run(run_command(args.definition, args))
        sys.stdout.flush()
    except ConnectionFailed as error:
        print_error(str(error))
        return Exit.NO_CONNECTION
    except SternaError as error:
        print_error(str(error))
        return exit_for(error)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of our pipe has had enough (`sterna list | head -1`): nothing is wrong, but
        # the interpreter must not complain about it on its own way out.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except OSError as error:
        print_error(str(error))
        return Exit.FAILED
    return status


if __name__ == "__main__":
    sys.exit(main())
