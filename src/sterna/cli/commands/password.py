"""`sterna password`: who may come in with a password."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from sterna.cli.command import Argument, Command, Context
from sterna.cli.exits import Exit
from sterna.cli.output import print_error, print_json
from sterna.host.places import Places


async def run_password(context: Context) -> int:
    """Sets, removes or lists; the daemon reads the file at each login."""
    from sterna.host.passwords import Passwords, PasswordsError

    args = context.args
    passwords = Passwords(Places.chosen(args.root).passwords)
    try:
        if args.user is None:
            users = passwords.users()
            if context.json:
                print_json(users)
            else:
                sys.stdout.write("".join(f"{user}\n" for user in users))
        elif args.remove:
            if not passwords.remove(args.user):
                print_error(f"{args.user} has no password here")
                return Exit.FAILED
        else:
            password = asked(args.user)
            if password is None:
                print_error("these are two different passwords")
                return Exit.FAILED
            passwords.set(args.user, password)
    except PasswordsError as error:
        print_error(str(error))
        return Exit.FAILED
    return Exit.OK


def asked(user: str) -> str | None:
    """The password: typed twice at a terminal, else the first line of standard input. None if it
    was typed differently."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass(f"Password for {user}: ")
    return first if getpass.getpass("Again: ") == first else None


PASSWORD = Command(
    "password",
    "set who may come in with a password",
    "Sets a user's password on this machine, for `auth_tls` and `auth_tcp`. It is read from the "
    "terminal, or from standard input; only what verifies it is kept. It counts from the next "
    "login on. Without a user the names are listed.",
    run_password,
    (
        Argument(("user",), "the name to log in with", {"metavar": "USER", "nargs": "?"}),
        Argument(("--remove",), "take the password away", {"action": "store_true"}),
        Argument(
            ("--root",),
            "the root of a daemon that was started with one",
            {"metavar": "DIR", "type": Path, "default": None},
            completes="file",
        ),
    ),
    needs_host=False,
    example="sterna password ann",
)
