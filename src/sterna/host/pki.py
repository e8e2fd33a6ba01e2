"""Where certificates are: libvirt's places, so that a host which has them needs nothing new.

| file | below the system's `/etc/pki` | a user's, or in `?pkipath=DIR` |
|---|---|---|
| CA | `CA/cacert.pem` | `cacert.pem` |
| revoked by it, if there | `CA/cacrl.pem` | `cacrl.pem` |
| a server's certificate | `libvirt/servercert.pem` | |
| its key | `libvirt/private/serverkey.pem` | |
| a client's certificate | `libvirt/clientcert.pem` | `clientcert.pem` |
| its key | `libvirt/private/clientkey.pem` | `clientkey.pem` |
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SYSTEM_PKI: Final = Path("/etc/pki")


@dataclass(frozen=True, slots=True)
class PkiFiles:
    """The certificates of one side. `revoked` need not exist; a client need have no certificate,
    and then `certificate` and `key` are None."""

    ca: Path
    revoked: Path
    certificate: Path | None
    key: Path | None


def server_files(pki: Path = SYSTEM_PKI) -> PkiFiles:
    """A server's, below that directory."""
    own = pki / "libvirt"
    return PkiFiles(
        pki / "CA" / "cacert.pem",
        pki / "CA" / "cacrl.pem",
        own / "servercert.pem",
        own / "private" / "serverkey.pem",
    )


def client_files(pkipath: Path | None, pki: Path = SYSTEM_PKI) -> PkiFiles:
    """A client's: from `pkipath`, else the user's own if there are any, else the system's, which
    are below `pki`."""
    if pkipath is not None:
        return _flat(pkipath)
    system = PkiFiles(
        pki / "CA" / "cacert.pem",
        pki / "CA" / "cacrl.pem",
        *_pair(pki / "libvirt" / "clientcert.pem", "private/clientkey.pem"),
    )
    if os.geteuid() == 0 or pki != SYSTEM_PKI:
        return system
    own = _flat(Path.home() / ".pki" / "libvirt")
    authority = own if own.ca.exists() else system
    identity = own if own.certificate is not None else system
    return PkiFiles(authority.ca, authority.revoked, identity.certificate, identity.key)


def _flat(directory: Path) -> PkiFiles:
    return PkiFiles(
        directory / "cacert.pem",
        directory / "cacrl.pem",
        *_pair(directory / "clientcert.pem", "clientkey.pem"),
    )


def _pair(certificate: Path, key: str) -> tuple[Path, Path] | tuple[None, None]:
    """A client's certificate and key, if either is there: half of it is an error to be told."""
    beside = certificate.parent / key
    return (certificate, beside) if certificate.exists() or beside.exists() else (None, None)
