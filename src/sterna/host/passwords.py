"""Who may come in with a password: a file of names and verifiers, for its owner's eyes only.

One line a user, `NAME:VERIFIER`; see `sterna.rpc.scram.Verifier`. It is read anew for each login,
and replaced as a whole: whoever reads it sees the old one or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from sterna.rpc.scram import ITERATIONS, Verifier, prepared

FILE_BYTES_MAX = 1024 * 1024
NAME_CHARS_MAX = 255
_SALT_BYTES = 16
_KEY_BYTES = 32


class PasswordsError(Exception):
    """The file cannot be used, or a name or password cannot be one; the text says why."""


class Passwords:
    """The file at a path. It need not exist: nobody has a password then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decoy = secrets.token_bytes(_KEY_BYTES)

    def users(self) -> list[str]:
        """Their names, sorted. Raises: PasswordsError."""
        return sorted(self._read())

    def find(self, user: str) -> Verifier:
        """A user's verifier; for one who has none, the same unknown one each time it is asked.

        Raises:
            PasswordsError: the file cannot be used.
        """
        found = self._read().get(user)
        return found if found is not None else self._nobodys(user)

    def _nobodys(self, user: str) -> Verifier:
        def made(purpose: str) -> bytes:
            return hmac.digest(self._decoy, f"{purpose} {user}".encode(), hashlib.sha256)

        salt = made("salt")[:_SALT_BYTES]
        return Verifier(ITERATIONS, salt, made("a"), made("b"))

    def set(self, user: str, password: str) -> None:
        """Give a user a password, new or instead of the old one.

        Raises:
            PasswordsError: as for `find`, or it cannot be a name or a password.
        """
        try:
            name = prepared(user)
            if ":" in name or len(name) > NAME_CHARS_MAX:
                raise ValueError("a name has no colon and 255 characters at most")
            verifier = Verifier.of(password, secrets.token_bytes(_SALT_BYTES))
        except ValueError as error:
            raise PasswordsError(str(error)) from error
        with self._changing() as users:
            users[name] = verifier

    def remove(self, user: str) -> bool:
        """Take a user's password away; whether there was one. Raises: PasswordsError."""
        with self._changing() as users:
            return users.pop(user, None) is not None

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Verifier]]:
        """The users, to be changed and then written; one writer at a time."""
        try:
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PasswordsError(f"cannot use {self._path.parent}: {error.strerror}") from error
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            users = self._read()
            yield users
            self._write("".join(f"{name}:{users[name]}\n" for name in sorted(users)))
            os.fsync(directory)
        finally:
            os.close(directory)

    def _read(self) -> dict[str, Verifier]:
        try:
            with self._path.open("rb") as file:
                raw = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise PasswordsError(f"cannot read {self._path}: {error.strerror}") from error
        if len(raw) > FILE_BYTES_MAX:
            raise PasswordsError(f"{self._path} is longer than {FILE_BYTES_MAX} bytes")
        users = {}
        for number, line in enumerate(raw.decode(errors="replace").splitlines(), 1):
            name, _, verifier = line.partition(":")
            try:
                users[name] = Verifier.parse(verifier)
            except ValueError as error:
                raise PasswordsError(f"{self._path}:{number}: not NAME:VERIFIER") from error
        return users

    def _write(self, text: str) -> None:
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            new.unlink(missing_ok=True)
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(fd)
            new.rename(self._path)
        except OSError as error:
            raise PasswordsError(f"cannot write {self._path}: {error.strerror}") from error
