"""Logs are events: a stable dotted name and fields, one line each, `key=value`.

    2026-01-31T12:00:00.123Z info call.failed client=3 procedure=DOMAIN_CREATE code=55 ...

Names are grepped for, counted and asserted by tests, so they do not change; texts in fields may.
Every module logs with the standard library; `event()` is a short way to say it. What belongs to
every line of a task (client, guest, migration) is bound once.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TextIO

LINE_CHARS_MAX = 8192
"""A peer's text must not fill the disk with one line."""

_bound: ContextVar[Mapping[str, object]] = ContextVar("_bound", default=MappingProxyType({}))

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@+,[]()%*#")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "f"}


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Add fields to every line logged inside, in this task and the ones it starts."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def event(
    logger: logging.Logger, name: str, level: int = logging.INFO, /, **fields: object
) -> None:
    """Log one event."""
    if logger.isEnabledFor(level):
        logger.log(level, name, extra={"f": fields})


def quoted(value: object) -> str:
    """A value as one word: as it is where nothing in it could be misread, else in quotes."""
    text = str(value)
    if text and _PLAIN.issuperset(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in escaped) + '"'


class KeyValueFormatter(logging.Formatter):
    """Record to line."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        message = record.getMessage()
        words = [f"{stamp}.{int(record.msecs):03d}Z", record.levelname.lower()]
        words.append(message if "=" in message or _PLAIN.issuperset(message) else quoted(message))
        fields = {**_bound.get(), **(getattr(record, "f", None) or {})}
        # Plain `extra={...}` of modules that do not use event().
        fields.update((k, v) for k, v in vars(record).items() if k not in _STANDARD)
        words += [f"{key}={quoted(value)}" for key, value in fields.items()]
        line = " ".join(words)
        if len(line) > LINE_CHARS_MAX:
            line = f"{line[:LINE_CHARS_MAX]}…"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def set_up(*, verbose: bool, stream: TextIO | None = None) -> None:
    """Log to standard error, as a service manager expects it.

    Args:
        verbose: DEBUG instead of INFO.
        stream: for tests.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(verbose=verbose)


def set_level(*, verbose: bool) -> None:
    """Change the level while running (SIGHUP)."""
    logging.getLogger().setLevel(logging.DEBUG if verbose else logging.INFO)
    # asyncio's own debug lines say nothing about guests.
    logging.getLogger("asyncio").setLevel(logging.INFO)
