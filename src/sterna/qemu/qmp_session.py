"""QMP without I/O: bytes in, messages out; commands in, bytes out.

Contract, for whoever moves the bytes:

- `receive_data(data)` and `receive_eof()` never raise. What they understood is in the returned
  list. A breach of the protocol sets `failure`, after which everything received is discarded.
- After any call, take `data_to_send()` and send it, in order. The batches of a command that
  carries file descriptors are apart from the others (`Outgoing.fds`).
- Nothing but the negotiation is sent before the greeting was answered: commands wait.

The protocol is QEMU's docs/interop/qmp-spec.txt (7.2). One message is one line here, because
QEMU writes one JSON object per line.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

LINE_BYTES_MAX = 64 << 20
"""Longest message taken from QEMU. The largest seen is query-qmp-schema, 0.2 MiB; a chain of
1,000 block nodes would give 2 MiB. A guest cannot make QEMU's messages long."""

IN_FLIGHT_MAX = 8
"""In-band commands unanswered at one time. QEMU stops *reading* the monitor when 8 are queued
(QMP_REQ_QUEUE_LEN_MAX in its documentation of out-of-band execution), and then not even an
out-of-band command would come through."""

WAITING_MAX = 1024
"""Commands that may wait for their turn. Far more than a daemon asks of one guest at a time;
reached, it is a bug or a QEMU that hangs."""


class Phase(Enum):
    """Where the conversation is."""

    GREETING = "waiting for the greeting"
    NEGOTIATING = "capabilities sent"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Event:
    """Something QEMU did by itself. `at_us` is QEMU's wall clock in microseconds."""

    name: str
    data: dict[str, Any]
    at_us: int


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to command `id`: `value`, or the error's class and description."""

    id: int
    value: Any = None
    error: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """Negotiation is over; `version` is (major, minor, micro), `package` the distributor's."""

    version: tuple[int, int, int]
    package: str
    oob: bool


Message = Event | Reply | Ready


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Bytes to send; the descriptors, if any, go along with the first of them."""

    data: bytes
    fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Command:
    id: int
    line: bytes
    fds: tuple[int, ...]


@dataclass(slots=True)
class QmpSession:
    """One monitor conversation."""

    phase: Phase = Phase.GREETING
    failure: str | None = None
    oob: bool = False
    _buffer: bytearray = field(default_factory=bytearray)
    _scanned: int = 0
    _outgoing: list[Outgoing] = field(default_factory=list)
    _waiting: deque[_Command] = field(default_factory=deque)
    _in_flight: dict[int, bool] = field(default_factory=dict)  # id -> carries descriptors
    _next_id: int = 1
    _greeting: Ready | None = None  # while negotiating

    # -- commands ---------------------------------------------------------------------------

    def command(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        fds: Sequence[int] = (),
        oob: bool = False,
    ) -> int:
        """Queue a command and return its id, which its `Reply` will carry.

        `oob` asks for execution out of band, at once and beside a command that hangs; it is
        sent in band if QEMU did not offer it.

        Raises:
            RuntimeError: the session failed, or too many commands wait already.
            TypeError, ValueError: the arguments are not JSON.
        """
        if self.failure is not None:
            raise RuntimeError(self.failure)
        if len(self._waiting) >= WAITING_MAX:
            raise RuntimeError(f"{WAITING_MAX} commands wait for QEMU already")
        identity = self._next_id
        oob = oob and self.oob
        message: dict[str, Any] = {"exec-oob" if oob else "execute": name, "id": identity}
        if arguments:
            message["arguments"] = arguments
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self._next_id += 1
        command = _Command(identity, line, tuple(fds))
        if oob and self.phase is Phase.READY:
            self._send(command)
        else:
            self._waiting.append(command)
            self._pump()
        return identity

    def withdraw(self, identity: int) -> bool:
        """Take a command back if it was not sent yet; tells whether that was so."""
        for command in self._waiting:
            if command.id == identity:
                self._waiting.remove(command)
                return True
        return False

    def data_to_send(self) -> list[Outgoing]:
        """What must be sent now, in order. Taken once."""
        taken, self._outgoing = self._outgoing, []
        return taken

    # -- what QEMU says ---------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[Message]:
        """Take bytes as they came and return the messages they complete."""
        if self.failure is not None:
            return []
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        start = 0
        while (end := buffer.find(b"\n", max(start, self._scanned))) >= 0:
            line = bytes(buffer[start:end])
            start = end + 1
            if line.strip():
                self._receive_line(line, messages)
            if self.failure is not None:
                return messages
        del buffer[:start]
        self._scanned = len(buffer)
        if self._scanned > LINE_BYTES_MAX:
            self._fail(f"QEMU sent a message of more than {LINE_BYTES_MAX} bytes")
        return messages

    def receive_eof(self) -> None:
        """The stream ended. Whatever waits for an answer will not get one."""
        if self.failure is None:
            self._fail("qemu unexpectedly closed the monitor")

    # -- inside -----------------------------------------------------------------------------

    def _receive_line(self, line: bytes, messages: list[Message]) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return self._fail(f"QEMU sent what is not JSON: {line[:200]!r}")
        if not isinstance(message, dict):
            return self._fail(f"QEMU sent JSON that is not a message: {line[:200]!r}")
        if "return" in message or "error" in message:
            return self._receive_reply(message, messages)
        if "event" in message:
            return self._receive_event(message, messages)
        if "QMP" in message and self.phase is Phase.GREETING:
            return self._receive_greeting(message["QMP"])
        return self._fail(f"QEMU sent an unexpected message: {line[:200]!r}")

    def _receive_greeting(self, greeting: Any) -> None:
        try:
            version = greeting["version"]
            numbers = version["qemu"]
            self.oob = "oob" in greeting["capabilities"]
            self._greeting = Ready(
                (int(numbers["major"]), int(numbers["minor"]), int(numbers["micro"])),
                str(version.get("package", "")),
                self.oob,
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return self._fail("QEMU's greeting is malformed")
        self.phase = Phase.NEGOTIATING
        message: dict[str, Any] = {"execute": "qmp_capabilities", "id": 0}
        if self.oob:
            message["arguments"] = {"enable": ["oob"]}
        self._outgoing.append(Outgoing(json.dumps(message).encode() + b"\n"))
        return None

    def _receive_reply(self, message: dict[str, Any], messages: list[Message]) -> None:
        identity = message.get("id")
        error = message.get("error")
        refusal: tuple[str, str] | None = None
        if error is not None:
            if not isinstance(error, dict):
                return self._fail("QEMU sent an error that is not an object")
            refusal = (str(error.get("class", "GenericError")), str(error.get("desc", "")))
        if self._greeting is not None and identity == 0:
            if refusal is not None:
                return self._fail(f"QEMU refused to negotiate: {refusal[1]}")
            self.phase = Phase.READY
            messages.append(self._greeting)
            self._greeting = None
            return self._pump()
        if type(identity) is not int or self._in_flight.pop(identity, None) is None:
            # The specification sends errors without an id for input it could not parse: ours is
            # broken then, or QEMU's answer is not to us. Guessing whose it is would be worse.
            reason = refusal[1] if refusal else "a reply that nobody asked for"
            return self._fail(f"QEMU sent a stray reply: {reason}")
        messages.append(Reply(identity, message.get("return"), refusal))
        return self._pump()

    def _receive_event(self, message: dict[str, Any], messages: list[Message]) -> None:
        name, data = message["event"], message.get("data", {})
        stamp = message.get("timestamp")
        if not isinstance(name, str) or not isinstance(data, dict) or not isinstance(stamp, dict):
            return self._fail("QEMU sent a malformed event")
        seconds, micros = stamp.get("seconds", -1), stamp.get("microseconds", 0)
        if type(seconds) is not int or type(micros) is not int:
            return self._fail("QEMU sent an event with a malformed time")
        messages.append(Event(name, data, seconds * 1_000_000 + micros))
        return None

    def _pump(self) -> None:
        """Send what may be sent now."""
        if self.phase is not Phase.READY:
            return
        while self._waiting and len(self._in_flight) < IN_FLIGHT_MAX:
            # QEMU keeps only the descriptors that came last: two commands with descriptors at
            # once would take each other's.
            if self._waiting[0].fds and any(self._in_flight.values()):
                return
            self._send(self._waiting.popleft())

    def _send(self, command: _Command) -> None:
        self._in_flight[command.id] = bool(command.fds)
        if not command.fds and self._outgoing and not self._outgoing[-1].fds:
            last = self._outgoing[-1]
            self._outgoing[-1] = Outgoing(last.data + command.line)
        else:
            self._outgoing.append(Outgoing(command.line, command.fds))

    def _fail(self, reason: str) -> None:
        self.phase = Phase.FAILED
        self.failure = reason
        self._buffer.clear()
        self._outgoing.clear()
        self._waiting.clear()
        self._in_flight.clear()
