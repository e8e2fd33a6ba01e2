"""SCRAM-SHA-256: a password is proven without being sent, by both sides (RFC 5802, RFC 7677).

No I/O and no randomness: whoever uses it brings nonces and salts. What a server keeps of a
password is a `Verifier`, with which nobody can log in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import stringprep
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

MECHANISM: Final = "SCRAM-SHA-256"
ITERATIONS: Final = 65_536
"""For new verifiers: the most that libsasl 2.1, and with it virsh, computes (observed)."""
ITERATIONS_MAX: Final = 10_000_000
"""A server must not keep a client busy for ever."""
_ITERATIONS_MIN = 4096
"""RFC 7677, section 4."""
_MESSAGE_BYTES_MAX = 4096
_FORBIDDEN: Final = (
    stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3,
    stringprep.in_table_c4, stringprep.in_table_c5, stringprep.in_table_c6, stringprep.in_table_c7,
    stringprep.in_table_c8, stringprep.in_table_c9,
)  # fmt: skip


class ScramError(Exception):
    """The other side's message is malformed, or proves nothing. The text is for our own log."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """What is kept of a password. As text it is what PostgreSQL keeps as well:
    `SCRAM-SHA-256$ITERATIONS:SALT$STORED_KEY:SERVER_KEY`, the last three in base64."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def of(cls, password: str, salt: bytes, iterations: int = ITERATIONS) -> Self:
        """The verifier of a password. ValueError if a password cannot have these characters."""
        salted = _salted(password, salt, iterations)
        return cls(
            iterations, salt, hashlib.sha256(_client_key(salted)).digest(), _server_key(salted)
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it back. ValueError if it is none."""
        mechanism, cost, keys = text.split("$")
        iterations, salt = cost.split(":")
        stored, server = keys.split(":")
        if mechanism != MECHANISM:
            raise ValueError(f"not of {MECHANISM}")
        return cls(int(iterations), *(base64.b64decode(part) for part in (salt, stored, server)))

    def __str__(self) -> str:
        salt, stored, server = map(_encode, (self.salt, self.stored_key, self.server_key))
        return f"{MECHANISM}${self.iterations}:{salt}${stored}:{server}"


class ScramServer:
    """A server's side of one login: `first`, then `final`.

    Args:
        find: a user's verifier; for an unknown one something that nothing fits, so that users
            cannot be guessed one by one.
        nonce: fresh, random, printable, without a comma.

    Attributes:
        user: whom the client says it is; proven once `final` has returned.
    """

    def __init__(self, find: Callable[[str], Verifier], nonce: str) -> None:
        self.user = ""
        self._find = find
        self._nonce = nonce
        self._verifier: Verifier | None = None
        self._binding = ""
        self._so_far = ""

    def first(self, message: bytes) -> bytes:
        """Answer the client's first message.

        Raises:
            ScramError: it is malformed, or asks for what we don't have.
        """
        flag, _, more = _text(message).partition(",")
        authorization, _, bare = more.partition(",")
        if flag not in ("n", "y"):
            raise ScramError("channel binding is not offered")
        fields = _fields(bare, "nr")
        self.user = _unquoted(fields["n"])
        if authorization and f"a={self.user}" != _unquoted(authorization):
            raise ScramError("it wants to be somebody else than it is")
        self._binding = _encode(f"{flag},{authorization},".encode())
        self._nonce = fields["r"] + self._nonce
        verifier = self._verifier = self._find(self.user)
        answer = f"r={self._nonce},s={_encode(verifier.salt)},i={verifier.iterations}"
        self._so_far = f"{bare},{answer}"
        return answer.encode()

    def final(self, message: bytes) -> bytes:
        """Answer the client's proof with ours.

        Raises:
            ScramError: it proves nothing.
        """
        if self._verifier is None:
            raise ScramError("this came too early")
        text = _text(message)
        fields = _fields(text, "crp")
        if fields["c"] != self._binding or fields["r"] != self._nonce:
            raise ScramError("this does not belong to what was said before")
        said = f"{self._so_far},{text[: text.rindex(',p=')]}".encode()
        signature = _mac(self._verifier.stored_key, said)
        proof = _decode(fields["p"])
        if len(proof) != len(signature):
            raise ScramError("its proof has the wrong length")
        key = hashlib.sha256(_both(proof, signature)).digest()
        if not hmac.compare_digest(key, self._verifier.stored_key):
            raise ScramError("wrong password, or no such user")
        return b"v=" + _encode(_mac(self._verifier.server_key, said)).encode()


class ScramClient:
    """A client's side of one login: `first`, `final`, `check`."""

    def __init__(self, user: str, password: str, nonce: str) -> None:
        self._password = password
        self._nonce = nonce
        self._bare = f"n={_quoted(user)},r={nonce}"
        self._expected = b""

    def first(self) -> bytes:
        return f"n,,{self._bare}".encode()

    def final(self, message: bytes) -> bytes:
        """Our proof, for what the server answered. Takes a moment of computing.

        Raises:
            ScramError: the answer is malformed, or not to ours.
        """
        text = _text(message)
        fields = _fields(text, "rsi")
        nonce, iterations = fields["r"], fields["i"]
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ScramError("the server's answer is not to our question")
        if not iterations.isdecimal() or not _ITERATIONS_MIN <= int(iterations) <= ITERATIONS_MAX:
            raise ScramError(f"the server asks for {iterations} iterations")
        salted = _salted(self._password, _decode(fields["s"]), int(iterations))
        plain = f"c=biws,r={nonce}"
        said = f"{self._bare},{text},{plain}".encode()
        key = _client_key(salted)
        proof = _both(key, _mac(hashlib.sha256(key).digest(), said))
        self._expected = _mac(_server_key(salted), said)
        return f"{plain},p={_encode(proof)}".encode()

    def check(self, message: bytes) -> None:
        """See that the server knows the password too.

        Raises:
            ScramError: it does not, or says nothing of it.
        """
        shown = _decode(_fields(_text(message), "v")["v"])
        if not self._expected or not hmac.compare_digest(shown, self._expected):
            raise ScramError("the server does not know the password itself")


# -- messages


def _text(message: bytes) -> str:
    if len(message) > _MESSAGE_BYTES_MAX:
        raise ScramError("a message is too long")
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise ScramError("a message is no text") from None


def _fields(text: str, wanted: str) -> dict[str, str]:
    """The attributes of a message, which must begin with those wanted, in that order."""
    parts = [part.partition("=") for part in text.split(",")]
    if "".join(name for name, _, _ in parts[: len(wanted)]) != wanted:
        raise ScramError(f"a message without {', '.join(wanted)}")
    found = {name: value for name, _, value in parts[: len(wanted)]}
    if not all(found.values()):
        raise ScramError("a message with nothing in it")
    # Extensions may come before the proof, and are covered by it.
    return found


def _quoted(name: str) -> str:
    return prepared(name).replace("=", "=3D").replace(",", "=2C")


def _unquoted(name: str) -> str:
    return name.replace("=2C", ",").replace("=3D", "=")


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ScramError("a message with broken base64") from None


# -- keys


def prepared(text: str) -> str:
    """A name or password in the one form in which it is compared (SASLprep, RFC 4013).

    Raises:
        ValueError: it is empty, or has characters that nobody can type.
    """
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c)
    )
    made = unicodedata.normalize("NFKC", mapped)
    if not made or any(table(c) for c in made for table in _FORBIDDEN):
        raise ValueError("a name or password that is empty or has control characters")
    return made


def _salted(password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", prepared(password).encode(), salt, iterations)


def _client_key(salted: bytes) -> bytes:
    return _mac(salted, b"Client Key")


def _server_key(salted: bytes) -> bytes:
    return _mac(salted, b"Server Key")


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _both(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
