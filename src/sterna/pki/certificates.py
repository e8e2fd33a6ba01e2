"""Keys and certificates: a CA's, a host's. Here alone the package `cryptography` is used.

Keys are on the curve P-256. A certificate permits what libvirt 9.0 and QEMU 7.2 look for in one;
an elliptic curve needs no "key encipherment", but both refuse a certificate without it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sterna.pki import layout
from sterna.pki.layout import PkiError

CA_DAYS: Final = 3650
HOST_DAYS: Final = 825
_AHEAD: Final = timedelta(hours=1)
"""Clocks of two hosts differ: a certificate counts from a little before it was made."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a certificate says."""

    name: str
    names: tuple[str, ...]
    issuer: str
    expires: datetime


class Authority:
    """A CA: its certificate and its key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def make(cls, name: str, now: datetime) -> Self:
        """A new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name)
        builder = (
            _begun(subject, subject, key, now, CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(ca=True), critical=True)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def read(cls, certificate: str, key: str) -> Self:
        """From PEM. Raises: PkiError, they are none or do not belong together."""
        try:
            loaded = x509.load_pem_x509_certificate(certificate.encode())
            private = serialization.load_pem_private_key(key.encode(), password=None)
        except (ValueError, TypeError) as error:
            raise PkiError(f"the CA cannot be used: {error}") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise PkiError("the CA cannot be used: its key is of another kind than ours")
        if private.public_key() != loaded.public_key():
            raise PkiError("the CA cannot be used: its key is not its certificate's")
        return cls(loaded, private)

    @property
    def pem(self) -> str:
        return _pem(self._certificate)

    @property
    def key_pem(self) -> str:
        return _key_pem(self._key)

    def sign(
        self, name: str, names: tuple[str, ...], now: datetime, *, server: bool
    ) -> tuple[str, str]:
        """A certificate and its key, both PEM.

        Args:
            names: host names and addresses that the certificate is for; none: only its name.
            server: for a server; else for a client.

        Raises:
            PkiError: one is no name.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        alternatives = [_alternative(n) for n in names] or [_alternative(name)]
        builder = (
            _begun(_subject(name), self._certificate.subject, key, now, HOST_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(issued_by, critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        )
        return _pem(builder.sign(self._key, hashes.SHA256())), _key_pem(key)


def make_host(
    name: str, names: tuple[str, ...], control: Authority, qemu: Authority, now: datetime
) -> dict[str, str]:
    """All files of a host, by path below /etc/pki. Raises: PkiError."""
    files = {layout.CONTROL_CA: control.pem, layout.QEMU_CA: qemu.pem}
    for authority, server, (certificate, key) in (
        (control, True, layout.SERVER),
        (control, False, layout.CLIENT),
        (qemu, True, layout.QEMU_SERVER),
        (qemu, False, layout.QEMU_CLIENT),
    ):
        # Nobody looks for a client by its address.
        called = names if server else ()
        files[certificate], files[key] = authority.sign(name, called, now, server=server)
    return files


def look_at(pem: str) -> Seen:
    """What a certificate says. Raises: PkiError, it is none."""
    try:
        found = x509.load_pem_x509_certificate(pem.encode())
        names = _names_of(found)
    except ValueError as error:
        raise PkiError(f"no certificate: {error}") from error
    return Seen(_common(found.subject), names, _common(found.issuer), found.not_valid_after_utc)


def _names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in found.value)


def _common(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _AHEAD)
        .not_valid_after(now.astimezone(UTC) + timedelta(days=days))
        .add_extension(identifier, critical=False)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_encipherment=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    except ValueError as error:
        raise PkiError(f"{name!r} cannot be a certificate's name: {error}") from error


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name.encode("idna").decode() if not name.isascii() else name)
    except (ValueError, UnicodeError) as error:
        raise PkiError(f"{name!r} is no host name: {error}") from error


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
