"""A source that may have to ask: what its driver has whether there is still a QEMU or not."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from enum import Enum
from typing import Final
from uuid import UUID

from sterna.guest.jobstats import JobStats
from sterna.guest.registry import Registry
from sterna.migration import story
from sterna.migration.core import effects as do
from sterna.migration.core import events as on
from sterna.migration.core import source
from sterna.migration.core.records import Record
from sterna.migration.core.words import Timer
from sterna.migration.driver import Driver
from sterna.migration.ownership import Owners
from sterna.migration.peers import Decided, NoAnswer, Peers, Question
from sterna.store.errors import StoreFailed

log = logging.getLogger("sterna.migration.source")

AGAIN_S: Final = 1.0
STRANGER_S: Final = 60.0
"""How long after the doubt began the absence of a guest counts; a libvirtd that has lost its
controller ends the guest within 30 s."""

SourceDriver = Driver[source.Source, on.SourceEvent, do.SourceEffect]


@dataclass(slots=True)
class Doubt:
    """For people: since when, and how the asking goes. Times are ms since the epoch."""

    since_ms: int
    asked_ms: int = 0
    next_ms: int = 0
    why: str = ""


class Doubtful(SourceDriver):
    """The asking half of a source.

    Attributes:
        uuid: the guest's.
        question: how the destination is asked what it decided; None if it cannot be.
        hostname: what the destination calls itself.
        doubt: set once it is not known where the guest runs.
        over: done when this migration has ended here.
        handed_over: it ended with the guest there.
    """

    def __init__(
        self, id: str, uuid: UUID, registry: Registry, peers: Peers, owners: Owners
    ) -> None:
        super().__init__(id, registry.surroundings.work)
        self.uuid = uuid
        self.question: Question | None = None
        self.hostname = ""
        self.doubt: Doubt | None = None
        self.handed_over = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._registry, self._peers, self._owners = registry, peers, owners
        self._epoch_there = 0
        self._taken_up = False
        self._answers: list[asyncio.Future[None]] = []

    @property
    def moved(self) -> bool:
        """It is over, and the guest is at the destination."""
        return self.over.done() and self.handed_over

    @property
    def sent(self) -> bool:
        """The destination may have the whole guest."""
        return True

    async def ask_now(self) -> None:
        """Ask the destination now; returns when it has answered, or nobody has."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self.post(on.AskCalled())
        await answer

    async def new_place(self) -> tuple[str, int] | None:
        """Where the destination listens for the rest of a post-copy; None if it misses nothing.

        Raises: OSError: nobody has said.
        """
        if self.question is None:
            raise OSError("the destination cannot be asked for a new connection")
        try:
            return await self._peers.resume(self.question)
        except NoAnswer as exc:
            raise OSError(str(exc)) from exc

    async def force(self, *, taken_back: bool) -> None:
        """A person says what became of the guest. Raises: OperationInvalid (55): not in doubt."""
        call, answer = self.new_call()
        self.post(on.Forced(call, taken_back))
        await answer

    def step(
        self, state: source.Source, event: on.SourceEvent
    ) -> tuple[source.Source, tuple[do.SourceEffect, ...]]:
        return source.step(state, event)

    def entered(self, phase: Enum) -> None:
        if phase is source.Phase.IN_DOUBT:
            self.doubt = Doubt(time.time_ns() // 1_000_000)
        if phase in (source.Phase.ENDED, source.Phase.IN_DOUBT, source.Phase.SERVING):
            self.rest()
        if phase is source.Phase.ENDED:
            self.close()
            if not self.over.done():
                self.over.set_result(None)

    def run(self, effect: do.SourceEffect) -> None:
        match effect:
            case do.Answer(call=call):
                self.answer(call)
            case do.Refuse(call=call, failure=failure):
                self.refuse(call, failure)
            case do.Store(record=record):
                self.do(self._store(record))
            case do.Ask():
                self.do(self._ask())
            case do.SetTimer(timer=timer, seconds=seconds):
                if timer is Timer.ASK and self.doubt is not None:
                    self.doubt.next_ms = time.time_ns() // 1_000_000 + round(seconds * 1000)
                self.set_timer(timer, seconds, lambda: self.post(on.TimerFired(timer)))
            case do.ClearTimer(timer=timer):
                self.clear_timer(timer)

    async def _store(self, record: Record) -> None:
        try:
            await self._write(record)
        except StoreFailed as exc:
            log.error("migration.store_failed mig=%s record=%s", self.id, record.value)
            self.post(on.StoreFailed(record, exc.detail))
        else:
            self.post(on.Stored(record))

    async def _write(self, record: Record) -> None:
        """Make it durable. Raises: StoreFailed."""
        if record is Record.HANDED_OVER:
            self.handed_over = True
            if self.question is None or self.question.uri:
                await self._owners.given_to_stranger(self.uuid, self.id)
            else:
                await self._owners.given(self.uuid, self.id, self._epoch_there)

    def _conclude(self, name: str, *, succeeded: bool, stats: JobStats | None) -> None:
        """Write down whose it is, if that is not known yet, and what it was like."""
        self.do(self._settle(succeeded=succeeded))
        told = story.story(
            self.id,
            name,
            succeeded=succeeded,
            other=self.hostname,
            failure=self.state.failure,
            phases=self.phases,
            stats=stats,
        )
        self.do(story.keep(self._registry.surroundings.store, self.uuid, story.OUT, told))

    async def _settle(self, *, succeeded: bool) -> None:
        """Until it works: as long as it counts as leaving it cannot be started here."""
        while True:
            try:
                if not succeeded:
                    await self._owners.stayed(self.uuid, self.id)
                elif self.question is not None and not self.question.uri:
                    await self._owners.given(self.uuid, self.id, self._epoch_there)
                return
            except StoreFailed as exc:
                log.error("migration.store_failed mig=%s error=%r", self.id, exc.detail)
            await asyncio.sleep(AGAIN_S)

    async def _undefine(self) -> None:
        """It lives elsewhere now, with its definition: take ours away.

        Memory at once, disk until it works: a definition that came back with the next daemon would
        be a stale one.
        """
        guest = self._registry.find(self.uuid)
        if guest is not None:
            guest.definition = None
            guest.autostart = False
            guest.forget_if_nothing()
        surroundings = self._registry.surroundings
        while guest is None or not guest.persistent:
            try:
                await surroundings.write_down(
                    lambda: surroundings.store.delete_definition(self.uuid)
                )
                await self._owners.undefined(self.uuid, self.id)
                return
            except StoreFailed as exc:
                log.error("migration.not_undefined mig=%s error=%r", self.id, exc.detail)
            await asyncio.sleep(AGAIN_S)

    async def _ask(self) -> None:
        if self.doubt is not None:
            self.doubt.asked_ms, self.doubt.next_ms = time.time_ns() // 1_000_000, 0
        try:
            if self.question is None:
                raise NoAnswer("the destination has not said where it can be asked")
            decided = await self._peers.ask(self.question)
            self._refuse_late_absence(self.question, decided)
        except NoAnswer as exc:
            why = str(exc)
        except Exception as exc:
            # The actor's boundary: a doubt must not end with a bug in asking. (L2)
            log.exception("migration.asking_broke mig=%s", self.id)
            why = f"unexpected failure: {type(exc).__name__}"
        else:
            log.info("migration.told mig=%s verdict=%s", self.id, decided.verdict)
            self._epoch_there = decided.epoch
            committed = decided.verdict == "committed"
            self.post(on.Told(Record.COMMITTED if committed else Record.ABORTED))
            self._answered()
            return
        if self.doubt is not None:
            self.doubt.why = why
        self.post(on.Untold(why))
        self._answered()

    def _refuse_late_absence(self, asked: Question, decided: Decided) -> None:
        """A stranger keeps no decisions. That a guest is not there proves that it never ran only
        while it could hardly have ended there; a later daemon does not know how long ago that was.

        Raises: NoAnswer.
        """
        age_s = 0.0 if self.doubt is None else time.time() - self.doubt.since_ms / 1000
        late = self._taken_up or age_s > STRANGER_S
        if asked.uri and decided.verdict == "aborted" and late:
            raise NoAnswer(f"the guest is not at {asked.uri} now, and may have run there before")

    def _answered(self) -> None:
        waiting, self._answers = self._answers, []
        for answer in waiting:
            if not answer.done():
                answer.set_result(None)
