"""`sternad` that kills itself at one moment of an incoming migration.

Run as a file: ``python dying_daemon.py MOMENT python -m sterna.server OPTIONS``, the daemon's own
command after the moment, so that `support.daemon.Daemon` takes it as a prefix.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn
from uuid import UUID

from sterna.guest.launcher import QemuLauncher
from sterna.qemu.guardian import Guardian
from sterna.server.main import main
from sterna.store.db import SqliteStore
from sterna.store.ports import Decision, Ownership, StoredDefinition, Verdict


def die(*_args: Any) -> NoReturn:
    """As `kill -9` would; nothing of ours runs after it."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("alive")


def _spawned() -> None:
    """QEMU was started; the guardian knows only that it would be."""
    Guardian.arm = die  # type: ignore[method-assign,assignment]  # the fault to be injected


def _undecided() -> None:
    """Finish is about to decide."""
    SqliteStore.decide = die  # type: ignore[method-assign,assignment]  # the fault to be injected


def _committed() -> None:
    """`committed` is on disk; QEMU was told nothing."""
    decide = SqliteStore.decide

    async def once(
        self: SqliteStore,
        migration: str,
        verdict: Verdict,
        uuid: UUID,
        owner: Ownership | None = None,
        *,
        definition: StoredDefinition | None = None,
    ) -> Decision:
        await decide(self, migration, verdict, uuid, owner, definition=definition)
        die()

    SqliteStore.decide = once  # type: ignore[method-assign]  # the fault to be injected


def _running() -> None:
    """The CPUs run; nobody was told, the guardian neither."""
    QemuLauncher.release = die  # type: ignore[method-assign,assignment]  # the fault to be injected


MOMENTS: Final[dict[str, Callable[[], None]]] = {
    "spawned": _spawned,
    "undecided": _undecided,
    "committed": _committed,
    "running": _running,
}

if __name__ == "__main__":
    moment, _python, _dash_m, _module, *arguments = sys.argv[1:]
    MOMENTS[moment]()
    sys.exit(main(arguments))
