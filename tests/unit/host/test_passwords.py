"""The file of passwords: for its owner alone, whole at every moment, and no oracle."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sterna.host import passwords
from sterna.host.passwords import Passwords, PasswordsError


def test_set_find_remove(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    kept = Passwords(file)
    assert kept.users() == []
    kept.set("ann", "one")
    first = kept.find("ann")
    kept.set("bob", "two")
    kept.set("ann", "three")
    assert kept.users() == ["ann", "bob"]
    assert kept.find("ann") != first
    assert file.stat().st_mode & 0o777 == 0o600
    assert "three" not in file.read_text()
    assert kept.remove("ann")
    assert not kept.remove("ann")
    assert kept.users() == ["bob"]
    assert os.listdir(tmp_path) == ["passwords"]


def test_one_who_is_not_known_looks_like_anybody(tmp_path: Path) -> None:
    kept = Passwords(tmp_path / "passwords")
    kept.set("ann", "one")
    known, unknown = kept.find("ann"), kept.find("zoe")
    assert unknown == kept.find("zoe")
    assert unknown != kept.find("zac")
    assert (unknown.iterations, len(unknown.salt)) == (known.iterations, len(known.salt))
    assert len(unknown.stored_key) == len(known.stored_key)


def test_many_writers(tmp_path: Path) -> None:
    names = [f"user{n}" for n in range(8)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: Passwords(tmp_path / "p").set(name, name), names))
    assert Passwords(tmp_path / "p").users() == names


@pytest.mark.parametrize(
    ("user", "password"), [("", "x"), ("a", ""), ("a:b", "x"), ("a\nb", "x"), ("a" * 256, "x")]
)
def test_what_is_no_name_or_password(tmp_path: Path, user: str, password: str) -> None:
    with pytest.raises(PasswordsError):
        Passwords(tmp_path / "p").set(user, password)
    assert not (tmp_path / "p").exists()


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "p"
    file.write_text("ann:secret\n")
    with pytest.raises(PasswordsError, match=r"p:1: not NAME:VERIFIER"):
        Passwords(file).find("ann")
    monkeypatch.setattr(passwords, "FILE_BYTES_MAX", 5)
    with pytest.raises(PasswordsError, match="longer than 5 bytes"):
        Passwords(file).find("ann")
    with pytest.raises(PasswordsError, match="cannot use"):
        Passwords(tmp_path / "none" / "p").set("ann", "x")
    with pytest.raises(PasswordsError, match="cannot read"):
        Passwords(tmp_path).find("ann")
