"""The store's contract, against the real one and the fake; then what only the real one can do."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from sterna.store.db import SqliteStore
from sterna.store.errors import StoreCorrupt, StoreFailed, StoreInUse, StoreTooNew
from sterna.store.ports import MadeImage, Ownership, Store, StoredDefinition
from sterna.store.schema import STEPS
from support.memory_store import MemoryStore

ONE = UUID(int=1)
TWO = UUID(int=2)


@pytest.fixture(params=["sqlite", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store
    made = await SqliteStore.open(tmp_path / "s.db") if request.param == "sqlite" else MemoryStore()
    yield made
    await made.close()


async def test_meta_is_kept(store: Store) -> None:
    await store.set_meta("uuid", "a")
    await store.set_meta("uuid", "b")
    assert await store.meta() == {"uuid": "b"}


async def test_definitions_are_replaced_by_uuid_and_listed_by_name(store: Store) -> None:
    two, one = StoredDefinition(TWO, "b", "<b/>"), StoredDefinition(ONE, "a", "<a/>")
    await store.put_definition(two)
    await store.put_definition(one)
    await store.put_definition(replace(two, autostart=True))
    assert await store.definitions() == [one, replace(two, autostart=True)]
    await store.delete_definition(ONE)
    await store.delete_definition(ONE)
    assert [d.uuid for d in await store.definitions()] == [TWO]


async def test_two_guests_never_share_a_name(store: Store) -> None:
    await store.put_definition(StoredDefinition(ONE, "a", ""))
    await store.put_definition(StoredDefinition(TWO, "a", ""))
    assert [row.uuid for row in await store.definitions()] == [TWO]


async def test_a_definition_comes_with_the_decision_that_stands(store: Store) -> None:
    """And only with that one."""
    owner = Ownership(ONE, 3, "here", {})
    row = StoredDefinition(ONE, "a", "<a/>")
    await store.decide("refused", "aborted", ONE)
    await store.decide("refused", "committed", ONE, owner, definition=row)
    assert (await store.definitions(), await store.ownerships()) == ([], [])
    await store.decide("m", "committed", ONE, owner, definition=row)
    assert (await store.definitions(), await store.ownerships()) == ([row], [owner])


async def test_posted_records_are_written_in_order(store: Store) -> None:
    for pid in range(20):
        store.post_live(ONE, {"pid": pid})
    await store.put_live(TWO, {"pid": 7, "deep": {"list": [1, None, "x"]}})
    assert await store.lives() == {
        ONE: {"pid": 19},
        TWO: {"pid": 7, "deep": {"list": [1, None, "x"]}},
    }
    await store.delete_live(ONE)
    assert list(await store.lives()) == [TWO]


async def test_made_images_are_known_until_they_are_forgotten(store: Store) -> None:
    image = MadeImage("/b/x", "m", ONE)
    await store.put_made_image(image)
    await store.put_made_image(replace(image, inode=5))
    await store.put_made_image(MadeImage("/a", "n", TWO))
    assert await store.made_images() == [MadeImage("/a", "n", TWO), replace(image, inode=5)]
    await store.forget_made_image("/a")
    await store.forget_made_image("/a")
    assert await store.made_images() == [replace(image, inode=5)]


async def test_the_first_decision_stands_for_ever(store: Store) -> None:
    """L4: whichever is first."""
    assert await store.decision("m") is None
    first = await store.decide("m", "aborted", ONE)
    assert await store.decide("m", "committed", ONE) == first
    assert await store.decision("m") == first
    assert first.verdict == "aborted"


async def test_history_is_newest_first(store: Store) -> None:
    await store.add_history(ONE, "started", {"n": 1})
    await store.add_history(TWO, "started", {"n": 2})
    await store.add_history(ONE, "stopped", {"n": 3})
    assert [h.detail["n"] for h in await store.history()] == [3, 2, 1]
    assert [h.kind for h in await store.history(ONE)] == ["stopped", "started"]
    assert len(await store.history(limit=1)) == 1


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.close()
    with pytest.raises(StoreFailed, match="closed"):
        await store.set_meta("a", "b")


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    first = await SqliteStore.open(tmp_path / "s.db")
    await first.put_definition(StoredDefinition(ONE, "a", "<a/>", autostart=True))
    await first.decide("m", "committed", ONE)
    await first.put_live(ONE, {"pid": 1})
    await first.close()
    second = await SqliteStore.open(tmp_path / "s.db")
    assert await second.definitions() == [StoredDefinition(ONE, "a", "<a/>", autostart=True)]
    decision = await second.decision("m")
    assert decision is not None
    assert decision.verdict == "committed"
    assert await second.lives() == {ONE: {"pid": 1}}
    await second.close()


async def test_a_second_daemon_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sterna.store.db.BUSY_MS", 10)
    first = await SqliteStore.open(tmp_path / "s.db")
    with pytest.raises(StoreInUse):
        await SqliteStore.open(tmp_path / "s.db")
    await first.close()


async def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(StoreCorrupt, match="damaged"):
        await SqliteStore.open(tmp_path / "s.db")


async def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "s.db")
    db.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    db.close()
    with pytest.raises(StoreTooNew):
        await SqliteStore.open(tmp_path / "s.db")


async def test_an_unwritable_place_fails_clearly(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="unable to open"):
        await SqliteStore.open(tmp_path / "absent" / "s.db")


async def test_the_file_is_private(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "s.db")
    await store.close()
    assert (tmp_path / "s.db").stat().st_mode & 0o777 == 0o600
