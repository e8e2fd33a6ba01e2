"""How this host asks another one what it decided: one call over a connection of its own.

The port it fills is `sterna.migration.peers`; why it is asked, and why so, is in
docs/explanation/asking.md.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

from sterna.errors import SternaError
from sterna.host.pki import SYSTEM_PKI
from sterna.migration.peers import Claim, Claimed, Decided, NoAnswer, Question
from sterna.migration.remote import RemoteLost
from sterna.rpc.asyncio_shell import ClientConnection, Limits
from sterna.rpc.msg_decision import (
    GuestClaimArgs,
    GuestClaimRet,
    MigrationDecideArgs,
    MigrationDecideRet,
    MigrationRejoinArgs,
    MigrationRejoinRet,
)
from sterna.server import remotes
from sterna.server.decisions import QUESTION_BYTES_MAX, DecisionListener
from sterna.server.logging import event
from sterna.store.ports import Verdict

ANSWER_S: Final = 3.0
"""How long one place may take to answer, with finding and reaching it. A decision is one synced
write there; a host that no packet reaches must not hold up the places behind it."""
STRANGER_S: Final = 10.0
"""How long a libvirtd may take: several calls, and its keepalive."""
PLACES_MAX: Final = 4
"""A host tells one place. They come in a cookie, which could name any number."""
NAME_CHARS_MAX: Final = 255
"""A host's name; a DNS name has 253."""
EPOCH_MAX: Final = 2**63 - 1
"""The store's integers are signed."""
SHOWN_CHARS_MAX: Final = 100

VERDICTS: Final[dict[int, Verdict]] = {1: "committed", 2: "aborted"}
"""As MIGRATION_DECIDE answers them."""

NUMBERS: Final = {verdict: number for number, verdict in VERDICTS.items()}

_PLACE = re.compile(r"tcp://(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:/]+)):(?P<port>[0-9]+)")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_LIMITS = Limits(packet_bytes_max=QUESTION_BYTES_MAX)

log = logging.getLogger(__name__)
T = TypeVar("T", Decided, Claimed, int)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a host answers: a name or an address without brackets, and a port."""

    host: str
    port: int


def parse_place(text: str) -> Place:
    """Read `tcp://HOST:PORT`, which came from outside.

    Raises:
        ValueError: it is anything else; the text says what is wrong.
    """
    found = _PLACE.fullmatch(text)
    if found is None:
        raise ValueError("expected tcp://HOST:PORT")
    digits = found["port"]
    if len(digits) > 5 or digits.startswith("0") or int(digits) > 65535:
        raise ValueError("no TCP port")
    if found["v6"] is not None:
        return Place(str(ipaddress.IPv6Address(found["v6"])), int(digits))
    name = found["name"]
    labels = name.removesuffix(".").split(".")
    if len(name) > NAME_CHARS_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("no host name")
    if labels[-1].isdecimal():
        # The resolver would take "1" for an address, too.
        return Place(str(ipaddress.IPv4Address(name)), int(digits))
    return Place(name, int(digits))


class HostPeers:
    """`sterna.migration.peers.Peers` over TCP.

    Args:
        hostname, uuid: this host, as it names itself to those it asks.
        listener: where this host itself is asked.
        answer_s: how long one place may take.
        pki: where the certificates are that this host shows to daemons it connects to.
    """

    def __init__(
        self,
        hostname: str,
        uuid: UUID,
        listener: DecisionListener,
        *,
        answer_s: float = ANSWER_S,
        pki: Path = SYSTEM_PKI,
    ) -> None:
        self._hostname = hostname
        self._uuid = uuid
        self._listener = listener
        self._answer_s = answer_s
        self._pki = pki

    def connect(self, uri: str) -> AbstractAsyncContextManager[remotes.Session]:
        """See `Peers`."""
        return remotes.session(uri, self._pki)

    async def own_place(self) -> str | None:
        """See `Peers`."""
        return await self._listener.own_place()

    async def ask(self, question: Question) -> Decided:
        """See `Peers`."""
        if question.uri:
            return await self._ask_stranger(question)
        args = MigrationDecideArgs(*self._asked(question))

        async def one(connection: ClientConnection) -> Decided:
            return read_answer(await connection.call("MIGRATION_DECIDE", args))

        return (await self._everywhere(question, one))[0]

    async def _ask_stranger(self, question: Question) -> Decided:
        """A libvirtd keeps no decisions: what the guest does there tells. Raises: NoAnswer."""
        try:
            async with asyncio.timeout(STRANGER_S), self.connect(question.uri) as session:
                if await session.host_uuid() != question.host:
                    raise NoAnswer(f"another host answers at {shown(question.uri)}")
                verdict = await session.verdict(question.guest)
        except (SternaError, RemoteLost, TimeoutError, ValueError) as failed:
            why = str(failed) or f"no answer within {STRANGER_S:g} s"
            raise NoAnswer(shown(why, 500)) from failed
        if verdict is None:
            raise NoAnswer(f"the guest still waits at {shown(question.uri)}")
        return Decided(verdict, 0, "")

    def _asked(self, question: Question) -> tuple[bytes, bytes, bytes, bytes, str]:
        """What both calls say: about which migration, whom they ask, and who asks."""
        migration = UUID(question.migration).bytes
        host = question.host.bytes
        return migration, question.guest.bytes, host, self._uuid.bytes, self._hostname

    async def resume(self, question: Question) -> tuple[str, int] | None:
        """See `Peers`."""
        args = MigrationRejoinArgs(*self._asked(question))

        async def one(connection: ClientConnection) -> int:
            return read_port(await connection.call("MIGRATION_REJOIN", args))

        port, place = await self._everywhere(question, one)
        return (parse_place(place).host, port) if port else None

    async def claim(self, claim: Claim) -> Claimed:
        """See `Peers`."""
        where = await self._listener.own_place()
        args = GuestClaimArgs(
            UUID(claim.migration).bytes,
            claim.guest.bytes,
            claim.host.bytes,
            self._uuid.bytes,
            self._hostname,
            where or "",
            claim.epoch,
        )

        async def one(connection: ClientConnection) -> Claimed:
            return read_claimed(await connection.call("GUEST_CLAIM", args))

        return (await self._everywhere(claim, one))[0]

    async def _everywhere(
        self, asked: Question | Claim, one: Callable[[ClientConnection], Awaitable[T]]
    ) -> tuple[T, str]:
        """The first answer of the host's places, and which gave it. Raises: NoAnswer."""
        if not asked.places:
            raise NoAnswer(f"host {asked.host} has not said where it can be asked")
        failures = []
        for text in asked.places[:PLACES_MAX]:
            about = {"mig": asked.migration, "guest": asked.guest, "place": shown(text)}
            event(log, "decision.asking", host_uuid=asked.host, **about)
            try:
                answer = await self._try(text, one)
            except NoAnswer as failed:
                event(log, "decision.no_answer", logging.WARNING, why=failed, **about)
                failures.append(f"{shown(text)}: {failed}")
                continue
            event(log, "decision.answer", answer=answer, **about)
            return answer, text
        unasked = len(asked.places) - PLACES_MAX
        if unasked > 0:
            failures.append(f"{unasked} more places were not asked")
        raise NoAnswer(f"host {asked.host} did not answer: " + "; ".join(failures))

    async def _try(self, text: str, one: Callable[[ClientConnection], Awaitable[T]]) -> T:
        """One place's answer. Raises: NoAnswer, why there is none."""
        try:
            place = parse_place(text)
        except ValueError as wrong:
            raise NoAnswer(f"not a place: {wrong}") from None
        try:
            async with asyncio.timeout(self._answer_s):
                connection = await ClientConnection.connect_tcp(
                    place.host, place.port, timeout_s=self._answer_s, limits=_LIMITS
                )
                try:
                    return await one(connection)
                finally:
                    connection.abort("the question is over")
        except TimeoutError:
            raise NoAnswer(f"no answer within {self._answer_s:g} s") from None
        except SternaError as refusal:
            raise NoAnswer(shown(str(refusal), 500)) from None
        except (OSError, UnicodeError) as failed:
            number = failed.errno if isinstance(failed, OSError) else None
            # The resolver's numbers are negative, and its texts its own.
            why = os.strerror(number) if number and number > 0 else str(failed)
            raise NoAnswer(why) from None
        except ValueError as wrong:
            raise NoAnswer(str(wrong)) from None


def read_answer(ret: MigrationDecideRet) -> Decided:
    """The verdict of an answer.

    Raises:
        ValueError: it is none.
    """
    verdict = VERDICTS.get(ret.verdict)
    if verdict is None:
        raise ValueError(f"its answer has the unknown verdict {ret.verdict}")
    if ret.epoch > EPOCH_MAX or len(ret.hostname) > NAME_CHARS_MAX:
        raise ValueError("its answer is malformed")
    return Decided(verdict, ret.epoch, ret.hostname)


def read_port(ret: MigrationRejoinRet) -> int:
    """The port of an answer; 0 if no page is missing.

    Raises:
        ValueError: it is none.
    """
    if not 0 <= ret.port <= 65535:
        raise ValueError(f"its answer has the port {ret.port}")
    return ret.port


def read_claimed(ret: GuestClaimRet) -> Claimed:
    """The holder's word.

    Raises:
        ValueError: it is none.
    """
    if ret.granted not in (0, 1) or ret.epoch > EPOCH_MAX or len(ret.hostname) > NAME_CHARS_MAX:
        raise ValueError("its answer is malformed")
    return Claimed(ret.granted == 1, ret.epoch, ret.hostname, shown(ret.why, 500))


def shown(text: str, chars_max: int = SHOWN_CHARS_MAX) -> str:
    """A stranger's text, as it may stand in ours: on one line, and not too long."""
    plain = "".join(c if c.isprintable() else "?" for c in text[: chars_max + 1])
    return plain if len(plain) <= chars_max else plain[:chars_max] + "…"
