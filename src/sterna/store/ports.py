"""What the rest of Sterna asks of a store, as a port: SQLite in production, memory in tests.

One contract test runs against both, so that a test against the memory store says something about
the real one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from uuid import UUID

Verdict = Literal["committed", "aborted"]
"""What a destination decided about one migration (L4)."""

JsonRecord = Mapping[str, Any]
"""A live guest's status as plain JSON values; the guest package owns the keys."""


@dataclass(frozen=True, slots=True)
class StoredDefinition:
    """A persistent guest's definition: the XML it boots with next time."""

    uuid: UUID
    name: str
    xml: str
    autostart: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about a migration, once and for ever (L4)."""

    migration: str
    verdict: Verdict
    uuid: UUID
    decided_at: float
    """Seconds since the epoch, by this host's clock: for people, never for logic."""


Holder = Literal["here", "leaving", "elsewhere"]


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who has a guest that was ever migrated (L1).

    Attributes:
        epoch: raised by every committed migration; the higher one is right.
        holder: this host; nobody knows, since it is being sent away; or another host.
        detail: plain JSON values; the migration package owns the keys.
    """

    uuid: UUID
    epoch: int
    holder: Holder
    detail: JsonRecord


@dataclass(frozen=True, slots=True)
class MadeImage:
    """An image file that a destination made for a guest that is expected. It stays if that
    migration is committed, and goes with it otherwise.

    Attributes:
        migration, uuid: whose decision that is.
        inode: the file's; 0 until it is known, for at the path may be somebody else's by then.
    """

    path: str
    migration: str
    uuid: UUID
    inode: int = 0


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One finished happening worth remembering: a migration, a crash, an autokill."""

    at: float
    uuid: UUID
    kind: str
    detail: JsonRecord


class Store(Protocol):
    """Durable state of one host.

    A coroutine returns once its write is on disk. Writes of one store are applied in the order they
    were asked for, `post_*` ones included. Errors: `sterna.store.errors`.
    """

    async def meta(self) -> dict[str, str]:
        """All of the host's own values (its uuid…)."""

    async def set_meta(self, key: str, value: str) -> None: ...

    async def definitions(self) -> Sequence[StoredDefinition]:
        """All definitions, by name."""

    async def put_definition(self, definition: StoredDefinition) -> None:
        """Write or replace the definition of its uuid, and whatever else has its name."""

    async def delete_definition(self, uuid: UUID) -> None:
        """Forget it; nothing happens if there is none."""

    async def lives(self) -> dict[UUID, dict[str, Any]]:
        """Status records of all guests that were live when last written."""

    async def put_live(self, uuid: UUID, record: JsonRecord) -> None: ...

    def post_live(self, uuid: UUID, record: JsonRecord) -> None:
        """Queue a status record; a failure is logged, not raised.

        For changes which reality can tell again after a crash (paused or running); what must be on
        disk before the next effect uses `put_live`.
        """

    async def delete_live(self, uuid: UUID) -> None: ...

    async def decide(
        self,
        migration: str,
        verdict: Verdict,
        uuid: UUID,
        owner: Ownership | None = None,
        *,
        definition: StoredDefinition | None = None,
    ) -> Decision:
        """Record a decision durably; returns the one that stands.

        The first decision of a migration stands for ever (L4): a second call changes nothing and
        returns the first. With the first one `owner` and `definition` are written, in the same
        transaction.
        """

    async def decision(self, migration: str) -> Decision | None: ...

    async def ownerships(self) -> Sequence[Ownership]:
        """All that is known of who has which guest."""

    async def put_ownership(self, ownership: Ownership) -> None:
        """Write or replace that of its uuid."""

    async def made_images(self) -> Sequence[MadeImage]:
        """All that were not forgotten yet."""

    async def put_made_image(self, image: MadeImage) -> None:
        """Write or replace that of its path."""

    async def forget_made_image(self, path: str) -> None:
        """It is its guest's for good, or gone."""

    async def add_history(self, uuid: UUID, kind: str, detail: JsonRecord) -> None: ...

    async def history(self, uuid: UUID | None = None, limit: int = 100) -> Sequence[HistoryEntry]:
        """Newest first; of one guest, or of all."""

    async def close(self) -> None:
        """Finish queued writes, then let go of the file."""
