"""The daemon's end of a connection as a state machine without I/O. See `session_base` for the
contract and `session_client` for the other end.

What is answered to packets that are no proper calls is what libvirtd 9.0 answers (observed).
"""

from __future__ import annotations

from collections import deque

from sterna.errors import RpcError, SternaError
from sterna.rpc.calls import PROGRAMS, PROTOCOL_VERSION, Procedure, by_number
from sterna.rpc.error_body import to_body
from sterna.rpc.errors import LocalMistake, StreamClosed
from sterna.rpc.frame import Packet, PacketType, Status, build
from sterna.rpc.session_base import (
    BaseSession,
    Limits,
    StreamEnd,
    StreamInput,
    StreamState,
)
from sterna.xdr.compile import decode
from sterna.xdr.message import Message
from sterna.xdr.wire import WireError

__all__ = ["Call", "Limits", "ServerSession", "StreamEnd", "StreamInput", "StreamState"]

EVENT_SERIAL = 1
"""libvirtd sends 1 in events, whatever its documentation says (9.0, observed)."""

_CALL_OVERHEAD_BYTES = 512
"""What a waiting call costs us beyond its packet: many tiny calls must count too."""


class Call:
    """One call a client made. Answer it exactly once.

    `fds` are the descriptors that came with it. Whoever keeps some takes them with `take_fds`;
    those left are closed when the call is answered.
    """

    __slots__ = ("answered", "args", "fd_count", "fds", "procedure", "serial", "size", "stream")

    def __init__(self, procedure: Procedure, packet: Packet) -> None:
        self.procedure = procedure
        self.serial = packet.serial
        self.args: Message | None = None
        self.fds = packet.fds
        self.fd_count = len(packet.fds)
        self.answered = False
        self.size = len(packet.data) + _CALL_OVERHEAD_BYTES
        self.stream: StreamState | None = None

    def take_fds(self) -> tuple[int, ...]:
        """The descriptors, which the caller now owns."""
        fds, self.fds = self.fds, ()
        return fds

    def __repr__(self) -> str:
        return f"<Call {self.procedure.name} #{self.serial}>"


class ServerSession(BaseSession):
    """The daemon's end: calls come in, replies and events go out."""

    def __init__(self, now: float, limits: Limits | None = None, *, accept_fds: bool) -> None:
        super().__init__(now, limits or Limits(), accept_fds=accept_fds)
        self._waiting: deque[tuple[Call, Packet]] = deque()
        self._running = 0
        self._call_bytes = 0
        self._call_fds = 0
        self._running_with_fds: set[Call] = set()

    @property
    def calls_running(self) -> int:
        """Calls handed out and not yet answered."""
        return self._running

    @property
    def calls_waiting(self) -> int:
        """Calls read and not yet handed out."""
        return len(self._waiting)

    def next_event(self) -> Call | StreamInput | None:
        """The next call to serve or thing that happened on a stream; None until more arrives."""
        while self.failure is None:
            if self._waiting and self._may_run(self._waiting[0][0]):
                call, packet = self._waiting.popleft()
                if self._start(call, packet):
                    return call
                continue
            packet_or_none = self._next_packet()
            if packet_or_none is None:
                return None
            event = self._take(packet_or_none)
            if event is not None:
                return event
        return None

    def _full(self) -> bool:
        return (
            super()._full()
            or len(self._waiting) >= self.limits.calls_waiting_max
            or self._call_bytes >= self.limits.call_bytes_max
            or self._call_fds >= self.limits.fds_max
        )

    def _may_run(self, call: Call) -> bool:
        if self.output_bytes >= self.limits.output_bytes_high:
            return False
        extra = self.limits.calls_running_extra if call.procedure.high_priority else 0
        return self._running < self.limits.calls_running_max + extra

    def _take(self, packet: Packet) -> Call | StreamInput | None:
        """Sort one packet. None if it was answered or dropped here."""
        kind = packet.type
        if kind in (PacketType.CALL, PacketType.CALL_WITH_FDS):
            return self._take_call(packet)
        if kind in (PacketType.STREAM, PacketType.STREAM_HOLE):
            stream = self._stream_for(packet)
            return None if stream is None else self._take_stream(stream, packet)
        self._unwanted_fds.extend(packet.fds)
        return None

    def _take_call(self, packet: Packet) -> Call | None:
        procedure = _procedure_of(packet)
        if isinstance(procedure, SternaError):
            self._unwanted_fds.extend(packet.fds)
            # The refusal repeats even a version that is not ours, as libvirtd's does.
            self._send_error(
                packet.program, packet.procedure, packet.serial, procedure, packet.version
            )
            return None
        call = Call(procedure, packet)
        self._call_bytes += call.size
        self._call_fds += len(call.fds)
        if self._waiting or not self._may_run(call):
            self._waiting.append((call, packet))
            return None
        return call if self._start(call, packet) else None

    def _start(self, call: Call, packet: Packet) -> bool:
        """Decode a call's arguments, just before it runs. False if they do not decode."""
        self._running += 1
        if call.fds:
            self._running_with_fds.add(call)
        cls = call.procedure.args
        if cls is None:
            return True
        try:
            call.args = decode(cls, packet.data, packet.start)
        except WireError:
            self.reply_error(call, RpcError("Unable to decode message payload"))
            return False
        return True

    def drop_fds(self) -> list[int]:
        calls = [call for call, _ in self._waiting] + list(self._running_with_fds)
        return [fd for call in calls for fd in call.take_fds()] + super().drop_fds()

    # -- answers

    def reply(self, call: Call, ret: Message | None = None, fds: tuple[int, ...] = ()) -> None:
        """Answer a call. `fds` now belong to the session.

        Raises:
            WireError: `ret` is not what the procedure returns; the call is still unanswered.
            LocalMistake: the call was answered before.
        """
        procedure = call.procedure
        self._check_unanswered(call)
        wanted = procedure.ret
        if (ret is None) != (wanted is None) or (wanted is not None and type(ret) is not wanted):
            raise WireError(f"{procedure.name} does not return a {type(ret).__name__}")
        packet = build(
            procedure.program,
            procedure.number,
            PacketType.REPLY_WITH_FDS if fds else PacketType.REPLY,
            call.serial,
            message=ret,
            fd_count=len(fds) if fds else None,
        )
        self._answered(call)
        if self._send_bounded(packet, self.limits.output_bytes_max):
            self._send_fds(fds)
        else:
            self._unwanted_fds.extend(fds)

    def reply_error(self, call: Call, error: SternaError) -> None:
        """Answer a call with an error. A stream that it had opened is gone.

        Raises:
            LocalMistake: the call was answered before.
        """
        self._check_unanswered(call)
        self._answered(call)
        if call.stream is not None:
            self._end_stream(call.stream)
        self._send_error(call.procedure.program, call.procedure.number, call.serial, error)

    def send_event(self, procedure: Procedure, message: Message | None) -> None:
        """Send an event. A client that lets too many pile up loses its connection.

        Raises:
            WireError: the message is not that event's, or cannot be encoded.
        """
        if type(message) is not (procedure.args or type(None)):
            raise WireError(f"{procedure.name} does not carry a {type(message).__name__}")
        packet = build(
            procedure.program,
            procedure.number,
            PacketType.MESSAGE,
            EVENT_SERIAL,
            message=message,
        )
        self._send_bounded(packet, self.limits.event_bytes_max)

    def _check_unanswered(self, call: Call) -> None:
        # A reply whose serial no call waits for ends a libvirt client's connection (9.0, observed).
        if call.answered:
            raise LocalMistake(f"a second reply to {call!r}")

    def _answered(self, call: Call) -> None:
        call.answered = True
        self._running -= 1
        self._call_bytes -= call.size
        self._call_fds -= call.fd_count
        self._running_with_fds.discard(call)
        self._unwanted_fds.extend(call.take_fds())

    def _send_error(
        self,
        program: int,
        number: int,
        serial: int,
        error: SternaError,
        version: int = PROTOCOL_VERSION,
    ) -> None:
        packet = build(
            program,
            number,
            PacketType.REPLY,
            serial,
            status=Status.ERROR,
            message=to_body(error),
            version=version,
        )
        self._send_bounded(packet, self.limits.output_bytes_max)

    # -- streams

    def open_stream(self, call: Call, *, sparse: bool = False) -> StreamState:
        """Open the stream of a call, before or after it is answered.

        Raises:
            LocalMistake: the procedure has no stream.
            StreamClosed: the client has one with the same serial open already.
        """
        if call.procedure.stream is None or call.stream is not None:
            raise LocalMistake(f"{call!r} opens no stream")
        stream = StreamState(call.procedure, call.serial, sparse=sparse)
        if stream.key in self.streams:
            raise StreamClosed("a stream of that call is open already")
        self.streams[stream.key] = call.stream = stream
        return stream

    def _take_stream(self, stream: StreamState, packet: Packet) -> StreamInput | None:
        if packet.type == PacketType.STREAM and packet.status == Status.ERROR:
            # An abort is confirmed with OK, whatever became of the stream.
            self._stream_packet(stream, Status.OK)
            self._end_stream(stream)
            return StreamInput(stream, StreamEnd.ABORTED)
        if stream.finishing:
            return None
        if packet.type == PacketType.STREAM and packet.status == Status.OK:
            stream.finishing = True
            if stream.eof_sent or stream.procedure.stream == "down":
                self.stream_confirm(stream)
            return StreamInput(stream, StreamEnd.FINISHED)
        if packet.status != Status.CONTINUE or stream.procedure.stream == "down":
            return None
        return self._stream_data(stream, packet)

    def stream_eof(self, stream: StreamState) -> None:
        """Say that there is no more data. The client's finish is then confirmed by itself."""
        if stream.finishing:
            self.stream_confirm(stream)
        elif not stream.ended and not stream.eof_sent:
            stream.eof_sent = True
            self._stream_packet(stream, Status.CONTINUE)

    def stream_confirm(self, stream: StreamState) -> None:
        """Confirm the client's finish. The stream is gone.

        Raises:
            LocalMistake: it has not finished; an unasked confirmation is fatal to libvirt clients.
        """
        if stream.ended:
            return
        if not stream.finishing:
            raise LocalMistake("a confirmation of a stream that was not finished")
        self._stream_packet(stream, Status.OK)
        self._end_stream(stream)

    def stream_fail(self, stream: StreamState, error: SternaError) -> None:
        """End the stream with an error; packets of it that still arrive are dropped."""
        if not stream.ended:
            self._stream_packet(stream, Status.ERROR, message=to_body(error))
            self._end_stream(stream)


def _procedure_of(packet: Packet) -> Procedure | SternaError:
    """What a call calls, or why it is not served, in libvirt 9.0's words (observed)."""
    if packet.program not in PROGRAMS or packet.version != PROTOCOL_VERSION:
        return RpcError(f"Cannot find program {packet.program} version {packet.version}")
    if packet.status != Status.OK:
        return RpcError(f"Unexpected message status {packet.status}")
    procedure = by_number(packet.program, packet.procedure)
    if procedure is None or procedure.is_event:
        return RpcError(f"unknown procedure: {packet.procedure}")
    return procedure
