"""The door for TLS: who is let in, who is turned away, and that strangers cost little."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sterna.host.pki import client_files
from sterna.rpc.asyncio_tls import CertificateRefused, connect_tls
from sterna.rpc.tls import client_context
from sterna.server import tls
from sterna.server.tls import Certificates, TlsDoor
from support.certificates import Authority, openssl
from support.rpc_ends import until


@dataclass
class Tried:
    """A door, those it let in, and a way to it."""

    authority: Authority
    directory: Path
    certificates: Certificates
    door: TlsDoor
    listening: socket.socket
    allowed: tuple[str, ...] = ()
    served: list[tuple[ssl.SSLSocket, str]] = field(default_factory=list)
    open: list[socket.socket] = field(default_factory=list)

    def knock(self) -> socket.socket:
        """A connected socket that says nothing yet; the door has its other end."""
        ours = socket.create_connection(self.listening.getsockname())
        theirs, _ = self.listening.accept()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.door.accept(theirs, False)
        self.open.append(ours)
        return ours

    async def enter(self, name: str = "client") -> ssl.SSLSocket:
        """A client with a certificate of that name. Raises as `connect_tls`."""
        pkipath = self.directory / name
        if not pkipath.exists():
            self.authority.client(pkipath, name)
        files = client_files(pkipath)
        context = client_context(
            ca=files.ca, certificate=files.certificate, key=files.key, revoked=None
        )
        made = await connect_tls(self.knock(), context, "127.0.0.1")
        self.open.append(made)
        return made


@pytest.fixture
async def tried(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Tried]:
    authority = Authority(tmp_path / "ca").make()
    certificates = Certificates(authority.server(tmp_path / "pki"))
    made: Tried

    def serve(sock: Any, read_only: bool, *, transport: Any, certificate: str) -> None:
        made.served.append((sock, certificate))
        made.open.append(sock)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        door = TlsDoor(
            certificates,
            serve,
            lambda: made.allowed,
            tasks,
            handshake_s=getattr(request, "param", 10.0),
        )
        with socket.create_server(("127.0.0.1", 0)) as listening:
            made = Tried(authority, tmp_path, certificates, door, listening)
            yield made
        door.end_all()
    for sock in made.open:
        sock.close()


async def ended(sock: socket.socket) -> None:
    """Until the door has closed it."""
    try:
        while await asyncio.get_running_loop().sock_recv(sock, 4096):
            pass
    except ConnectionResetError:
        pass


async def test_a_good_certificate_is_let_in(tried: Tried) -> None:
    await tried.enter()
    await until(lambda: tried.served)
    assert tried.served[0][1] == "C=GB,O=Sterna,CN=client"


async def test_only_names_that_are_allowed(tried: Tried, caplog: pytest.LogCaptureFixture) -> None:
    tried.allowed = ("*CN=host-?",)
    await tried.enter("host-a")
    with pytest.raises(CertificateRefused):
        await tried.enter("guest")
    [refusal] = [r for r in caplog.records if r.message == "tls.client_refused"]
    assert "C=GB,O=Sterna,CN=guest" in str(vars(refusal)["f"]["why"])
    tried.allowed = ()
    await tried.enter("guest")


@pytest.mark.parametrize(
    "rubbish", [b"GET / HTTP/1.0\r\n\r\n", b"\0" * 64, b"\x16\x03\x01\xff\xff"]
)
async def test_rubbish_ends_its_own_connection(tried: Tried, rubbish: bytes) -> None:
    stranger = tried.knock()
    stranger.send(rubbish)
    stranger.shutdown(socket.SHUT_WR)
    await ended(stranger)
    await tried.enter()


async def test_a_stranger_that_is_gone_at_once(tried: Tried) -> None:
    tried.knock().close()
    await tried.enter()
    await until(lambda: not tried.door._pending)


@pytest.mark.parametrize("tried", [0.05], indirect=True)
async def test_a_silent_stranger_has_only_so_long(
    tried: Tried, caplog: pytest.LogCaptureFixture
) -> None:
    await ended(tried.knock())
    assert any("no handshake within" in str(getattr(r, "f", "")) for r in caplog.records)


async def test_a_crowd_of_strangers_does_not_keep_others_out(
    tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "HANDSHAKES_MAX", 4)
    crowd = [tried.knock() for _ in range(10)]
    assert len(tried.door._pending) == 4
    await tried.enter()
    for first in crowd[:7]:
        await ended(first)


async def test_new_certificates_count_from_then_on(
    tried: Tried, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = (await tried.enter()).getpeercert(binary_form=True)
    tried.authority.server(tried.directory / "pki")
    assert (await tried.enter()).getpeercert(binary_form=True) == before
    tried.certificates.reload()
    after = (await tried.enter()).getpeercert(binary_form=True)
    assert after != before
    (tried.directory / "pki" / "libvirt" / "servercert.pem").write_text("broken")
    tried.certificates.reload()
    [refused] = [r for r in caplog.records if r.message == "tls.certificates_refused"]
    assert refused.levelno == logging.ERROR
    assert "servercert.pem" in str(vars(refused)["f"]["error"])
    assert (await tried.enter()).getpeercert(binary_form=True) == after


async def test_a_revoked_certificate(tried: Tried) -> None:
    await tried.enter("gone")
    await tried.enter("stays")
    certificate = tried.directory / "gone" / "clientcert.pem"
    (tried.directory / "index").write_text("")
    config = tried.directory / "ca.cnf"
    config.write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={tried.directory}/index\ndefault_md=sha256\n"
        "default_crl_days=2\n"
    )
    ca = (
        *("ca", "-config", str(config), "-cert", str(tried.authority.certificate)),
        *("-keyfile", str(tried.authority.key)),
    )
    openssl(*ca, "-revoke", str(certificate))
    openssl(*ca, "-gencrl", "-out", str(tried.directory / "pki" / "CA" / "cacrl.pem"))
    tried.certificates.reload()
    with pytest.raises(ssl.SSLError, match="REVOKED"):
        await tried.enter("gone")
    await tried.enter("stays")
