"""`sterna pki`: what it makes is believed by others, and nothing is overwritten by chance."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sterna.cli.commands import pki
from sterna.cli.main import main
from sterna.host.pki import server_files
from sterna.pki import layout
from sterna.pki.certificates import Authority, look_at
from sterna.pki.layout import Bundle, PkiError
from sterna.rpc.tls import server_context


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of our own."""
    monkeypatch.setattr(pki, "resolved", lambda name: ["192.0.2.8", "fd00::8"])
    monkeypatch.setattr(pki, "reachable_addresses", lambda: ["192.0.2.1"])


@pytest.fixture
def first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """What `sterna pki init` made on host-a."""
    assert main(["pki", "init", "--name", "host-a.example", "--dir", str(tmp_path / "a")]) == 0
    capsys.readouterr()
    return tmp_path / "a"


def bundle(first: Path, name: str = "host-b", *more: str) -> Path:
    out = first.parent / f"{name}.pki"
    assert main(["pki", "host", name, "--dir", str(first), "--out", str(out), *more]) == 0
    return out


def verify(ca: Path, certificate: Path, purpose: str, *more: str) -> None:
    """By openssl, at its strictest."""
    words = ("openssl", "verify", "-x509_strict", "-CAfile", str(ca), "-purpose", purpose, *more)
    subprocess.run([*words, str(certificate)], check=True, capture_output=True, timeout=20)


def modes(directory: Path) -> dict[str, int]:
    return {
        str(path.relative_to(directory)): path.stat().st_mode & 0o777
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_two_commands_make_a_pair(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = first.parent / "b"
    file = bundle(first, "host-b.example", "--also", "192.0.2.7")
    assert file.stat().st_mode & 0o777 == 0o600
    assert main(["pki", "install", str(file), "--dir", str(second)]) == 0
    told = capsys.readouterr().out
    assert "host-b.example, host-b, 192.0.2.8, fd00::8, 192.0.2.7, localhost" in told
    assert "days)" in told
    for directory, name in ((first, "host-a.example"), (second, "host-b.example")):
        for ca, kind in ((layout.CONTROL_CA, "libvirt"), (layout.QEMU_CA, "qemu")):
            mine = {
                "libvirt": (layout.SERVER, layout.CLIENT),
                "qemu": (layout.QEMU_SERVER, layout.QEMU_CLIENT),
            }[kind]
            other = first if directory is second else second
            host = ("-verify_hostname", name)
            verify(other / ca, directory / mine[0][0], "sslserver", *host)
            verify(other / ca, directory / mine[1][0], "sslclient")
    verify(first / layout.CONTROL_CA, second / layout.SERVER[0], "any", "-verify_ip", "192.0.2.7")
    files = server_files(second)
    assert files.certificate is not None
    assert files.key is not None
    server_context(ca=files.ca, certificate=files.certificate, key=files.key, revoked=files.revoked)


def test_qemus_key_opens_no_daemons_door(first: Path) -> None:
    """Two CAs: what a guest that broke out can read is nothing to a daemon."""
    for certificate in (layout.QEMU_CLIENT[0], layout.QEMU_SERVER[0]):
        with pytest.raises(subprocess.CalledProcessError):
            verify(first / layout.CONTROL_CA, first / certificate, "any")


def test_who_may_read_what(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = os.umask(0o077)
    try:
        second = first.parent / "b"
        assert main(["pki", "install", str(bundle(first)), "--dir", str(second)]) == 0
    finally:
        os.umask(before)
    for directory in (first, second):
        for path, mode in modes(directory).items():
            assert mode == (0o600 if "key" in path else 0o644), path
        assert (directory / "libvirt" / "private").stat().st_mode & 0o777 == 0o700
        assert (directory / "qemu").stat().st_mode & 0o777 == 0o755
    assert set(modes(first)) == {*layout.CERTIFICATES, *layout.KEYS, *layout.CA_KEYS}
    assert set(modes(second)) == {*layout.CERTIFICATES, *layout.KEYS}
    carried = bundle(first, "c").read_text()
    for key in layout.CA_KEYS:
        assert layout.read_file(first, key).splitlines()[2] not in carried


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_qemus_files_are_its_users(first: Path) -> None:
    second = first.parent / "b"
    words = ["pki", "install", str(bundle(first)), "--dir", str(second), "--qemu-user", "nobody"]
    assert main(words) == 0
    owners = {path: (second / path).stat().st_uid for path in layout.KEYS}
    nobody = pki.ids_of("nobody")
    assert nobody is not None
    assert owners == {path: nobody[0] if path.startswith("qemu/") else 0 for path in layout.KEYS}


def test_nothing_is_overwritten_by_chance(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: (first / path).read_bytes() for path in modes(first)}
    file = bundle(first)
    for words, complaint in (
        (["pki", "init", "--dir", str(first)], "has a CA already"),
        (["pki", "install", str(file), "--dir", str(first)], "and 9 more: there already"),
        (["pki", "host", "host-b", "--dir", str(first), "--out", str(file)], "there already"),
    ):
        assert main(words) == 1
        assert complaint in capsys.readouterr().err
    assert {path: (first / path).read_bytes() for path in modes(first)} == before
    assert main(["pki", "install", str(file), "--dir", str(first), "--force"]) == 0
    assert look_at(layout.read_file(first, layout.SERVER[0])).name == "host-b"
    # One file that is in the way is enough, and the others are not written.
    other = first.parent / "other"
    (other / "qemu").mkdir(parents=True)
    (other / layout.QEMU_CLIENT[1]).write_text("somebody's")
    assert main(["pki", "install", str(file), "--dir", str(other)]) == 1
    assert list(modes(other)) == [layout.QEMU_CLIENT[1]]


def test_show(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pki", "show", "--dir", str(first)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(layout.CERTIFICATES)
    assert main(["pki", "show", "--dir", str(first), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in shown[:2]] == [
        "Sterna hosts, CA of host-a.example",
        "host-a.example",
    ]
    until = datetime.fromisoformat(shown[1]["expires"])
    assert timedelta(days=823) < until - datetime.now(UTC) < timedelta(days=826)
    assert main(["pki", "show", "--dir", str(first.parent / "none")]) == 1
    assert "there are no certificates in" in capsys.readouterr().err


def test_one_that_has_expired_is_shown_so() -> None:
    assert pki.expiry(datetime.now(UTC) - timedelta(days=1)).endswith("(EXPIRED)")
    assert pki.expiry(datetime.now(UTC) + timedelta(days=9, hours=1)).endswith("(in 9 days)")


def damaged(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def damage(text: str) -> str:
        document = json.loads(text)
        change(document)
        return json.dumps(document)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "",
        lambda _: "[]",
        lambda text: text[:100],
        damaged(lambda d: d.update({"sterna-pki": 2})),
        damaged(lambda d: d.pop("host")),
        damaged(lambda d: d["files"].update({"../../etc/passwd": "x"})),
        damaged(lambda d: d["files"].update({layout.CONTROL_CA_KEY: "x"})),
        damaged(lambda d: d["files"].update({layout.SERVER[0]: 1})),
    ],
)
def test_bundles_that_are_none(first: Path, damage: Callable[[str], str]) -> None:
    file = bundle(first)
    file.write_text(damage(file.read_text()))
    with pytest.raises(PkiError, match="is not what `sterna pki host` makes"):
        Bundle.read(file)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "-a", "x" * 65, "ä"])
def test_what_is_no_hosts_name(first: Path, name: str) -> None:
    with pytest.raises(PkiError, match="cannot be a host's name"):
        pki.checked(name)
    assert not list(first.parent.glob("*.pki"))


def test_also_what_is_no_name(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pki", "host", "b", "--dir", str(first), "--also", "ü" * 80]) == 1
    assert "is no host name" in capsys.readouterr().err


def test_a_ca_that_cannot_be_used(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    control = layout.read_file(first, layout.CONTROL_CA)
    for key in ("", "x", layout.read_file(first, layout.QEMU_CA_KEY)):
        with pytest.raises(PkiError, match="the CA cannot be used"):
            Authority.read(control, key)
    (first / layout.CONTROL_CA_KEY).unlink()
    assert main(["pki", "host", "b", "--dir", str(first)]) == 1
    assert "cannot read" in capsys.readouterr().err


def test_without_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "sterna.pki.certificates")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert main(["pki", "init", "--dir", str(tmp_path)]) == 1
    assert "pip install 'sterna[pki]'" in capsys.readouterr().err


def test_names_are_checked_as_clients_do(first: Path) -> None:
    """Addresses as addresses, not as names."""
    seen = look_at(layout.read_file(first, layout.SERVER[0]))
    assert seen.names[:3] == ("host-a.example", "host-a", "192.0.2.1")
    assert {"localhost", "127.0.0.1", "::1"} <= set(seen.names)
    assert ssl.PEM_cert_to_DER_cert(layout.read_file(first, layout.SERVER[0]))
