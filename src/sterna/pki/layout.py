"""The files of a host's certificates, and how they are put in place.

| below /etc/pki | for |
|---|---|
| `CA/`, `libvirt/` | the daemons: who may rule a host |
| `qemu/` | QEMU: a guest's memory on its way, which other hosts' QEMU may receive |
| `CA/private/` | the keys of both CAs, on the host where `sterna pki init` ran and nowhere else |

There are two CAs. QEMU must be able to read its own key; if a guest breaks out of its QEMU, that
key must not be one that opens a daemon's door.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CONTROL_CA: Final = "CA/cacert.pem"
CONTROL_CA_KEY: Final = "CA/private/cakey.pem"
SERVER: Final = ("libvirt/servercert.pem", "libvirt/private/serverkey.pem")
CLIENT: Final = ("libvirt/clientcert.pem", "libvirt/private/clientkey.pem")
QEMU_CA: Final = "qemu/ca-cert.pem"
QEMU_CA_KEY: Final = "CA/private/qemu-cakey.pem"
QEMU_SERVER: Final = ("qemu/server-cert.pem", "qemu/server-key.pem")
QEMU_CLIENT: Final = ("qemu/client-cert.pem", "qemu/client-key.pem")

CERTIFICATES: Final = (
    CONTROL_CA, SERVER[0], CLIENT[0], QEMU_CA, QEMU_SERVER[0], QEMU_CLIENT[0],
)  # fmt: skip
KEYS: Final = (SERVER[1], CLIENT[1], QEMU_SERVER[1], QEMU_CLIENT[1])
CA_KEYS: Final = (CONTROL_CA_KEY, QEMU_CA_KEY)
_SECRET: Final = frozenset(KEYS + CA_KEYS)
_OF_A_HOST: Final = frozenset(CERTIFICATES + KEYS)
_QEMUS: Final = "qemu/"
_BUNDLE_BYTES_MAX: Final = 1024 * 1024
_FORMAT: Final = 1


class PkiError(Exception):
    """It cannot be done; the text says what is in the way."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything that one host needs.

    Attributes:
        host: its name.
        files: PEM by path below /etc/pki. Keys are among them, those of the CAs are not.
    """

    host: str
    files: Mapping[str, str]

    def write(self, path: Path, *, force: bool) -> None:
        """Write it where only its owner can read it. Raises: PkiError."""
        document = {"sterna-pki": _FORMAT, "host": self.host, "files": dict(self.files)}
        refuse_overwriting([path], force=force)
        write_file(path, json.dumps(document, indent=1) + "\n", secret=True)

    @classmethod
    def read(cls, path: Path) -> Bundle:
        """Read it back. Raises: PkiError, it is none."""
        try:
            with path.open("rb") as file:
                document = json.loads(file.read(_BUNDLE_BYTES_MAX))
            if document["sterna-pki"] != _FORMAT:
                raise ValueError("it is of another version")
            host, files = document["host"], document["files"]
            if set(files) != _OF_A_HOST or not all(isinstance(v, str) for v in files.values()):
                raise ValueError("it has other files")
        except OSError as error:
            raise PkiError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise PkiError(f"{path} is not what `sterna pki host` makes: {error}") from error
        return cls(str(host), files)


def install(
    files: Mapping[str, str], directory: Path, *, force: bool, qemu_user: tuple[int, int] | None
) -> None:
    """Put files in place; all of them or, if one is in the way, none.

    Args:
        qemu_user: user and group that QEMU runs as where it is not the daemon's.

    Raises:
        PkiError: one is there already and `force` is not given, or cannot be written.
    """
    refuse_overwriting([directory / path for path in files], force=force)
    for path, text in sorted(files.items(), key=lambda item: item[0] in _SECRET):
        owner = qemu_user if path.startswith(_QEMUS) else None
        write_file(directory / path, text, secret=path in _SECRET, owner=owner)


def refuse_overwriting(paths: Iterable[Path], *, force: bool) -> None:
    """Raises: PkiError, naming those that are there."""
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise PkiError(f"{there[0]}{more}: there already; --force overwrites")


def write_file(
    path: Path, text: str, *, secret: bool, owner: tuple[int, int] | None = None
) -> None:
    """Write a file as a whole, a secret one with mode 0600. Raises: PkiError."""
    new = path.with_name(f".{path.name}.new")
    try:
        _make_directory(path.parent)
        new.unlink(missing_ok=True)
        mode = 0o600 if secret else 0o644
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(fd, "w", encoding="ascii") as file:
            os.fchmod(fd, mode)
            if owner is not None:
                os.fchown(fd, *owner)
            file.write(text)
            file.flush()
            os.fsync(fd)
        new.rename(path)
    except OSError as error:
        raise PkiError(f"cannot write {path}: {error.strerror}") from error


def _make_directory(directory: Path) -> None:
    """With those above it. Whatever the umask says, QEMU must come to its own files."""
    if not directory.exists():
        _make_directory(directory.parent)
        directory.mkdir()
        directory.chmod(0o700 if directory.name == "private" else 0o755)


def read_file(directory: Path, path: str) -> str:
    """Raises: PkiError."""
    try:
        return (directory / path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no PEM"
        raise PkiError(f"cannot read {directory / path}: {why}") from error
