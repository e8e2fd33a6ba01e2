"""Every command, in the order that `sterna --help` shows."""

from __future__ import annotations

from sterna.cli.command import Command
from sterna.cli.commands import (
    demo,
    extra,
    guests,
    history,
    migrate,
    password,
    pki,
    reconcile,
    watch,
)

COMMANDS: tuple[Command, ...] = (
    guests.LIST,
    guests.SHOW,
    guests.DEFINE,
    guests.UNDEFINE,
    guests.START,
    guests.STOP,
    guests.PAUSE,
    guests.RESUME,
    watch.CONSOLE,
    migrate.MIGRATE,
    migrate.WATCH,
    reconcile.RECONCILE,
    history.HISTORY,
    watch.EVENTS,
    pki.INIT,
    pki.HOST,
    pki.INSTALL,
    pki.SHOW,
    password.PASSWORD,
    extra.VERSION,
    extra.COMPLETION,
    demo.DEMO,
)
