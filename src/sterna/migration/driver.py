"""Runs a machine of `core`: events in, effects out, one at a time and in order.

Effects that take time are started, never awaited, so that a connection's end or an abort is heard
while QEMU hangs or a disk is slow. Each ends in one event. Every step is logged: the log of a
migration is its trace, and replays through the same `step()`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, Final, Generic, Protocol, TypeVar

from sterna.errors import (
    ArgumentUnsupported,
    Code,
    ConfigUnsupported,
    CpuIncompatible,
    InternalError,
    MigrateFinishOk,
    OperationAborted,
    OperationFailed,
    OperationInvalid,
    OperationTimeout,
    SternaError,
    SystemCallError,
)
from sterna.guest.ports import ClientLink
from sterna.guest.surroundings import Work
from sterna.migration.core import events as on
from sterna.migration.core.records import Record
from sterna.migration.core.words import Failure, FailureKind, QmpOp, QmpWhy, Timer
from sterna.qemu.qmp_errors import MonitorTimeout, QmpError

log = logging.getLogger("sterna.migration")


class Machine(Protocol):
    """A state of `core.source` or `core.destination`."""

    @property
    def guest(self) -> str: ...

    @property
    def phase(self) -> Enum: ...


S = TypeVar("S", bound=Machine)
E = TypeVar("E")
F = TypeVar("F")

_BY_KIND: Final[dict[FailureKind, type[SternaError]]] = {
    FailureKind.FAILED: OperationFailed,
    FailureKind.CANCELED: OperationAborted,
    FailureKind.REVOKED: MigrateFinishOk,
    FailureKind.REFUSED: OperationInvalid,
    FailureKind.TIMED_OUT: OperationTimeout,
}
_BY_CODE: Final[dict[int, type[SternaError]]] = {
    int(cls.code): cls
    for cls in (
        InternalError,
        OperationFailed,
        OperationInvalid,
        OperationTimeout,
        ConfigUnsupported,
        CpuIncompatible,
        ArgumentUnsupported,
        SystemCallError,
    )
}


def error_of(failure: Failure) -> SternaError:
    """The exception a caller gets for a core's failure."""
    cls = _BY_CODE.get(failure.code) or _BY_KIND[failure.kind]
    return cls(failure.text)


def code_of(error: BaseException) -> int:
    """The protocol's number of what went wrong, so that it survives its way through the core."""
    return error.number if isinstance(error, SternaError) else int(Code.INTERNAL_ERROR)


class Driver(ABC, Generic[S, E, F]):
    """One side of one migration.

    A subclass runs the effects. `post` may be called from anywhere on the event loop.
    """

    def __init__(self, id: str, work: Work) -> None:
        self.id = id
        self.state: S
        self._work = work
        self._inbox: deque[E] = deque()
        self._busy = False
        self._calls: dict[int, asyncio.Future[None]] = {}
        self._questions: dict[int, asyncio.Future[Record]] = {}
        self._links: dict[int, ClientLink] = {}
        self._watched: list[tuple[ClientLink, Callable[[], None]]] = []
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._last_call = 0
        self._begun = time.monotonic()
        self.phases: list[tuple[str, int]] = []
        """For people: each phase, and when it began, in ms since the first."""
        self.at_rest: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once this side can be left alone: over, or waiting for somebody else's word."""

    # -- the loop ------------------------------------------------------------------------------

    @abstractmethod
    def step(self, state: S, event: E) -> tuple[S, tuple[F, ...]]:
        """The core's."""

    @abstractmethod
    def run(self, effect: F) -> None:
        """Run or start one effect. Must not raise."""

    @abstractmethod
    def entered(self, phase: Enum) -> None:
        """The machine is in another phase."""

    def begin(self, state: S, effects: tuple[F, ...]) -> None:
        """Start with a state the core made."""
        self.state = state
        self.phases.append((state.phase.value, 0))
        log.info("migration.begun mig=%s guest=%s", self.id, state.guest)
        self._busy = True
        try:
            self._apply(effects)
        finally:
            self._busy = False
        self._drain()

    def post(self, event: E) -> None:
        """Something happened."""
        self._inbox.append(event)
        self._drain()

    def post_first(self, event: E) -> None:
        """Something was looked at: no other event may come between the look and its use."""
        self._inbox.appendleft(event)
        self._drain()

    def _drain(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            while self._inbox:
                event = self._inbox.popleft()
                before = self.state
                self.state, effects = self.step(before, event)
                self._log(before, event, effects)
                if self.state.phase is not before.phase:
                    since_ms = round((time.monotonic() - self._begun) * 1000)
                    self.phases.append((self.state.phase.value, since_ms))
                    self.entered(self.state.phase)
                self._apply(effects)
        finally:
            self._busy = False

    def _apply(self, effects: tuple[F, ...]) -> None:
        for effect in effects:
            try:
                self.run(effect)
            except Exception:
                # The actor's boundary: a bug in one effect must not keep the others from
                # running, a kill above all. (L3)
                log.exception("migration.effect_failed mig=%s effect=%r", self.id, effect)

    def _log(self, before: S, event: E, effects: tuple[F, ...]) -> None:
        log.info(
            "migration.step mig=%s guest=%s phase=%s event=%r next=%s effects=%r",
            self.id,
            before.guest,
            before.phase.value,
            event,
            self.state.phase.value,
            effects,
        )

    # -- calls ---------------------------------------------------------------------------------

    def new_call(self) -> tuple[int, asyncio.Future[None]]:
        """An id for a call, and what ends when the machine answers it."""
        self._last_call += 1
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls[self._last_call] = answer
        return self._last_call, answer

    def new_question(self) -> tuple[int, asyncio.Future[Record]]:
        """As `new_call`, for what is answered with a decision."""
        self._last_call += 1
        answer: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._questions[self._last_call] = answer
        return self._last_call, answer

    def tell(self, call: int, decision: Record) -> None:
        waiting = self._questions.pop(call, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(decision)

    def rest(self) -> None:
        if not self.at_rest.done():
            self.at_rest.set_result(None)

    def answer(self, call: int) -> None:
        waiting = self._calls.pop(call, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def refuse(self, call: int, failure: Failure) -> None:
        waiting = self._calls.pop(call, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(error_of(failure))

    # -- connections ---------------------------------------------------------------------------

    def number_of(self, link: ClientLink) -> int:
        """The number by which the core knows a connection."""
        for number, known in self._links.items():
            if known is link:
                return number
        number = len(self._links) + 1
        self._links[number] = link
        return number

    def watch(self, number: int, closed: Callable[[], None]) -> None:
        """Call `closed` when the connection ends; at once if it has."""
        link = self._links[number]
        if link.closed:
            closed()
            return
        link.add_close_callback(closed)
        self._watched.append((link, closed))

    def unwatch(self) -> None:
        for link, callback in self._watched:
            link.remove_close_callback(callback)
        self._watched.clear()

    def link(self, number: int) -> ClientLink:
        return self._links[number]

    # -- timers --------------------------------------------------------------------------------

    def set_timer(self, timer: Timer, seconds: float, fired: Callable[[], None]) -> None:
        self.clear_timer(timer)
        loop = asyncio.get_running_loop()
        self._timers[timer] = loop.call_later(seconds, fired)

    def clear_timer(self, timer: Timer) -> None:
        handle = self._timers.pop(timer, None)
        if handle is not None:
            handle.cancel()

    def close(self) -> None:
        """Nothing more will come of this migration: let go of timers and connections."""
        for timer in list(self._timers):
            self.clear_timer(timer)
        self.unwatch()

    # -- work that takes time ------------------------------------------------------------------

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside the machine; it posts its own event."""
        self._work.start(work).add_done_callback(self._looked_at)

    def _looked_at(self, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and (exc := done.exception()) is not None:
            log.error("migration.work_failed mig=%s", self.id, exc_info=exc)


async def outcome(op: QmpOp, work: Coroutine[Any, Any, on.QmpDone]) -> on.QmpDone | on.QmpFailed:
    """How a piece of QMP work ended, as the core hears it."""
    try:
        return await work
    except QmpError as exc:
        return on.QmpFailed(op, QmpWhy.REFUSED, exc.detail, code_of(exc))
    except (MonitorTimeout, TimeoutError) as exc:
        return on.QmpFailed(op, QmpWhy.TIMED_OUT, str(exc), int(Code.OPERATION_TIMEOUT))
    except SternaError as exc:
        # The monitor ended, or the guest is being stopped: `QemuGone` tells the rest.
        return on.QmpFailed(op, QmpWhy.GONE, exc.detail, code_of(exc))
    except OSError as exc:
        text = exc.strerror or str(exc)
        return on.QmpFailed(op, QmpWhy.REFUSED, text, int(Code.OPERATION_FAILED))
    except Exception as exc:
        # The actor's boundary: a bug here, or an answer nobody thought of, must not leave a
        # machine waiting for ever for what it asked. What QEMU did is not known. (L7)
        log.exception("migration.qmp_broke op=%s", op.name)
        text = f"unexpected failure: {type(exc).__name__}"
        return on.QmpFailed(op, QmpWhy.TIMED_OUT, text, int(Code.INTERNAL_ERROR))
