"""The judge of the tick guest's history, on texts made by hand."""

from __future__ import annotations

import pytest

from support.history import Chunk, History

OPENING = "boot\nready 4\n"


def text(*numbers: int) -> bytes:
    return (OPENING + "".join(f"tick {n} {n * 2} {n * 3}\n" for n in numbers)).encode()


def test_one_history_is_accepted() -> None:
    history = History.of_text(text(1, 2, 3))
    history.check_one_history()
    assert history.pages == 4
    assert [tick.pages_checked for tick in history.ticks] == [3, 6, 9]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (text(1, 2, 2), "doubled: tick 2"),
        (text(1, 2, 4), "lost: tick 4"),
        (text(2), "lost: tick 2"),
        (text(1) + b"BAD page 1 word 2 is 3 not 4 tick 1\n", "BAD page 1"),
        (text(1) + b"titick 2ck 2\n", "titick"),
        (text(1) + text(1), "booted 2 times"),
        (OPENING.encode(), "never ticked"),
        (text(1, 2) + b"tick 1 0 0\n", "doubled: tick 1"),
    ],
)
def test_each_breach_is_named(data: bytes, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        History.of_text(data).check_one_history()


def test_a_reset_starts_the_count_again() -> None:
    History.of_text(text(1, 2) + text(1, 2)).check_one_history(boots=2)


def test_a_line_may_end_on_the_other_host() -> None:
    data = text(1, 2)
    history = History.parse([Chunk(1_000_000, 0, data[:-5]), Chunk(41_000_000, 1, data[-5:])])
    history.check_one_history()
    assert history.speakers == [0, 1]
    assert history.silences_at_moves_ms() == [40.0]
    assert history.longest_silence_ms() == 40.0


def test_verification_counts_from_the_moment_asked() -> None:
    chunks = [Chunk(n, 0, f"tick {n} 0 {n * 2}\n".encode()) for n in range(1, 5)]
    history = History.parse([Chunk(0, 0, OPENING.encode()), *chunks])
    assert history.verified_since(2)
    assert not history.verified_since(3)
    assert not history.verified_since(9)


def test_the_page_counter_wraps() -> None:
    wrapped = f"{OPENING}tick 1 0 4294967295\ntick 2 0 3\n".encode()
    assert History.of_text(wrapped).verified_since(0)
