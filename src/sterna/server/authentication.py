"""Who a client is, where it has to say so first: SASL's side of a session.

Until then it is a stranger: it is answered nothing else, has little room and little time, and
there are only so many of them. Somebody who guesses is not answered for a while.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from sterna.errors import AuthFailed
from sterna.host.passwords import Passwords, PasswordsError
from sterna.rpc.asyncio_shell import Limits, ServerConnection
from sterna.rpc.scram import MECHANISM as SCRAM
from sterna.rpc.scram import ScramError, ScramServer
from sterna.server.logging import event

EXTERNAL: Final = "EXTERNAL"
"""The name in the client's certificate is who it is (RFC 4422, appendix A)."""
STRANGERS_MAX: Final = 64
"""One more ends the oldest."""
STRANGER_S: Final = 30.0
FAILURES_MAX: Final = 10
"""From one address, within the time below; then it is answered no more until that is over."""
FAILURES_S: Final = 60.0
ADDRESSES_MAX: Final = 1024
LIMITS: Final = Limits(
    packet_bytes_max=300_000,  # 64 KiB of SASL's data, four bytes each on the wire
    calls_running_max=2,
    calls_running_extra=2,
    calls_waiting_max=4,
    call_bytes_max=1024 * 1024,
)
_NONCE_BYTES = 24

log = logging.getLogger(__name__)


class Failures:
    """How often clients of an address were wrong lately."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._by_address: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def too_many(self, address: str) -> bool:
        count, until = self._by_address.get(address, (0, 0.0))
        return count >= FAILURES_MAX and self._now() < until

    def add(self, address: str) -> None:
        count, until = self._by_address.pop(address, (0, 0.0))
        if self._now() >= until:
            count, until = 0, self._now() + FAILURES_S
        self._by_address[address] = count + 1, until
        if len(self._by_address) > ADDRESSES_MAX:
            self._by_address.popitem(last=False)


class Strangers:
    """Clients that have not said who they are."""

    def __init__(self, passwords: Passwords) -> None:
        self.passwords = passwords
        self.failures = Failures(asyncio.get_running_loop().time)
        self._here: dict[Authentication, None] = {}

    def add(self, stranger: Authentication) -> None:
        """Bound their number."""
        if len(self._here) >= STRANGERS_MAX:
            next(iter(self._here)).connection.abort("it has not said who it is, and others came")
        self._here[stranger] = None

    def remove(self, stranger: Authentication) -> None:
        self._here.pop(stranger, None)


class Authentication:
    """One client's, until it is known. Touched only on the event loop.

    Args:
        certificate: the name in the certificate it has shown, if that is enough to be let in.
        limits: what it may have once it is known.

    Attributes:
        user: who it is; None while that is not known.
    """

    def __init__(
        self, connection: ServerConnection, strangers: Strangers, certificate: str, limits: Limits
    ) -> None:
        self.connection = connection
        self.user: str | None = None
        self._strangers = strangers
        self._certificate = certificate
        self._limits = limits
        self._address = connection.peer.address.rpartition(":")[0]
        self._scram: ScramServer | None = None
        self._external = False
        strangers.add(self)
        loop = asyncio.get_running_loop()
        self._limit = loop.call_later(STRANGER_S, connection.abort, "it does not say who it is")
        connection.add_close_callback(self._forget)

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """How it may say who it is."""
        return (EXTERNAL, SCRAM) if self._certificate else (SCRAM,)

    def start(self, mechanism: str, data: bytes | None) -> tuple[bool, bytes | None]:
        """Begin. Gives whether that was all, and what to answer.

        Args:
            data: what the client sent; None for nothing at all.

        Raises:
            AuthFailed: it is nobody we know.
        """
        if self.user is not None or self._scram is not None or self._external:
            raise self._failed("it has begun before")
        if self._strangers.failures.too_many(self._address):
            raise self._failed("too many failures from its address", counts=False)
        if mechanism not in self.mechanisms:
            raise self._failed("an unknown mechanism")
        if mechanism == EXTERNAL:
            self._external = True
        else:
            nonce = secrets.token_urlsafe(_NONCE_BYTES)
            self._scram = ScramServer(self._strangers.passwords.find, nonce)
        return (False, None) if data is None else self.step(data)

    def step(self, data: bytes | None) -> tuple[bool, bytes | None]:
        """Go on; as `start`."""
        if self._external:
            if data and data.decode(errors="replace") != self._certificate:
                raise self._failed("its certificate has another name")
            return self._succeeded(self._certificate, None)
        scram = self._scram
        if scram is None:
            raise self._failed("it has not begun")
        try:
            if not scram.user:
                return False, scram.first(data or b"")
            return self._succeeded(scram.user, scram.final(data or b""))
        except ScramError as error:
            raise self._failed(str(error)) from error
        except PasswordsError as error:
            event(log, "authentication.broken", logging.ERROR, error=error)
            raise self._failed("passwords cannot be read", counts=False) from error

    def _succeeded(self, user: str, data: bytes | None) -> tuple[bool, bytes | None]:
        self.user = user
        self._forget()
        self.connection.remove_close_callback(self._forget)
        self.connection.widen(self._limits)
        event(log, "client.authenticated", peer=self.connection.peer.address, user=user)
        return True, data

    def _failed(self, why: str, *, counts: bool = True) -> AuthFailed:
        """The client hears no more than that."""
        if counts:
            self._strangers.failures.add(self._address)
        event(
            log,
            "client.not_authenticated",
            logging.WARNING,
            peer=self.connection.peer.address,
            user=self._scram.user if self._scram is not None else "",
            why=why,
        )
        self._scram, self._external = None, False
        return AuthFailed("authentication failed")

    def _forget(self) -> None:
        self._limit.cancel()
        self._strangers.remove(self)
