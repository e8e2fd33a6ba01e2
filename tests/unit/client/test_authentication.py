"""Credentials: where they are looked for, in the form of libvirt's clients."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sterna.client.authentication import Credentials, find_credentials
from sterna.client.uri import parse_uri
from sterna.errors import AuthFailed, InvalidArg

FILE = """\
[credentials-admin]
authname=ann
password=a=b %(c)s, d

[credentials-other]
authname=bob
password=two

[auth-libvirt-host-a]
credentials=admin

[auth-libvirt-default]
credentials=other
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "auth.conf"
    path.write_text(FILE)
    return path


def test_by_host_else_the_default(file: Path) -> None:
    assert find_credentials(parse_uri(f"qemu+tls://host-a/system?authfile={file}")) == Credentials(
        "ann", "a=b %(c)s, d"
    )
    found = find_credentials(parse_uri(f"qemu+tcp://host-b/system?authfile={file}"))
    assert found == Credentials("bob", "two")


def test_where_it_is_looked_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = parse_uri("qemu+tls://host-a/system")
    monkeypatch.setenv("LIBVIRT_AUTH_FILE", str(file))
    assert find_credentials(uri).user == "ann"
    monkeypatch.delenv("LIBVIRT_AUTH_FILE")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(file.parent))
    own = file.parent / "libvirt" / "auth.conf"
    own.parent.mkdir()
    file.rename(own)
    assert find_credentials(uri).user == "ann"


def test_none_there(tmp_path: Path) -> None:
    path = tmp_path / "none"
    with pytest.raises(AuthFailed, match=f"there is none for it in {path}"):
        find_credentials(parse_uri(f"qemu+tls://host-a/system?authfile={path}"))


def test_a_pipe_is_not_waited_for(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(AuthFailed, match="there is none for it"):
        find_credentials(parse_uri(f"qemu+tls://host-a/system?authfile={file}"))


def test_an_error_does_not_quote_the_file(file: Path) -> None:
    file.write_text("root:secret\n")
    with pytest.raises(InvalidArg) as refusal:
        find_credentials(parse_uri(f"qemu+tls://host-a/system?authfile={file}"))
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["no file", "[auth-libvirt-default]\ncredentials=x\n", "[a]\nb=1\nb=2\n"]
)
def test_files_that_are_none(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidArg, match=r"auth\.conf"):
        find_credentials(parse_uri(f"qemu+tls://host-a/system?authfile={file}"))
