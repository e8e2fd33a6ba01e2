"""Log lines: one event, one line, nothing that a field could break."""

from __future__ import annotations

import io
import logging

import pytest

from sterna.server import logging as daemon_log


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    level = root.level
    stream = io.StringIO()
    daemon_log.set_up(verbose=True, stream=stream)
    yield stream
    root.setLevel(level)


def test_event_with_fields_and_bound_ones(lines: io.StringIO) -> None:
    with daemon_log.bound(client=3):
        daemon_log.event(logging.getLogger("x"), "guest.started", name='a "b"\n', empty="")
    line = lines.getvalue()
    assert line.count("\n") == 1
    assert line.rstrip().endswith('info guest.started client=3 name="a \\"b\\"\\x0a" empty=""')


def test_a_long_field_is_cut(lines: io.StringIO) -> None:
    daemon_log.event(logging.getLogger("x"), "long", text="y" * 100_000)
    assert len(lines.getvalue()) < daemon_log.LINE_CHARS_MAX + 10


def test_plain_messages_and_level(lines: io.StringIO) -> None:
    daemon_log.set_level(verbose=False)
    logging.getLogger("x").debug("hidden")
    logging.getLogger("x").warning("two words")
    assert '"two words"' in lines.getvalue()
    assert "hidden" not in lines.getvalue()
