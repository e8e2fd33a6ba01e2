"""The source after a completed copy: it asks, and only the destination's word moves it. (L5)"""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from sterna.errors import OperationFailed, OperationInvalid
from sterna.guest.states import State
from sterna.migration import asking
from sterna.migration.cookie import Cookie, Own
from sterna.migration.core import events as on
from sterna.migration.core import source, source_state, source_ways
from sterna.migration.core.effects import (
    Answer,
    Ask,
    ClearTimer,
    EndJob,
    Kill,
    Qmp,
    Refuse,
    SetTimer,
    Show,
    SourceEffect,
    Store,
    View,
)
from sterna.migration.core.records import Record
from sterna.migration.core.source import Phase, Source
from sterna.migration.core.words import Proof, QmpOp, Status, Timer
from support.fake_host import until
from support.moving_pair import GUEST, pair

LINK, CALL = 1, 11


def play(state: Source, *events: on.SourceEvent) -> tuple[Source, tuple[SourceEffect, ...]]:
    """The state after these events, and the last one's effects."""
    effects: tuple[SourceEffect, ...] = ()
    for event in events:
        state, effects = source.step(state, event)
    return state, effects


def performed() -> Source:
    return Source("g", True, True, Phase.PERFORMED, link=LINK, stopped=True, asks=True)


def confirms(*, cancelled: bool, proof: Proof = Proof.NONE) -> on.ConfirmCalled:
    return on.ConfirmCalled(CALL, LINK, cancelled, proof)


CLOSED = on.ConnectionClosed(LINK)
COMMITTED, ABORTED = on.Told(Record.COMMITTED), on.Told(Record.ABORTED)
UNTOLD = on.Untold("no route to host")


@pytest.mark.parametrize(
    "event",
    [
        CLOSED,
        confirms(cancelled=True),
        confirms(cancelled=False),
        on.TimerFired(Timer.CONFIRM),
    ],
)
def test_what_makes_it_ask(event: on.SourceEvent) -> None:
    state, effects = play(performed(), event)
    assert state.phase is Phase.IN_DOUBT
    assert Ask() in effects
    assert Show(View.IN_DOUBT) in effects


def test_its_word_is_stored_and_then_done() -> None:
    state, effects = play(performed(), CLOSED, COMMITTED)
    assert Store(Record.HANDED_OVER) in effects
    assert ClearTimer(Timer.ASK) in effects
    assert play(state, on.Stored(Record.HANDED_OVER))[1][0] == Kill(_migrated())
    state, effects = play(performed(), CLOSED, ABORTED)
    assert Store(Record.TAKEN_BACK) in effects
    assert play(state, on.Stored(Record.TAKEN_BACK))[1] == (Qmp(QmpOp.CONT),)


def _migrated() -> source.StopReason:
    return source.StopReason.MIGRATED


def test_it_asks_on_with_growing_pauses() -> None:
    state, _ = play(performed(), CLOSED)
    for pause in (*source_state.ASK_S, source_state.ASK_S[-1]):
        state, effects = play(state, UNTOLD)
        assert effects == (SetTimer(Timer.ASK, pause),)
        state, effects = play(state, on.TimerFired(Timer.ASK))
        assert Ask() in effects
    # One question at a time, whoever wants it.
    assert play(state, on.AskCalled())[1] == ()
    state, _ = play(state, UNTOLD)
    state, effects = play(state, on.AskCalled())
    assert Ask() in effects
    assert state.unheard == 0


def test_a_controller_that_is_wrong_is_told_so() -> None:
    state, effects = play(performed(), confirms(cancelled=True), COMMITTED)
    _, effects = play(state, on.Stored(Record.HANDED_OVER), on.QemuGone("migrated"))
    assert EndJob(True) in effects
    assert "has started domain 'g'" in refusal(effects)
    state, effects = play(performed(), confirms(cancelled=False), ABORTED)
    back = (on.Stored(Record.TAKEN_BACK), on.QmpDone(QmpOp.CONT), on.QmpDone(QmpOp.RESTORE))
    assert "did not start domain 'g'; it runs on here" in refusal(play(state, *back)[1])


def refusal(effects: tuple[SourceEffect, ...]) -> str:
    found = [e.failure.text for e in effects if isinstance(e, Refuse) and e.call == CALL]
    assert len(found) == 1, effects
    return found[0]


def test_a_controller_that_is_right_hears_nothing_else() -> None:
    state, _ = play(performed(), confirms(cancelled=True), ABORTED, on.Stored(Record.TAKEN_BACK))
    assert Answer(CALL) in play(state, on.QmpDone(QmpOp.CONT), on.QmpDone(QmpOp.RESTORE))[1]


def test_a_controller_does_not_wait_for_a_silent_destination() -> None:
    state, effects = play(performed(), confirms(cancelled=True), UNTOLD)
    assert "no route to host" in refusal(effects)
    assert state.phase is Phase.IN_DOUBT
    # It may come again, and one that brings proof is believed at once.
    _, effects = play(state, confirms(cancelled=False, proof=Proof.COMMITTED))
    assert Store(Record.HANDED_OVER) in effects


def test_two_controllers_at_a_time() -> None:
    state, _ = play(performed(), confirms(cancelled=True))
    other = on.ConfirmCalled(12, 2, True, Proof.NONE)
    assert isinstance(play(state, other)[1][0], Refuse)


def test_an_answer_that_comes_too_late_changes_nothing() -> None:
    state, _ = play(performed(), CLOSED, confirms(cancelled=False, proof=Proof.COMMITTED))
    assert play(state, ABORTED) == (state, ())
    assert play(state, UNTOLD) == (state, ())


def test_a_person_decides() -> None:
    doubt, _ = play(performed(), CLOSED)
    assert Store(Record.TAKEN_BACK) in play(doubt, on.Forced(9, taken_back=True))[1]
    assert Answer(9) in play(doubt, on.Forced(9, taken_back=False))[1]
    assert isinstance(play(performed(), on.Forced(9, taken_back=True))[1][0], Refuse)


def test_a_daemon_that_comes_back_asks() -> None:
    state, effects = source.recovered(
        "g", Record.PERFORMING, Status.COMPLETED, shall_run=True, stopped=True, asks=True
    )
    assert state.phase is Phase.IN_DOUBT
    assert Ask() in effects


def test_a_destination_that_cannot_be_asked_is_waited_for() -> None:
    state, effects = play(Source("g", True, True, Phase.PERFORMED, link=LINK, stopped=True), CLOSED)
    assert state.phase is Phase.IN_DOUBT
    assert Ask() not in effects


def test_the_question_is_made_of_the_second_cookie() -> None:
    own = Own("0b0a7e0e-7d0c-4b58-9a7e-0e7d0c4b589a", asks="tcp://hostb:49216")
    cookie = Cookie("g", GUEST, "hostb", UUID(int=2), own=own)
    made = asking.question(own.id, GUEST, cookie, ("10.0.0.2", ""))
    assert made is not None
    assert made.places == ("tcp://hostb:49216", "tcp://10.0.0.2:49216")
    assert asking.from_record(own.id, GUEST, {"question": asking.to_record(made, "hostb")}) == made
    assert asking.question(own.id, GUEST, cookie, ()) is not None
    silent = Cookie("g", GUEST, "hostb", UUID(int=2), own=Own(own.id))
    assert asking.question(own.id, GUEST, silent, ()) is None
    assert asking.from_record(own.id, GUEST, {}) is None


# -- two hosts ------------------------------------------------------------------------------------


async def test_a_controller_that_dies_before_finish(tmp_path: Path) -> None:
    """W2: the destination has killed its QEMU by then, or does it for the question."""
    async with pair(tmp_path) as two:
        await two.performed()
        two.to_source.close()
        await until(lambda: two.guest.state is State.RUNNING)
        assert two.verdicts == ["aborted"]
        await until(lambda: two.destination.registry.find(GUEST) is None)


async def test_a_controller_that_lies_after_finish(tmp_path: Path) -> None:
    """W1: Finish's answer was lost, so the source is told "cancelled"."""
    async with pair(tmp_path) as two:
        await two.finish(await two.performed())
        with pytest.raises(OperationInvalid, match="has started domain 'web'"):
            await two.confirm(b"", cancelled=True)
        assert two.source.registry.find(GUEST) is None
        assert two.destination.registry.lookup_by_name("web").state is State.RUNNING


async def test_a_destination_that_is_away_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_ways, "ASK_S", (0.0,))
    async with pair(tmp_path) as two:
        await two.finish(await two.performed())
        two.peers.reachable = False
        with pytest.raises(OperationFailed, match="asked again until it answers"):
            await two.confirm(b"", cancelled=True)
        assert two.guest.state is State.PAUSED
        outgoing = two.here.doubtful(two.guest.uuid)
        assert outgoing is not None
        assert outgoing.doubt is not None
        assert "did not answer" in outgoing.doubt.why
        two.peers.reachable = True
        await until(lambda: two.source.registry.find(GUEST) is None)


async def test_asking_decides_also_on_a_full_disk(tmp_path: Path) -> None:
    """Nothing can come of the migration, so the source need not wait for room there. (L2)"""
    async with pair(tmp_path) as two:
        cookie = await two.performed()
        two.destination.store.fail_next = 1000
        two.to_source.close()
        await until(lambda: two.guest.state is State.RUNNING)
        two.destination.store.fail_next = 0
        with pytest.raises(OperationFailed, match="took domain 'web' back"):
            await two.finish(cookie)
        id = two.peers.questions[0].migration
        assert (await two.there.destination.decide(id, GUEST)).verdict == "aborted"


async def test_a_question_about_another_guest_is_refused(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        await two.performed()
        [id] = [incoming.id for incoming in two.there.destination._incoming.values()]
        with pytest.raises(OperationInvalid, match="not one of domain"):
            await two.there.destination.decide(id, UUID(int=7))
        assert two.verdicts == []
