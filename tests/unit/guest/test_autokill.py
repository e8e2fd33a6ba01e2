"""The registration: it fires once, with the connection, unless it was taken back."""

from __future__ import annotations

from uuid import UUID

import pytest

from sterna.errors import OperationInvalid
from sterna.guest.autokill import SILENCE_S_MAX, Autokill
from support.links import FakeLink

ONE = UUID(int=1)
TWO = UUID(int=2)


def test_the_close_runs_the_action_synchronously_and_once() -> None:
    autokill, link, killed = Autokill(), FakeLink(), []
    autokill.register(ONE, link, lambda: killed.append(1))
    link.close()
    assert killed == [1]
    assert autokill.find(ONE) is None
    assert not autokill.remove(ONE)


def test_a_removed_registration_is_never_touched_by_a_later_close() -> None:
    autokill, link, killed = Autokill(), FakeLink(), []
    autokill.register(ONE, link, lambda: killed.append(1), incoming=True)
    assert autokill.find(ONE)
    assert autokill.remove(ONE)
    link.close()
    assert killed == []
    assert not link.callbacks


def test_a_link_that_is_closed_already_kills_at_once() -> None:
    autokill, link, killed = Autokill(), FakeLink(), []
    link.close()
    autokill.register(ONE, link, lambda: killed.append(1))
    assert killed == [1]


def test_registering_again_replaces_the_action_on_the_same_link() -> None:
    autokill, link, killed = Autokill(), FakeLink(), []
    autokill.register(ONE, link, lambda: killed.append("old"))
    autokill.register(ONE, link, lambda: killed.append("new"))
    link.close()
    assert killed == ["new"]


def test_another_connection_is_refused() -> None:
    autokill = Autokill()
    autokill.register(ONE, FakeLink(), lambda: None)
    with pytest.raises(OperationInvalid, match="domain is marked for auto destroy"):
        autokill.register(ONE, FakeLink(), lambda: None)


def test_one_failing_action_does_not_save_the_others() -> None:
    autokill, link, killed = Autokill(), FakeLink(), []

    def fail() -> None:
        raise RuntimeError("planted")

    autokill.register(ONE, link, fail)
    autokill.register(TWO, link, lambda: killed.append(2))
    link.close()
    assert killed == [2]


def test_silence_is_bounded_while_a_connection_answers_for_any_guest() -> None:
    autokill, link = Autokill(), FakeLink()
    autokill.register(ONE, link, lambda: None)
    autokill.register(ONE, link, lambda: None)
    autokill.register(TWO, link, lambda: None)
    assert link.silence_s_max == SILENCE_S_MAX
    autokill.remove(ONE)
    assert link.silence_s_max == SILENCE_S_MAX
    autokill.remove(TWO)
    assert link.silence_s_max is None


def test_one_that_fired_early_leaves_the_guests_next_life_alone() -> None:
    autokill, first, second, killed = Autokill(), FakeLink(), FakeLink(), []
    autokill.register(ONE, first, lambda: killed.append("incoming"), incoming=True)
    autokill.register(TWO, first, lambda: killed.append("other"), incoming=True)
    standing = autokill.find(ONE)
    assert standing is not None
    standing.callback()  # somebody destroys the incoming guest; its connection lives on
    assert first.silence_s_max == SILENCE_S_MAX
    autokill.register(ONE, second, lambda: killed.append("next"))
    first.close()
    assert killed == ["incoming", "other"]
    second.close()
    assert killed == ["incoming", "other", "next"]
