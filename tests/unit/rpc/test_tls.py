"""TLS below a connection: every byte, the peer's end, whom it believes."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest

from sterna.host.pki import PkiFiles, client_files, server_files
from sterna.rpc.asyncio_shell import Call, ClientConnection, Handler, ServerConnection
from sterna.rpc.asyncio_tls import CertificateRefused, accept_tls, connect_tls, welcome
from sterna.rpc.msg_common import Dom
from sterna.rpc.msg_qemu import DomainMonitorCommandArgs, DomainMonitorCommandRet
from sterna.rpc.tls import (
    TlsFilesError,
    TlsTransport,
    client_context,
    distinguished_name,
    is_allowed,
    server_context,
)
from support.certificates import Authority, openssl
from support.rpc_ends import Collects, Ends, ended, hostname, until

DOM = Dom("g", bytes(16), 1)
MONITOR = "DOMAIN_MONITOR_COMMAND"
LARGE = "x" * 3_000_000


@dataclass(frozen=True)
class Papers:
    """A CA's server and client."""

    authority: Authority
    pki: Path
    pkipath: Path


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    directory = tmp_path_factory.mktemp("papers")
    authority = Authority(directory / "ca").make()
    return Papers(authority, authority.server(directory / "pki"), authority.client(directory / "c"))


def as_server(files: PkiFiles) -> ssl.SSLContext:
    assert files.certificate is not None
    assert files.key is not None
    return server_context(
        ca=files.ca, certificate=files.certificate, key=files.key, revoked=files.revoked
    )


def as_client(files: PkiFiles) -> ssl.SSLContext:
    return client_context(
        ca=files.ca, certificate=files.certificate, key=files.key, revoked=files.revoked
    )


async def sockets(papers: Papers, client: ssl.SSLContext | None = None) -> list[ssl.SSLSocket]:
    """The server's end and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    for sock in (ours, theirs):
        sock.setblocking(False)

    async def server() -> ssl.SSLSocket:
        tls = await accept_tls(theirs, as_server(server_files(papers.pki)))
        await welcome(tls)
        return tls

    context = client or as_client(client_files(papers.pkipath))
    async with asyncio.timeout(10):
        done = await asyncio.gather(
            server(), connect_tls(ours, context, "127.0.0.1"), return_exceptions=True
        )
    failures = [end for end in done if isinstance(end, BaseException)]
    if failures:
        for end in done:
            if isinstance(end, ssl.SSLSocket):
                end.close()
        raise failures[-1]  # the client's, if it has one
    return [end for end in done if isinstance(end, ssl.SSLSocket)]


async def pair(
    ends: Ends, papers: Papers, serve: Handler
) -> tuple[ServerConnection, ClientConnection]:
    theirs, ours = await sockets(papers)
    server = ServerConnection(theirs, serve, transport=TlsTransport(theirs))
    client = ClientConnection(TlsTransport(ours))
    ends.open += [server, client]
    return server, client


# -- bytes


def echo(connection: ServerConnection, call: Call) -> None:
    connection.reply(call, DomainMonitorCommandRet(call.args.cmd))


async def test_calls_of_any_size(ends: Ends, papers: Papers) -> None:
    _, client = await pair(ends, papers, echo)
    for text in ("", "small", LARGE, "small again"):
        reply = await client.call(MONITOR, DomainMonitorCommandArgs(DOM, text, 0))
        assert reply.result == text


async def test_many_at_once(ends: Ends, papers: Papers) -> None:
    """Both directions are full: what could not be sent is sent again, once."""
    _, client = await pair(ends, papers, echo)
    texts = [f"{n}:{LARGE[:500_000]}" for n in range(20)]
    replies = await asyncio.gather(
        *(client.call(MONITOR, DomainMonitorCommandArgs(DOM, text, 0)) for text in texts)
    )
    assert [reply.result for reply in replies] == texts


async def test_a_client_that_does_not_read_is_not_read_from(ends: Ends, papers: Papers) -> None:
    served = 0

    def serve(connection: ServerConnection, call: Call) -> None:
        nonlocal served
        served += 1
        connection.reply(call, DomainMonitorCommandRet(LARGE))

    server, client = await pair(ends, papers, serve)
    client._unwatch_input()  # the peer whose reader sleeps
    calls = [
        asyncio.ensure_future(client.call(MONITOR, DomainMonitorCommandArgs(DOM, "", 0)))
        for _ in range(8)
    ]
    await until(lambda: served and not server._reading)
    assert served < len(calls)
    assert not server.peer_gone()
    client._watch_input()
    for reply in await asyncio.gather(*calls):
        assert reply.result == LARGE


# -- the end


async def test_the_peers_end_is_seen_behind_unread_words(ends: Ends, papers: Papers) -> None:
    """What a migration's decision rests on (I2)."""
    server, client = await pair(ends, papers, Collects())
    server._unwatch_input()
    waiting = asyncio.ensure_future(client.call("CONNECT_GET_HOSTNAME"))
    await asyncio.sleep(0)
    assert not server.peer_gone()
    client.abort("the controller is killed")
    assert server.peer_gone()
    await asyncio.gather(waiting, return_exceptions=True)
    await ended(server)


@pytest.mark.parametrize("politely", [True, False])
async def test_either_end_hears_of_the_others(ends: Ends, papers: Papers, politely: bool) -> None:
    for from_server in (True, False):
        server, client = await pair(ends, papers, hostname)
        assert await client.call("CONNECT_GET_HOSTNAME")
        first, second = (server, client) if from_server else (client, server)
        if politely:
            first.close()
        else:
            first.abort("now")
        await ended(second)
        assert second.close_reason == "the peer closed the connection"


async def test_rubbish_after_the_handshake(ends: Ends, papers: Papers) -> None:
    theirs, ours = await sockets(papers)
    server = ServerConnection(theirs, hostname, transport=TlsTransport(theirs))
    ends.open += [server, ours]
    with socket.socket(fileno=os.dup(ours.fileno())) as below:
        below.send(b"\x17\x03\x03\x00\x20" + b"rubbish!" * 4)
        await ended(server)
    assert "the connection broke" in server.close_reason


# -- whom it believes


async def test_a_name_as_libvirts_tools_print_it(
    ends: Ends, papers: Papers, tmp_path: Path
) -> None:
    pkipath = tmp_path / "c"
    pkipath.mkdir()
    papers.authority.sign(
        "/C=GB/ST=London/O=Terns, Inc/emailAddress=a@b/DC=foo/UID=u1/CN=a",
        pkipath / "clientcert.pem",
        pkipath / "clientkey.pem",
        usage="clientAuth",
    )
    (pkipath / "cacert.pem").symlink_to(papers.authority.certificate)
    theirs, ours = await sockets(papers, as_client(client_files(pkipath)))
    ends.open += [theirs, ours]
    name = distinguished_name(theirs)
    assert name == "C=GB,ST=London,O=Terns\\, Inc,EMAIL=a@b,DC=foo,UID=u1,CN=a"


@pytest.mark.parametrize(
    ("patterns", "allowed"),
    [
        ((), True),
        (("C=GB,O=Sterna,CN=host-a",), True),
        (("C=DE*", "C=GB,*"), True),
        (("*CN=host-?",), True),
        (("CN=host-a",), False),
        (("*CN=host-[ab]",), False),
        (("c=gb*",), False),
    ],
)
def test_names_that_are_allowed(patterns: tuple[str, ...], allowed: bool) -> None:
    assert is_allowed("C=GB,O=Sterna,CN=host-a", patterns) is allowed


async def test_a_client_of_another_ca(ends: Ends, papers: Papers, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "ca", "another").make().client(tmp_path / "c")
    (stranger / "cacert.pem").write_bytes(papers.authority.certificate.read_bytes())
    with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
        await sockets(papers, as_client(client_files(stranger)))


async def test_a_client_without_a_certificate(ends: Ends, papers: Papers, tmp_path: Path) -> None:
    (tmp_path / "cacert.pem").write_bytes(papers.authority.certificate.read_bytes())
    files = client_files(tmp_path)
    assert files.certificate is None
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        await sockets(papers, as_client(files))


async def test_a_servers_certificate_is_no_clients(
    ends: Ends, papers: Papers, tmp_path: Path
) -> None:
    pkipath = papers.authority.client(tmp_path / "c")
    certificate, key = pkipath / "clientcert.pem", pkipath / "clientkey.pem"
    papers.authority.sign("/CN=x", certificate, key, usage="serverAuth")
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_CERTIFICATE"):
        await sockets(papers, as_client(client_files(pkipath)))


async def test_a_server_that_closes_instead_of_a_welcome(papers: Papers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    for sock in (ours, theirs):
        sock.setblocking(False)
    client = asyncio.ensure_future(
        connect_tls(ours, as_client(client_files(papers.pkipath)), "127.0.0.1")
    )
    (await accept_tls(theirs, as_server(server_files(papers.pki)))).close()
    with pytest.raises(CertificateRefused, match="does not accept our certificate"):
        await client


# -- files


def broken(pki: Path, name: str, text: str) -> None:
    (pki / name).write_text(text)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda pki: (pki / "CA/cacert.pem").unlink(), "CA certificate .*: No such file"),
        (
            lambda pki: broken(pki, "CA/cacert.pem", "no"),
            "CA certificate .*: no certificate or crl",
        ),
        (lambda pki: (pki / "libvirt/servercert.pem").unlink(), "the certificate .*: No such file"),
        (lambda pki: (pki / "libvirt/private/serverkey.pem").unlink(), "the key .*: No such file"),
        (lambda pki: broken(pki, "libvirt/servercert.pem", "no"), "servercert.pem with the key"),
        (lambda pki: broken(pki, "CA/cacrl.pem", "no"), "list of revoked certificates"),
    ],
)
def test_files_that_cannot_be_used(damage, complaint: str, papers: Papers, tmp_path: Path) -> None:
    pki = papers.authority.server(tmp_path / "pki")
    as_server(server_files(pki))
    damage(pki)
    with pytest.raises(TlsFilesError, match=complaint):
        as_server(server_files(pki))


def test_a_key_of_another_certificate(papers: Papers, tmp_path: Path) -> None:
    pki = papers.authority.server(tmp_path / "pki")
    key = server_files(pki).key
    assert key is not None
    key.write_bytes((papers.pkipath / "clientkey.pem").read_bytes())
    with pytest.raises(TlsFilesError, match="key values mismatch"):
        as_server(server_files(pki))


def test_an_encrypted_key_is_not_asked_for_at_the_terminal(papers: Papers, tmp_path: Path) -> None:
    pki = papers.authority.server(tmp_path / "pki")
    key = str(server_files(pki).key)
    openssl("pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", f"{key}.new")
    Path(f"{key}.new").rename(key)
    with pytest.raises(TlsFilesError, match=r"servercert\.pem with the key"):
        as_server(server_files(pki))


@pytest.mark.parametrize("what", ["expired", "another"])
def test_a_certificate_nobody_would_believe(papers: Papers, tmp_path: Path, what: str) -> None:
    pki = papers.authority.server(tmp_path / "pki", expired=what == "expired")
    if what == "another":
        other = Authority(tmp_path / "ca", "another").make()
        (pki / "CA" / "cacert.pem").write_bytes(other.certificate.read_bytes())
    with pytest.raises(TlsFilesError, match="clients would not believe the certificate"):
        as_server(server_files(pki))


@pytest.mark.parametrize("name", ["cacert.pem", "cacrl.pem", "clientcert.pem", "clientkey.pem"])
def test_a_pipe_is_not_waited_for(papers: Papers, tmp_path: Path, name: str) -> None:
    pkipath = papers.authority.client(tmp_path / "c")
    (pkipath / name).unlink(missing_ok=True)
    os.mkfifo(pkipath / name)
    with pytest.raises(TlsFilesError, match="is not a file"):
        as_client(client_files(pkipath))


def test_half_of_a_clients_identity_is_an_error(papers: Papers, tmp_path: Path) -> None:
    pkipath = papers.authority.client(tmp_path / "c")
    (pkipath / "clientkey.pem").unlink()
    with pytest.raises(TlsFilesError, match=r"the key .*clientkey\.pem: No such file"):
        as_client(client_files(pkipath))
