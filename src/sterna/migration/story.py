"""What is kept of a migration when it is over, for people: `sterna history` tells it. (L8)"""

from __future__ import annotations

import logging
from typing import Any, Final
from uuid import UUID

from sterna.guest.jobstats import JobStats
from sterna.migration.core.words import Failure
from sterna.store.errors import StoreFailed
from sterna.store.ports import Store

OUT: Final = "migrated away"
IN: Final = "migrated here"

log = logging.getLogger("sterna.migration")


def story(
    migration: str,
    name: str,
    *,
    succeeded: bool,
    other: str,
    failure: Failure | None,
    phases: list[tuple[str, int]],
    stats: JobStats | None,
) -> dict[str, Any]:
    """One migration as one side saw it.

    `other` is the other host's name, if it said one; `phases` has each one's name and when it
    began, in ms since the first.
    """
    numbers = {} if stats is None else {key: value for key, value in stats.params() if value}
    return {
        "name": name,
        "migration": migration,
        "succeeded": succeeded,
        "host": other,
        "why": "" if succeeded or failure is None else failure.text,
        "phases": phases,
        "stats": numbers,
    }


async def keep(store: Store, guest: UUID, kind: str, told: dict[str, Any]) -> None:
    """Write it down; a full disk loses a story, and nothing else."""
    try:
        await store.add_history(guest, kind, told)
    except StoreFailed as exc:
        log.warning("migration.story_lost mig=%s error=%r", told["migration"], str(exc))
