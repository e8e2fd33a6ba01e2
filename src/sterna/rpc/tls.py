"""TLS below a connection: who we are, whom we believe, and the bytes through it.

Certificates are what libvirt's hosts have (libvirt 9.0, observed): both sides show one, each is
checked against the one CA, and the client checks that the server's is for the host it asked for.
"""

from __future__ import annotations

import contextlib
import ssl
from collections import deque
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from sterna.rpc.session_base import Chunk, FdByte
from sterna.rpc.sockets import READ_BYTES, drop, is_hung_up, limit_tcp_silence, prepare_tcp

WELCOME: Final = b"\x01"
"""What the server sends first: the client's certificate is accepted (libvirt 9.0, observed)."""
_RECORD_BYTES = 16_384
_PROOF_STEPS = 8
_SHORT_NAMES = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "emailAddress": "EMAIL",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}
"""As virt-pki-query-dn writes them (libvirt 9.0, observed)."""


class TlsFilesError(Exception):
    """Certificates that cannot be used; the text says which file and why."""


class TlsTransport:
    """Bytes through TLS, after its handshake. Carries no descriptors.

    OpenSSL gets no more than one record ahead, and each read has room for a whole one: what has
    arrived is either handed out or still in the socket. So the socket alone tells when to read.
    """

    carries_fds = False

    def __init__(self, sock: ssl.SSLSocket) -> None:
        prepare_tcp(sock)
        self._sock = sock
        self._held: bytes | None = None

    def fileno(self) -> int:
        """The descriptor to watch; -1 once closed."""
        return self._sock.fileno()

    def read(self) -> tuple[bytes, list[int]]:
        """See `Transport`."""
        try:
            return self._sock.recv(READ_BYTES), []
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def write(self, chunks: deque[Chunk]) -> int:
        """See `Transport`."""
        # What OpenSSL could not send it must be given again, and nothing else instead.
        data = self._held or _record_ahead(chunks)
        try:
            count = self._sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._held = data
            raise BlockingIOError from None
        self._held = None
        drop(chunks, count)
        return count

    def gone(self) -> bool:
        """Whether the peer has closed, looked up now, even behind bytes not yet read."""
        return is_hung_up(self._sock.fileno())

    def limit_silence(self, seconds: float | None) -> None:
        """As for a plain TCP socket: the kernel knows nothing of TLS."""
        limit_tcp_silence(self._sock, seconds)

    def close(self) -> None:
        """Say that this is the end, if that can leave at once, and close the socket."""
        with contextlib.suppress(OSError, ValueError):
            self._sock.unwrap()
        self._sock.close()


def _record_ahead(chunks: deque[Chunk]) -> bytes:
    """As much of the output's front as fits into one record."""
    ahead = bytearray()
    for chunk in chunks:
        if isinstance(chunk, FdByte) or len(ahead) == _RECORD_BYTES:
            break
        ahead += memoryview(chunk)[: _RECORD_BYTES - len(ahead)]
    return bytes(ahead)


def server_context(
    *, ca: Path, certificate: Path, key: Path, revoked: Path, demand: bool = True
) -> ssl.SSLContext:
    """What a server shows and demands: a certificate of the client's, by the same CA.

    Args:
        demand: refuse clients that show none; a bad one is refused in any case.
        revoked: the CA's list of revoked certificates; heeded if the file is there.

    Raises:
        TlsFilesError: a file cannot be used, the key is not the certificate's, or clients would
            not believe the certificate: not by this CA, expired, not for servers.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    context.num_tickets = 0  # sessions are not resumed
    context.verify_mode = ssl.CERT_REQUIRED if demand else ssl.CERT_OPTIONAL
    _trust(context, ca, revoked)
    _show(context, certificate, key)
    _prove(certificate, key, ca)
    return context


def client_context(
    *, ca: Path | None, certificate: Path | None, key: Path | None, revoked: Path | None
) -> ssl.SSLContext:
    """What a client shows and demands.

    Args:
        ca: who must have signed the server's certificate; None believes any server.
        certificate, key: what we show if the server asks; both or none.

    Raises:
        TlsFilesError: a file cannot be used, or the key is not the certificate's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context)
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        _trust(context, ca, revoked)
    if certificate is not None and key is not None:
        _show(context, certificate, key)
    return context


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION


def _trust(context: ssl.SSLContext, ca: Path, revoked: Path | None) -> None:
    _refuse_other_than_files(ca, revoked)
    try:
        context.load_verify_locations(ca)
    except (OSError, ValueError) as error:
        raise TlsFilesError(f"cannot use the CA certificate {ca}: {_why(error)}") from error
    if revoked is not None and revoked.exists():
        try:
            context.load_verify_locations(revoked)
        except (OSError, ValueError) as error:
            raise TlsFilesError(
                f"cannot use the list of revoked certificates {revoked}: {_why(error)}"
            ) from error
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


def _refuse_other_than_files(*paths: Path | None) -> None:
    """Opening a pipe would wait for ever."""
    for path in paths:
        if path is not None and path.exists() and not path.is_file():
            raise TlsFilesError(f"{path} is not a file")


def _show(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    _refuse_other_than_files(certificate, key)
    for path, what in ((certificate, "certificate"), (key, "key")):
        try:
            path.read_bytes()  # OpenSSL does not say which of the two it could not read
        except OSError as error:
            raise TlsFilesError(f"cannot use the {what} {path}: {_why(error)}") from error
    try:
        # Without a word for it, an encrypted key would be asked for at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise TlsFilesError(
            f"cannot use the certificate {certificate} with the key {key}: {_why(error)}"
        ) from error


def _prove(certificate: Path, key: Path, ca: Path) -> None:
    """Shake hands with ourselves, so that a certificate nobody would believe is seen now."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _show(server, certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    _trust(client, ca, None)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(back, there, server_side=False),
        server.wrap_bio(there, back, server_side=True),
    )
    try:
        for step in range(_PROOF_STEPS):
            with contextlib.suppress(ssl.SSLWantReadError):
                ends[step % 2].do_handshake()
    except ssl.SSLError as error:
        raise TlsFilesError(
            f"clients would not believe the certificate {certificate}: {_why(error)}"
        ) from error


def _why(error: Exception) -> str:
    """An error of OpenSSL's or the system's, without the place in their sources."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)


def why_refused(error: ssl.SSLError) -> str:
    """Why a handshake failed, for a person."""
    return _why(error)


def distinguished_name(sock: ssl.SSLSocket) -> str:
    """The subject of the certificate that the peer showed and that was verified; "" if none was.

    In the certificate's own order: `C=GB,O=Example,CN=host-a`, as libvirt's tools print it.
    """
    shown: dict[str, Any] = sock.getpeercert() or {}
    return ",".join(
        "+".join(f"{_SHORT_NAMES.get(name, name)}={_escaped(value)}" for name, value in part)
        for part in shown.get("subject", ())
    )


def _escaped(value: str) -> str:
    """A value as RFC 4514 writes it, so that none can look like two."""
    return "".join(f"\\{c}" if c in ',+"\\<>;=' else c for c in value)


def is_allowed(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a certificate's name is among those allowed; no patterns allow every name.

    In a pattern `*` stands for anything and `?` for one character.
    """
    return not patterns or any(fnmatchcase(name, _literal(pattern)) for pattern in patterns)


def _literal(pattern: str) -> str:
    """`fnmatch` has a third sign of its own, which names may contain."""
    return pattern.replace("[", "[[]")
