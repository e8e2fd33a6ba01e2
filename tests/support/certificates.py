"""Certificates for tests, made with openssl: what an administrator without our help would have."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

SERVER = "serverAuth"
CLIENT = "clientAuth"


def openssl(*words: str, stdin: str = "") -> None:
    subprocess.run(
        ["openssl", *words], input=stdin, text=True, check=True, capture_output=True, timeout=20
    )


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA of its own directory."""

    directory: Path
    name: str = "CA"

    @property
    def certificate(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def key(self) -> Path:
        return self.directory / "ca.key"

    def make(self) -> Authority:
        """Make the CA."""
        self.directory.mkdir(parents=True)
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", str(self.key), "-out", str(self.certificate)),
            *("-days", "2", "-subj", f"/CN={self.name}"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
        return self

    def sign(
        self,
        subject: str,
        certificate: Path,
        key: Path,
        *,
        usage: str,
        names: str = "",
        expired: bool = False,
    ) -> None:
        """A certificate and its key. `names` as openssl's subjectAltName: "DNS:a,IP:127.0.0.1"."""
        for path in (certificate, key):
            path.parent.mkdir(parents=True, exist_ok=True)
        extensions = f"extendedKeyUsage={usage}\n"
        if names:
            extensions += f"subjectAltName={names}\n"
        request = certificate.with_suffix(".csr")
        openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(request), "-subj", subject),
        )
        openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.certificate)),
            *("-CAkey", str(self.key), "-CAcreateserial", "-out", str(certificate)),
            *("-days", "-1" if expired else "2", "-extfile", "/dev/stdin"),
            stdin=extensions,
        )
        request.unlink()

    def server(self, pki: Path, *, names: str = "IP:127.0.0.1", expired: bool = False) -> Path:
        """A server's files, laid out as below /etc/pki; gives that directory."""
        ca = pki / "CA" / "cacert.pem"
        ca.parent.mkdir(parents=True, exist_ok=True)
        ca.write_bytes(self.certificate.read_bytes())
        own = pki / "libvirt"
        self.sign(
            "/O=Sterna/CN=host",
            own / "servercert.pem",
            own / "private" / "serverkey.pem",
            usage=SERVER,
            names=names,
            expired=expired,
        )
        return pki

    def client(self, pkipath: Path, name: str = "client", *, expired: bool = False) -> Path:
        """A client's files, laid out as for `?pkipath=`; gives that directory."""
        pkipath.mkdir(parents=True, exist_ok=True)
        (pkipath / "cacert.pem").write_bytes(self.certificate.read_bytes())
        self.sign(
            f"/C=GB/O=Sterna/CN={name}",
            pkipath / "clientcert.pem",
            pkipath / "clientkey.pem",
            usage=CLIENT,
            expired=expired,
        )
        return pkipath
