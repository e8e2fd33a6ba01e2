"""Exit statuses of `sterna`, the one place that names them."""

from __future__ import annotations

from enum import IntEnum

from sterna.errors import NoDomain, SternaError


class Exit(IntEnum):
    """What the exit status of a command means."""

    OK = 0
    FAILED = 1
    """The operation failed; the message says what the state is now."""
    USAGE = 2
    """The command line is wrong."""
    NO_CONNECTION = 3
    """The daemon could not be reached, or the connection was lost."""
    NO_GUEST = 4
    """There is no such guest."""
    MIGRATION_FAILED = 5
    """The migration failed or was aborted; the guest is where it was."""
    IN_DOUBT = 6
    """It is not known where the guest runs; the message says whom to ask."""
    INTERRUPTED = 130
    """Ctrl-C."""


def exit_for(error: SternaError) -> Exit:
    """The status for an error that ends a command."""
    return Exit.NO_GUEST if isinstance(error, NoDomain) else Exit.FAILED
