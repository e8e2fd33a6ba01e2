"""A store in memory: the fake that passes the same contract test as the real one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sterna.store.errors import StoreFailed
from sterna.store.ports import (
    Decision,
    HistoryEntry,
    JsonRecord,
    MadeImage,
    Ownership,
    StoredDefinition,
    Verdict,
)


class PlannedFailure(StoreFailed):
    """What a test asked for; a closed store fails otherwise."""


class MemoryStore:
    """`sterna.store.ports.Store` without a disk. `fail_next` makes the next writes fail."""

    def __init__(self) -> None:
        self._meta: dict[str, str] = {}
        self._definitions: dict[UUID, StoredDefinition] = {}
        self._lives: dict[UUID, str] = {}
        self._decisions: dict[str, Decision] = {}
        self._ownerships: dict[UUID, Ownership] = {}
        self._made_images: dict[str, MadeImage] = {}
        self._history: list[HistoryEntry] = []
        self._closed = False
        self.fail_next = 0

    async def meta(self) -> dict[str, str]:
        return dict(self._meta)

    async def set_meta(self, key: str, value: str) -> None:
        self._writing()
        self._meta[key] = value

    async def definitions(self) -> Sequence[StoredDefinition]:
        return sorted(self._definitions.values(), key=lambda d: d.name)

    async def put_definition(self, definition: StoredDefinition) -> None:
        self._writing()
        self._keep(definition)

    async def delete_definition(self, uuid: UUID) -> None:
        self._writing()
        self._definitions.pop(uuid, None)

    async def lives(self) -> dict[UUID, dict[str, Any]]:
        return {uuid: json.loads(text) for uuid, text in self._lives.items()}

    async def put_live(self, uuid: UUID, record: JsonRecord) -> None:
        self._writing()
        self._lives[uuid] = json.dumps(record)

    def post_live(self, uuid: UUID, record: JsonRecord) -> None:
        with contextlib.suppress(PlannedFailure):
            self._writing()
            self._lives[uuid] = json.dumps(record)

    async def delete_live(self, uuid: UUID) -> None:
        self._writing()
        self._lives.pop(uuid, None)

    async def decide(
        self,
        migration: str,
        verdict: Verdict,
        uuid: UUID,
        owner: Ownership | None = None,
        *,
        definition: StoredDefinition | None = None,
    ) -> Decision:
        self._writing()
        if migration not in self._decisions:
            if owner is not None:
                self._ownerships[owner.uuid] = owner
            if definition is not None:
                self._keep(definition)
        return self._decisions.setdefault(migration, Decision(migration, verdict, uuid, 0.0))

    async def decision(self, migration: str) -> Decision | None:
        return self._decisions.get(migration)

    async def ownerships(self) -> Sequence[Ownership]:
        return list(self._ownerships.values())

    async def put_ownership(self, ownership: Ownership) -> None:
        self._writing()
        self._ownerships[ownership.uuid] = ownership

    async def made_images(self) -> Sequence[MadeImage]:
        return [self._made_images[path] for path in sorted(self._made_images)]

    async def put_made_image(self, image: MadeImage) -> None:
        self._writing()
        self._made_images[image.path] = image

    async def forget_made_image(self, path: str) -> None:
        self._writing()
        self._made_images.pop(path, None)

    async def add_history(self, uuid: UUID, kind: str, detail: JsonRecord) -> None:
        self._writing()
        self._history.append(HistoryEntry(0.0, uuid, kind, dict(detail)))

    async def history(self, uuid: UUID | None = None, limit: int = 100) -> Sequence[HistoryEntry]:
        return [h for h in reversed(self._history) if uuid in (None, h.uuid)][:limit]

    async def close(self) -> None:
        self._closed = True

    def _keep(self, definition: StoredDefinition) -> None:
        for other in [d for d in self._definitions.values() if d.name == definition.name]:
            del self._definitions[other.uuid]
        self._definitions[definition.uuid] = definition

    def _writing(self) -> None:
        if self._closed:
            raise StoreFailed("the store is closed")
        if self.fail_next:
            self.fail_next -= 1
            raise PlannedFailure("a planned failure")
