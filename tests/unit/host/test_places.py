"""Where things are kept, and that one place has one daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sterna.host.places import Lock, Places, PlacesError


def test_everything_is_below_the_root(tmp_path: Path) -> None:
    places = Places.below(tmp_path)
    places.make()
    for name in (name for name in dir(Places) if not name.startswith("_")):
        value = getattr(places, name)
        if isinstance(value, Path):
            assert value == tmp_path or tmp_path in value.parents, name
    assert places.socket == tmp_path / "run" / "libvirt-sock"
    assert places.store == tmp_path / "sterna.db"
    assert places.qemu_log.is_dir()
    assert places.save.stat().st_mode & 0o777 == 0o700


def test_users_follow_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    places = Places.chosen(None)
    assert places.run == tmp_path / "run/sterna"
    assert places.state == tmp_path / "state/sterna"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert Places.chosen(None).run == tmp_path / "cache/sterna/run"


def test_root_has_the_systems_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Places.chosen(None) == Places.system()


def test_a_second_daemon_is_refused_and_told_the_pid(tmp_path: Path) -> None:
    places = Places.below(tmp_path)
    places.make()
    lock = Lock.take(places)
    with pytest.raises(PlacesError, match=rf"another sternad \(pid {os.getpid()}\)"):
        Lock.take(places)
    lock.release()
    Lock.take(places).release()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(PlacesError, match=r"cannot make .*run"):
        Places.below(tmp_path).make()
