"""The store in one SQLite file: WAL, every commit synced, one thread of its own.

A commit takes 0.3 ms as a rule and some milliseconds at times, so no statement runs on the event
loop. One worker thread also gives the order that `Store` promises, since it takes its work first
in, first out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

from sterna.store.errors import StoreCorrupt, StoreFailed, StoreFull, StoreInUse, StoreTooNew
from sterna.store.ports import (
    Decision,
    HistoryEntry,
    JsonRecord,
    MadeImage,
    Ownership,
    StoredDefinition,
    Verdict,
)
from sterna.store.schema import HISTORY_ROWS_MAX, STEPS

log = logging.getLogger("sterna.store")
T = TypeVar("T")

BUSY_MS: Final = 2_000
"""How long another process may hold the file (a person with the sqlite3 shell) before we say so."""


class SqliteStore:
    """`sterna.store.ports.Store` on disk. Made by `open`."""

    def __init__(self, connection: sqlite3.Connection, worker: ThreadPoolExecutor) -> None:
        self._db = connection
        self._worker = worker
        self._closed = False

    @classmethod
    async def open(cls, path: Path) -> SqliteStore:
        """Open or create the file, and bring its tables to the newest form.

        Raises:
            StoreInUse, StoreCorrupt, StoreTooNew, StoreFull, StoreFailed.
        """
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sterna-store")
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(worker, _guarded, lambda: _open(path))
        except BaseException:
            worker.shutdown(wait=False)
            raise
        return cls(connection, worker)

    async def meta(self) -> dict[str, str]:
        return await self._run(lambda db: dict(db.execute("SELECT key, value FROM meta")))

    async def set_meta(self, key: str, value: str) -> None:
        await self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    async def definitions(self) -> Sequence[StoredDefinition]:
        sql = "SELECT uuid, name, xml, autostart FROM definition ORDER BY name"
        rows = await self._run(lambda db: db.execute(sql).fetchall())
        return [StoredDefinition(UUID(u), name, xml, bool(auto)) for u, name, xml, auto in rows]

    async def put_definition(self, definition: StoredDefinition) -> None:
        await self._write(*_definition_row(definition))

    async def delete_definition(self, uuid: UUID) -> None:
        await self._write("DELETE FROM definition WHERE uuid = ?", (str(uuid),))

    async def lives(self) -> dict[UUID, dict[str, Any]]:
        rows = await self._run(lambda db: db.execute("SELECT uuid, record FROM live").fetchall())
        return {UUID(u): json.loads(record) for u, record in rows}

    async def put_live(self, uuid: UUID, record: JsonRecord) -> None:
        await self._write(*_live_row(uuid, record))

    def post_live(self, uuid: UUID, record: JsonRecord) -> None:
        sql, values = _live_row(uuid, record)
        self._submit(lambda db: _execute(db, sql, values)).add_done_callback(_log_failure)

    async def delete_live(self, uuid: UUID) -> None:
        await self._write("DELETE FROM live WHERE uuid = ?", (str(uuid),))

    async def decide(
        self,
        migration: str,
        verdict: Verdict,
        uuid: UUID,
        owner: Ownership | None = None,
        *,
        definition: StoredDefinition | None = None,
    ) -> Decision:
        values = (migration, verdict, str(uuid), time.time())

        def insert_once(db: sqlite3.Connection) -> Decision:
            with _transaction(db):
                sql = "INSERT OR IGNORE INTO decision VALUES (?, ?, ?, ?)"
                if db.execute(sql, values).rowcount:
                    if owner is not None:
                        _execute(db, *_ownership_row(owner))
                    if definition is not None:
                        _execute(db, *_definition_row(definition))
            standing = _read_decision(db, migration)
            if standing is None:
                # Pair of the write above: what is acted on is what the file says. (L4)
                raise StoreCorrupt(f"the decision on migration {migration} was not kept")
            return standing

        return await self._run(insert_once)

    async def decision(self, migration: str) -> Decision | None:
        return await self._run(lambda db: _read_decision(db, migration))

    async def ownerships(self) -> Sequence[Ownership]:
        sql = "SELECT uuid, epoch, holder, detail FROM ownership"
        rows = await self._run(lambda db: db.execute(sql).fetchall())
        return [Ownership(UUID(u), epoch, who, json.loads(d)) for u, epoch, who, d in rows]

    async def put_ownership(self, ownership: Ownership) -> None:
        await self._write(*_ownership_row(ownership))

    async def made_images(self) -> Sequence[MadeImage]:
        sql = "SELECT path, migration, uuid, inode FROM made_image ORDER BY path"
        rows = await self._run(lambda db: db.execute(sql).fetchall())
        return [MadeImage(path, migration, UUID(u), inode) for path, migration, u, inode in rows]

    async def put_made_image(self, image: MadeImage) -> None:
        values = (image.path, image.migration, str(image.uuid), image.inode)
        await self._write("INSERT OR REPLACE INTO made_image VALUES (?, ?, ?, ?)", values)

    async def forget_made_image(self, path: str) -> None:
        await self._write("DELETE FROM made_image WHERE path = ?", (path,))

    async def add_history(self, uuid: UUID, kind: str, detail: JsonRecord) -> None:
        values = (time.time(), str(uuid), kind, _json(detail))

        def append(db: sqlite3.Connection) -> None:
            with _transaction(db):
                sql = "INSERT INTO history (at, uuid, kind, detail) VALUES (?, ?, ?, ?)"
                last = db.execute(sql, values).lastrowid or 0
                db.execute("DELETE FROM history WHERE id <= ?", (last - HISTORY_ROWS_MAX,))

        await self._run(append)

    async def history(self, uuid: UUID | None = None, limit: int = 100) -> Sequence[HistoryEntry]:
        only = "" if uuid is None else " WHERE uuid = ?"
        values = (limit,) if uuid is None else (str(uuid), limit)
        sql = f"SELECT at, uuid, kind, detail FROM history{only} ORDER BY id DESC LIMIT ?"  # noqa: S608 - `only` is one of two constants
        rows = await self._run(lambda db: db.execute(sql, values).fetchall())
        return [HistoryEntry(at, UUID(u), kind, json.loads(d)) for at, u, kind, d in rows]

    async def close(self) -> None:
        if self._closed:
            return
        closing = self._submit(lambda db: db.close())
        self._closed = True
        await asyncio.wrap_future(closing)
        self._worker.shutdown(wait=False)

    async def _write(self, sql: str, values: Sequence[Any]) -> None:
        await self._run(lambda db: _execute(db, sql, values))

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._submit(work))

    def _submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        if self._closed:
            raise StoreFailed("the store is closed")
        return self._worker.submit(_guarded, lambda: work(self._db))


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000
    )
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # A decision must survive the loss of power before it is acted on. (L4, I13)
        db.execute("PRAGMA synchronous = FULL")
        # One daemon a store: two would each believe they own the host's guests. (L1)
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN IMMEDIATE")
        db.execute("COMMIT")
        _migrate(db, path)
    except BaseException:
        db.close()
        raise
    path.chmod(0o600)
    return db


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(STEPS):
        raise StoreTooNew(f"{path} has version {version}, this Sterna knows up to {len(STEPS)}")
    for number, step in enumerate(STEPS[version:], start=version + 1):
        db.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")


def _execute(db: sqlite3.Connection, sql: str, values: Sequence[Any]) -> None:
    """One statement is one transaction: autocommit, synced before it returns."""
    db.execute(sql, values)


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All that is executed in it, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # A full disk may have ended it already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _read_decision(db: sqlite3.Connection, migration: str) -> Decision | None:
    sql = "SELECT migration, verdict, uuid, decided_at FROM decision WHERE migration = ?"
    row = db.execute(sql, (migration,)).fetchone()
    return None if row is None else Decision(row[0], row[1], UUID(row[2]), row[3])


def _live_row(uuid: UUID, record: JsonRecord) -> tuple[str, tuple[str, str]]:
    return "INSERT OR REPLACE INTO live VALUES (?, ?)", (str(uuid), _json(record))


def _definition_row(d: StoredDefinition) -> tuple[str, Sequence[Any]]:
    # Another one of that name is a deletion that has not reached the disk yet: names are kept apart
    # by the registry.
    sql = "INSERT OR REPLACE INTO definition VALUES (?, ?, ?, ?)"
    return sql, (str(d.uuid), d.name, d.xml, int(d.autostart))


def _ownership_row(owner: Ownership) -> tuple[str, tuple[str, int, str, str]]:
    values = (str(owner.uuid), owner.epoch, owner.holder, _json(owner.detail))
    return "INSERT OR REPLACE INTO ownership VALUES (?, ?, ?, ?)", values


def _json(record: JsonRecord) -> str:
    return json.dumps(record, separators=(",", ":"))


def _guarded(work: Callable[[], T]) -> T:
    """Run it, with SQLite's errors in words an administrator can act on."""
    try:
        return work()
    except sqlite3.Error as exc:
        name = getattr(exc, "sqlite_errorname", "") or ""
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR_WRITE")):
            raise StoreFull(f"cannot write the store, is the disk full? ({exc})") from exc
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise StoreCorrupt(f"the store is damaged: {exc}") from exc
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise StoreInUse(f"the store is in use by another process ({exc})") from exc
        raise StoreFailed(f"store: {exc}") from exc


def _log_failure(done: Future[None]) -> None:
    if not done.cancelled() and (exc := done.exception()) is not None:
        log.error("store.post_failed error=%r", str(exc))
