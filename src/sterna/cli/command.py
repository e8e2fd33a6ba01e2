"""Commands as data: one dataclass each, from which parser, help, completion and docs are made."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from sterna.client.api import Host


@dataclass(frozen=True, slots=True)
class Argument:
    """One option or positional of a command, in argparse's terms.

    Attributes:
        names: ``("guest",)`` for a positional, ``("-f", "--force")`` for an option.
        help: one line.
        options: what else `argparse.ArgumentParser.add_argument` takes.
        completes: what the shell offers here: `guest`, `file` or nothing.
    """

    names: tuple[str, ...]
    help: str
    options: dict[str, Any] = field(default_factory=dict)
    completes: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        run: takes the call's `Context`; its return value is the exit status.
        needs_host: whether it talks to a daemon.
    """

    name: str
    help: str
    description: str
    run: Callable[[Context], Awaitable[int]]
    arguments: tuple[Argument, ...] = ()
    needs_host: bool = True
    example: str = ""


@dataclass(slots=True)
class Context:
    """What a running command may use.

    Attributes:
        host: the connected host; None for commands that need none.
        args: the parsed arguments.
    """

    args: argparse.Namespace
    connected: Host | None

    @property
    def host(self) -> Host:
        """The connected host."""
        if self.connected is None:
            raise RuntimeError("this command was declared without a host")
        return self.connected

    @property
    def json(self) -> bool:
        """Whether the user asked for JSON."""
        return bool(self.args.json)

    @property
    def terminal(self) -> bool:
        """Whether standard output is a terminal: colours and live displays are for people."""
        return sys.stdout.isatty() and not self.json


def guest_argument(help_text: str = "name or UUID of the guest") -> Argument:
    """The positional that most commands begin with."""
    return Argument(("guest",), help_text, {"metavar": "GUEST"}, completes="guest")
