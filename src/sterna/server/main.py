"""`sternad`: read the command line, take the lock, run until told to stop.

Exit codes: 0 stopped as asked, 1 could not start or failed, 2 the command line or the configuration
file cannot be used.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from sterna.host.places import Lock, Places, PlacesError
from sterna.server import logging as daemon_log
from sterna.server.listeners import ListenError
from sterna.server.settings import USAGE_ERROR, Settings, SettingsError, from_command_line

DESCRIPTORS = 65_536
"""Enough for thousands of clients and guests."""

log = logging.getLogger(__name__)


def default_config() -> Path:
    """The configuration file that is read when none is named."""
    if os.geteuid() == 0:
        return Path("/etc/sterna/sternad.toml")
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "sterna" / "sternad.toml"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        settings = load(arguments)
    except SettingsError as error:
        return complain(str(error), USAGE_ERROR)
    daemon_log.set_up(verbose=settings.verbose)
    places = Places.chosen(settings.root)
    try:
        places.make()
        lock = Lock.take(places)
    except PlacesError as error:
        return complain(str(error), 1)
    try:
        return run(settings, places, arguments)
    except ListenError as error:
        return complain(str(error), 1)
    except ExceptionGroup as failures:
        _, others = failures.split(ListenError)
        if others is not None:
            raise
        return complain(str(first_of(failures)), 1)
    finally:
        lock.release()


def load(arguments: Sequence[str]) -> Settings:
    """Settings of a command line; also what SIGHUP reads again.

    A daemon with its own root reads the host's configuration only when it is named.

    Raises:
        SettingsError: as `from_command_line`.
    """
    with_root = any(word == "--root" or word.startswith("--root=") for word in arguments)
    return from_command_line(arguments, None if with_root else default_config())


def run(settings: Settings, places: Places, arguments: Sequence[str]) -> int:
    """Serve until a signal says stop."""
    # Imported here so that --help and a mistyped option answer at once.
    from sterna.server.app import Daemon  # noqa: PLC0415

    raise_descriptor_limit()
    return asyncio.run(Daemon(settings, places, reload=lambda: load(arguments)).run())


def raise_descriptor_limit() -> None:
    """Take as many descriptors as we may: clients and guests each need some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def first_of(failures: ExceptionGroup[Exception]) -> Exception:
    """The first failure of a group, however deep the scopes were that it came through."""
    first = failures.exceptions[0]
    return first_of(first) if isinstance(first, ExceptionGroup) else first


def complain(text: str, code: int) -> int:
    """One sentence for a person."""
    sys.stderr.write(f"sternad: {text}\n")
    return code
