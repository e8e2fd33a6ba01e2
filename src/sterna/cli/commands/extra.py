"""`sterna version` and `sterna completion`."""

from __future__ import annotations

import sys

import sterna
from sterna.cli.command import Argument, Command, Context
from sterna.cli.exits import Exit
from sterna.cli.output import print_fields, print_json

SHELLS = ("bash", "zsh", "tcsh")


def version_text(number: int) -> str:
    """`9000000` as `9.0.0`."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


async def run_version(context: Context) -> int:
    """Versions of this program, of the daemon's protocol and of QEMU."""
    versions = await context.host.versions()
    fields = {
        "sterna": sterna.__version__,
        "host": await context.host.hostname(),
        "protocol": version_text(versions["library"]),
        "qemu": version_text(versions["hypervisor"]),
    }
    if context.json:
        print_json(fields)
    else:
        print_fields(fields)
    return Exit.OK


async def run_completion(context: Context) -> int:
    """Prints the completion script, made from the registry."""
    from sterna.cli.completion import completion_script

    sys.stdout.write(completion_script(context.args.shell))
    return Exit.OK


VERSION = Command(
    "version",
    "print versions",
    "Prints the versions of sterna, of the daemon's protocol and of QEMU.",
    run_version,
    example="sterna version",
)
COMPLETION = Command(
    "completion",
    "print a shell's completion script",
    "Prints a script that completes commands, options and guests' names.",
    run_completion,
    (Argument(("shell",), "the shell", {"choices": SHELLS}),),
    needs_host=False,
    example="sterna completion bash > /etc/bash_completion.d/sterna",
)
