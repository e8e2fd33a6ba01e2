"""Which files are removed after a migration: those that were made for it, and no others."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from sterna.errors import OperationFailed, OperationUnsupported, SystemCallError
from sterna.migration.made_images import MadeImages, Target, missing, settle_all
from sterna.store.ports import MadeImage
from support.memory_store import MemoryStore

GUEST = UUID(int=1)
SIZE = 1 << 20


def target(path: Path, image_format: str = "raw", space: int = SIZE) -> Target:
    return Target(str(path), image_format, SIZE, space)


async def made(store: MemoryStore, *paths: Path) -> MadeImages:
    images = MadeImages(store, "m", GUEST)
    images.absent = [target(path) for path in paths]
    await images.make()
    return images


async def test_what_was_made_goes_unless_it_is_committed(tmp_path: Path) -> None:
    for verdict, stays in (("aborted", False), ("committed", True)):
        store, path = MemoryStore(), tmp_path / verdict
        images = await made(store, path)
        assert path.stat().st_size == SIZE
        assert path.stat().st_mode & 0o777 == 0o600
        await store.decide("m", verdict, GUEST)  # type: ignore[arg-type]  # one of the two
        await images.settle()
        assert path.exists() is stays
        assert await store.made_images() == []


async def test_without_a_decision_it_is_aborted_for_ever(tmp_path: Path) -> None:
    store = MemoryStore()
    await made(store, tmp_path / "x")
    await settle_all(store)
    assert not (tmp_path / "x").exists()
    assert (await store.decide("m", "committed", GUEST)).verdict == "aborted"


async def test_what_somebody_else_has_put_there_stays(tmp_path: Path) -> None:
    store, path = MemoryStore(), tmp_path / "x"
    await made(store, path)
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    theirs.replace(path)
    await settle_all(store)
    assert path.read_text() == "theirs"


async def test_a_death_before_the_file_was_known(tmp_path: Path) -> None:
    """Its record was there, its inode not: what is empty was ours."""
    store = MemoryStore()
    for name, text in (("empty", ""), ("full", "theirs")):
        (tmp_path / name).write_text(text)
        await store.put_made_image(MadeImage(str(tmp_path / name), "m", GUEST))
    await store.put_made_image(MadeImage(str(tmp_path / "absent"), "m", GUEST))
    await settle_all(store)
    assert (tmp_path / "full").exists()
    assert not (tmp_path / "empty").exists()


async def test_what_exists_is_never_made_anew(tmp_path: Path) -> None:
    store, path = MemoryStore(), tmp_path / "x"
    path.write_text("theirs")
    images = MadeImages(store, "m", GUEST)
    images.absent = [target(path)]
    with pytest.raises(SystemCallError, match="File exists"):
        await images.make()
    await images.settle()
    assert path.read_text() == "theirs"


async def test_what_is_missing_is_found_out_first(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_bytes(bytes(SIZE))
    absent = target(tmp_path / "absent")
    assert await missing([target(there), absent], incremental=False) == [absent]
    assert await missing([target(there)], incremental=True) == []
    with pytest.raises(OperationUnsupported, match="needs the image"):
        await missing([absent], incremental=True)
    with pytest.raises(OperationUnsupported, match="in format 'vmdk'"):
        await missing([target(tmp_path / "v", "vmdk")], incremental=False)
    with pytest.raises(OperationFailed, match="not enough space"):
        await missing([target(tmp_path / "huge", space=1 << 60)], incremental=False)
    with pytest.raises(OperationFailed, match="is in format 'raw', not 'qcow2'"):
        await missing([target(there, "qcow2")], incremental=False)
    with pytest.raises(OperationFailed, match="no image file"):
        await missing([target(tmp_path)], incremental=False)
