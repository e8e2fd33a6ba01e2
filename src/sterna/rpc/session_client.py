"""The client's end of a connection as a state machine without I/O. See `session_base` for the
contract. What is fatal to a client and what it ignores is as with libvirt 9.0 (observed), except
that an event of an unknown program is ignored too: there is no reason to go.
"""

from __future__ import annotations

from dataclasses import dataclass

from sterna.errors import RpcError, SternaError
from sterna.rpc.calls import PROTOCOL_VERSION, Procedure, by_number
from sterna.rpc.error_body import from_body
from sterna.rpc.errors import ProtocolViolation
from sterna.rpc.frame import Packet, PacketType, Status, build
from sterna.rpc.msg_common import ErrorBody
from sterna.rpc.session_base import BaseSession, Limits, StreamEnd, StreamInput, StreamState
from sterna.xdr.compile import decode
from sterna.xdr.message import Message
from sterna.xdr.wire import WireError

_SERIALS = 1 << 32


@dataclass(frozen=True, slots=True)
class Replied:
    """The answer to one of our calls: its message, or the error the peer sent."""

    serial: int
    ret: Message | None = None
    error: SternaError | None = None
    fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EventReceived:
    """The peer sent an event that we know."""

    procedure: Procedure
    message: Message


class ClientSession(BaseSession):
    """The client's end: calls go out, replies and events come in."""

    def __init__(self, now: float, limits: Limits | None = None, *, accept_fds: bool) -> None:
        super().__init__(now, limits or Limits(), accept_fds=accept_fds)
        self._serial = 0
        self._pending: dict[int, Procedure] = {}

    def call(
        self,
        procedure: Procedure,
        args: Message | None = None,
        fds: tuple[int, ...] = (),
        *,
        sparse: bool = False,
    ) -> tuple[int, StreamState | None]:
        """Send a call. Gives its serial, and its stream if the procedure opens one.

        `fds` now belong to the session, unless this raises.

        Raises:
            WireError: the arguments are not the procedure's, or cannot be encoded.
        """
        if type(args) is not (procedure.args or type(None)):
            raise WireError(f"{procedure.name} does not take a {type(args).__name__}")
        serial = self._free_serial()
        packet = build(
            procedure.program,
            procedure.number,
            PacketType.CALL_WITH_FDS if fds else PacketType.CALL,
            serial,
            message=args,
            fd_count=len(fds) if fds else None,
        )
        self._pending[serial] = procedure
        stream = None
        if procedure.stream is not None:
            # Registered before the call leaves: data may come ahead of the reply.
            stream = StreamState(procedure, serial, sparse=sparse)
            self.streams[stream.key] = stream
        self._send(packet)
        self._send_fds(fds)
        return serial, stream

    def _free_serial(self) -> int:
        serial = self._serial
        while serial in self._pending:
            serial = (serial + 1) % _SERIALS
        self._serial = (serial + 1) % _SERIALS
        return serial

    def next_event(self) -> Replied | EventReceived | StreamInput | None:
        """The next thing that arrived; None until there is more."""
        while (packet := self._next_packet()) is not None:
            event = self._take(packet)
            if event is not None:
                return event
        return None

    def _take(self, packet: Packet) -> Replied | EventReceived | StreamInput | None:
        match packet.type:
            case PacketType.REPLY | PacketType.REPLY_WITH_FDS:
                return self._take_reply(packet)
            case PacketType.MESSAGE:
                return _event(packet)
            case PacketType.STREAM | PacketType.STREAM_HOLE:
                stream = self._stream_for(packet)
                return None if stream is None else self._take_stream(stream, packet)
            case _:
                self._unwanted_fds.extend(packet.fds)
                self.fail(ProtocolViolation(f"a packet of type {packet.type} from a server"))
                return None

    def _take_reply(self, packet: Packet) -> Replied | None:
        procedure = self._pending.pop(packet.serial, None)
        if procedure is None:
            self._unwanted_fds.extend(packet.fds)
            self.fail(ProtocolViolation(f"a reply to no call of ours, #{packet.serial}"))
            return None
        reply = _reply(procedure, packet)
        if reply.error is not None:
            self._unwanted_fds.extend(packet.fds)
            stream = self.streams.get((procedure.program, procedure.number, packet.serial))
            if stream is not None:
                self._end_stream(stream)
        return reply

    def _take_stream(self, stream: StreamState, packet: Packet) -> StreamInput | None:
        if packet.type == PacketType.STREAM and packet.status == Status.ERROR:
            self._end_stream(stream)
            return StreamInput(stream, _error_in(packet))
        if packet.type == PacketType.STREAM and packet.status == Status.OK:
            if not stream.finishing:
                self.fail(ProtocolViolation("a confirmation of a stream that was not finished"))
                return None
            self._end_stream(stream)
            return StreamInput(stream, StreamEnd.CONFIRMED)
        if packet.status != Status.CONTINUE or stream.finishing:
            return None
        if packet.type == PacketType.STREAM and len(packet.data) == packet.start:
            return StreamInput(stream, StreamEnd.EOF)
        return self._stream_data(stream, packet)

    def stream_finish(self, stream: StreamState) -> None:
        """Say that we are done. The server answers with a confirmation or an error."""
        self._sendable(stream)
        stream.finishing = stream.eof_sent = True
        self._stream_packet(stream, Status.OK)

    def stream_abort(self, stream: StreamState) -> None:
        """Give the stream up. The server confirms; data may still arrive and is dropped."""
        if not stream.ended and not stream.finishing:
            stream.finishing = stream.eof_sent = True
            self._stream_packet(stream, Status.ERROR)


def _reply(procedure: Procedure, packet: Packet) -> Replied:
    serial = packet.serial
    if (packet.program, packet.version) != (procedure.program, PROTOCOL_VERSION):
        return Replied(serial, error=RpcError(f"Unexpected message program {packet.program}"))
    if packet.procedure != procedure.number:
        text = f"Unexpected message proc {packet.procedure} != {procedure.number}"
        return Replied(serial, error=RpcError(text))
    if packet.status != Status.OK:
        return Replied(serial, error=_error_in(packet))
    if procedure.ret is None:
        return Replied(serial, fds=packet.fds)
    try:
        ret = decode(procedure.ret, packet.data, packet.start)
    except WireError:
        return Replied(serial, error=RpcError("Unable to decode message payload"))
    return Replied(serial, ret, fds=packet.fds)


def _error_in(packet: Packet) -> SternaError:
    try:
        return from_body(decode(ErrorBody, packet.data, packet.start))
    except WireError:
        return RpcError("Unable to decode message payload")


def _event(packet: Packet) -> EventReceived | None:
    """The event, or None if it is not known or does not decode: that must not hurt anybody."""
    procedure = by_number(packet.program, packet.procedure)
    if procedure is None or not procedure.is_event or packet.version != PROTOCOL_VERSION:
        return None
    cls = procedure.args
    assert cls is not None  # noqa: S101 - every event of the table carries a message
    try:
        return EventReceived(procedure, decode(cls, packet.data, packet.start))
    except WireError:
        return None
