"""The settings table: where values come from, and what is refused by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sterna.server import settings
from sterna.server.settings import SettingsError, from_command_line, tcp_address


def test_defaults_are_those_of_the_table() -> None:
    made = from_command_line([])
    for row in settings.TABLE:
        assert getattr(made, row.name) == row.default


def test_the_table_and_the_settings_name_the_same() -> None:
    names = {f.name for f in dataclasses.fields(settings.Settings)}
    assert names == {row.name for row in settings.TABLE} | {"root", "config_file"}


def test_command_line_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('name = "from-file"\nkeepalive_count = 7\n')
    made = from_command_line(["--config", str(file), "--name", "from-option"])
    assert made.name == "from-option"
    assert made.keepalive_count == 7
    assert made.clients_max == 5000
    assert made.config_file == file


def test_default_file_is_read_only_if_it_exists(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    assert from_command_line([], file).config_file is None
    file.write_text("verbose = true")
    assert from_command_line([], file).verbose


def test_root_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert from_command_line(["--root", "here"]).root == tmp_path / "here"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nosuch = 1", "unknown setting 'nosuch'"),
        ("name = 1", "expected str, got 1"),
        ("keepalive_count = 0", "0 is below 1"),
        ("migration_port_min = 70000", "70000 is above 65535"),
        ("keepalive_interval_s = true", "expected float, got True"),
        ('socket_mode = "rw"', "expected permissions"),
        ('socket_mode = "7777"', "expected permissions"),
        ('tcp = "nowhere"', "expected ADDR:PORT"),
        ("migration_port_min = 50\nmigration_port_max = 40", "is above"),
        ('qemu_group = "g"', "needs qemu_user"),
        ("name = ", "not valid TOML"),
        ('name = ""', "is not a host name"),
    ],
)
def test_a_file_that_is_not_understood_is_refused(
    tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=complaint):
        from_command_line(["--config", str(file)])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        from_command_line(["--config", str(tmp_path / "none")])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:16509", ("127.0.0.1", 16509)),
        (":0", ("", 0)),
        ("[::1]:5", ("::1", 5)),
        ("host.example:1", ("host.example", 1)),
    ],
)
def test_tcp_address(text: str, address: tuple[str, int]) -> None:
    assert tcp_address(text) == address


@pytest.mark.parametrize("text", ["", "1", "a:b", "::1:5", "a:70000", "a:-1"])
def test_bad_tcp_address(text: str) -> None:
    with pytest.raises(SettingsError):
        tcp_address(text)


def test_reference_names_every_setting() -> None:
    text = settings.reference_table()
    for row in settings.TABLE:
        assert f"`{row.name}`" in text


@pytest.mark.parametrize(("option", "code"), [("--help", 0), ("--version", 0), ("--nosuch", 2)])
def test_exit_codes_of_the_command_line(
    option: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        from_command_line([option])
    assert ended.value.code == code
    capsys.readouterr()
