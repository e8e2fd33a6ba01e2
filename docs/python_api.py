"""Draws the reference page of the public Python API from its signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

import sterna
from sterna.client import errors, types
from sterna.client.console import Console
from sterna.client.events import EventStream
from sterna.client.migrate import MigrateOptions

INTRODUCTION = """# The Python API

`sterna.connect` is where it begins. What is on this page is promised: it changes only with notice
in the changelog. Everything else in the package may change at any time. The API is asynchronous.

```python
import asyncio
import sterna

async def main() -> None:
    async with sterna.connect("/tmp/a") as a, sterna.connect("/tmp/b") as b:
        for guest in await a.guests():
            print(await guest.info())
        result = await a.guest("web1").migrate(b, on_progress=print)
        print(result.total_ms, result.downtime_ms)

asyncio.run(main())
```

Every error is a `sterna.errors.SternaError`: see [errors](errors.md).
"""
CLASSES = (
    sterna.Host,
    sterna.Guest,
    Console,
    EventStream,
    MigrateOptions,
    types.GuestInfo,
    types.GuestEvent,
    types.Progress,
    types.MigrationResult,
    errors.ConnectionFailed,
    errors.MigrationFailed,
    errors.MigrationInDoubt,
)
REFERENCE_ROLE = re.compile(r"``(.+?)``")


def python_page(note: str) -> str:
    """The whole page."""
    parts = [note, INTRODUCTION, _function("sterna.connect", sterna.connect, level=2)]
    parts += [_class(cls) for cls in CLASSES]
    return "\n".join(parts).rstrip() + "\n"


def _class(cls: type) -> str:
    lines = [f"## {cls.__name__}\n", _text(cls)]
    if dataclasses.is_dataclass(cls):
        lines.append("| field | type |\n|---|---|")
        for field in dataclasses.fields(cls):
            kind = str(field.type).replace("|", "\\|")
            lines.append(f"| `{field.name}` | `{kind}` |")
        lines.append("")
    for name, member in vars(cls).items():
        if name.startswith("_") or not inspect.getdoc(member):
            continue
        if isinstance(member, property):
            lines.append(f"### {cls.__name__}.{name}\n\n{_text(member)}")
        elif inspect.isfunction(member):
            lines.append(_function(f"{cls.__name__}.{name}", member, level=3))
    return "\n".join(lines)


def _function(name: str, function: Callable[..., Any], *, level: int) -> str:
    plain = inspect.unwrap(function)
    signature = inspect.signature(plain)
    shown = [p for p in signature.parameters.values() if p.name != "self"]
    word = "async " if inspect.iscoroutinefunction(plain) else ""
    text = str(signature.replace(parameters=shown)).replace("'", "")
    short = name.rpartition(".")[2]
    return f"{'#' * level} {name}\n\n```python\n{word}{short}{text}\n```\n\n{_text(function)}"


def _text(thing: object) -> str:
    """A docstring as Markdown: its sections become lists."""
    lines = []
    for line in (inspect.getdoc(thing) or "").splitlines():
        if line in ("Args:", "Attributes:", "Raises:"):
            lines += [f"{line}", ""]
        elif match := re.match(r"    (\S[^:]*): (.*)", line):
            lines.append(f"- `{match[1]}`: {match[2]}")
        else:
            lines.append(line.replace("    ", "  ", 1) if line.startswith("    ") else line)
    return REFERENCE_ROLE.sub(r"`\1`", "\n".join(lines)) + "\n"
