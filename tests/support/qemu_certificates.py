"""Certificates for QEMU's own TLS, made with openssl: what `migration_tls_dir` points to."""

from __future__ import annotations

import subprocess
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def openssl(*words: str, stdin: str = "") -> None:
    subprocess.run(
        ["openssl", *words], input=stdin, text=True, check=True, capture_output=True, timeout=20
    )


def make_authority(directory: Path) -> Path:
    """A new authority; gives its directory."""
    directory.mkdir()
    openssl(
        *("req", "-x509", *_KEY, "-keyout", str(directory / "ca-key.pem")),
        *("-out", str(directory / "ca-cert.pem"), "-days", "2", "-subj", "/CN=Migrations"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    return directory


def make_host(authority: Path, directory: Path, names: str) -> Path:
    """What QEMU reads at both ends; `names` as in openssl's subjectAltName: "IP:127.0.0.1"."""
    directory.mkdir()
    certificate = authority / "ca-cert.pem"
    (directory / "ca-cert.pem").write_bytes(certificate.read_bytes())
    for end, usage in (("server", "serverAuth"), ("client", "clientAuth")):
        cert, key = directory / f"{end}-cert.pem", directory / f"{end}-key.pem"
        request = directory / "request"
        openssl(*("req", *_KEY, "-keyout", str(key), "-out", str(request), "-subj", "/CN=host"))
        openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(certificate), "-CAcreateserial"),
            *("-CAkey", str(authority / "ca-key.pem"), "-out", str(cert), "-days", "2"),
            *("-extfile", "/dev/stdin"),
            stdin=f"extendedKeyUsage={usage}\nsubjectAltName={names}\n",
        )
        request.unlink()
        # QEMU may run as another user than the test.
        key.chmod(0o644)
    return directory
