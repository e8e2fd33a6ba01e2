"""Passwords with unmodified virsh and with ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.certificates import Authority
from support.clients import Ran, run, virsh
from support.daemon import Daemon, free_port
from support.fixtures import Hosts

SECRET = "a=b, c"
AUTH_FILE = """\
[credentials-ours]
authname=ann
password=a=b, c
[auth-libvirt-127.0.0.1]
credentials=ours
"""


def sterna(*words: str, stdin: str = "") -> Ran:
    return run([sys.executable, "-m", "sterna.cli", *words], stdin=stdin)


@pytest.fixture
def credentials(short_dir: Path) -> dict[str, Path]:
    """Files of them: the right ones, and others."""
    texts = {
        "right": AUTH_FILE,
        "wrong": AUTH_FILE.replace("b, c", "b, d"),
        "unknown": AUTH_FILE.replace("ann", "bob"),
    }
    files = {name: short_dir / f"{name}.conf" for name in texts}
    for name, file in files.items():
        file.write_text(texts[name])
    return files


def start(hosts: Hosts, directory: Path, *settings: str) -> tuple[Daemon, str]:
    """A host that asks for passwords, and its URI for TLS without certificates."""
    authority = Authority(directory / "ca").make()
    authority.client(directory / "client")
    (directory / "none").mkdir()
    (directory / "none" / "cacert.pem").write_bytes(authority.certificate.read_bytes())
    port = free_port()
    config = directory / "c.toml"
    pki = authority.server(directory / "pki")
    lines = (f'tls = "127.0.0.1:{port}"', f'pki = "{pki}"', 'auth_tls = "sasl"', *settings)
    config.write_text("\n".join((*lines, 'auth_tcp = "sasl"', "")))
    daemon = hosts.start("alpha", "--config", str(config))
    daemon.tls_port = port
    sterna("password", "ann", "--root", str(daemon.root), stdin=f"{SECRET}\n").check()
    return daemon, f"qemu+tls://127.0.0.1:{port}/system?pkipath={directory}/none"


def test_a_password_instead_of_a_certificate(
    hosts: Hosts, short_dir: Path, credentials: dict[str, Path]
) -> None:
    alpha, uri = start(hosts, short_dir, 'tls_client_certificate = "optional"')
    right = f"{uri}&authfile={credentials['right']}"
    assert virsh(right, "hostname").check().out.strip() == "alpha"
    assert virsh(f"{right}&auth=sasl.SCRAM-SHA-256", "uri").code == 0
    sterna("list", "-c", right).check()
    for which in ("wrong", "unknown"):
        bad = f"{uri}&authfile={credentials[which]}"
        assert virsh(bad, "hostname").err.endswith(
            "error: authentication failed: authentication failed\n"
        )
        ours = sterna("list", "-c", bad)
        assert (ours.code, ours.err) == (
            1,
            "sterna: authentication failed: authentication failed\n",
        )
    log = alpha.log_path.read_text()
    assert "client.authenticated" in log
    assert log.count("client.not_authenticated") == 4
    # The certificate alone is enough, for those who can say so.
    certified = uri.replace("/none", "/client")
    sterna("list", "-c", certified).check()
    assert 'user="C=GB,O=Sterna,CN=client"' in alpha.log_path.read_text()
    sterna("list", "-c", f"{certified}&auth=sasl.EXTERNAL").check()
    assert "does not offer EXTERNAL" in sterna("list", "-c", f"{right}&auth=sasl.EXTERNAL").err


def test_a_password_beside_a_certificate(
    hosts: Hosts, short_dir: Path, credentials: dict[str, Path]
) -> None:
    _, uri = start(hosts, short_dir)
    certified = uri.replace("/none", "/client")
    for client in (
        lambda to: virsh(to, "hostname"),
        lambda to: sterna("list", "-c", to),
    ):
        client(f"{certified}&authfile={credentials['right']}").check()
        assert client(f"{certified}&authfile={credentials['wrong']}").code
        assert client(f"{certified}&authfile={short_dir}/nofile").code
        assert client(f"{uri}&authfile={credentials['right']}").code


def test_over_plain_tcp(hosts: Hosts, short_dir: Path, credentials: dict[str, Path]) -> None:
    """Ours alone: libvirt's clients want what SCRAM does not give, an encryption of its own."""
    alpha, _ = start(hosts, short_dir)
    uri = f"{alpha.tcp_uri}?authfile={credentials['right']}"
    sterna("list", "-c", uri).check()
    assert "No worthy mechs found" in virsh(uri, "hostname").err
    assert sterna("list", "-c", uri.replace("right", "wrong")).code == 1
    # The unix socket's permissions are its own authentication.
    assert alpha.said("hostname") == "alpha"


def test_passwords_come_and_go(hosts: Hosts, short_dir: Path, credentials: dict[str, Path]) -> None:
    alpha, _ = start(hosts, short_dir)
    uri = f"{alpha.tcp_uri}?authfile={credentials['right']}"
    root = ("--root", str(alpha.root))
    assert (alpha.root / "passwords").stat().st_mode & 0o777 == 0o600
    assert sterna("password", *root).check().out == "ann\n"
    sterna("password", "ann", *root, stdin="another\n").check()
    assert sterna("list", "-c", uri).code == 1
    sterna("password", "ann", *root, stdin=f"{SECRET}\n").check()
    sterna("list", "-c", uri).check()
    sterna("password", "ann", "--remove", *root).check()
    assert sterna("list", "-c", uri).code == 1
    again = sterna("password", "ann", "--remove", *root)
    assert (again.code, again.err) == (1, "sterna: ann has no password here\n")
    assert sterna("password", "ann", *root, stdin="\n").code == 1


def test_optional_certificates_need_passwords(short_dir: Path) -> None:
    config = short_dir / "c.toml"
    config.write_text('tls_client_certificate = "optional"\n')
    words = ("--root", str(short_dir / "x"), "--config", str(config))
    ran = run([sys.executable, "-m", "sterna.server", *words])
    assert ran.code == 2
    assert "needs auth_tls = 'sasl'" in ran.err
