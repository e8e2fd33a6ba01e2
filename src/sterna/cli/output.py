"""How the command line prints: plain text into a pipe, aligned tables at a terminal, or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def format_bytes(count: float) -> str:
    """`1536` as `1.5 KiB`."""
    for unit in _UNITS[:-1]:
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_UNITS[-1]}"


def format_ms(milliseconds: float) -> str:
    """`950` as `950 ms`, `61500` as `1 min 2 s`."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def print_json(value: Any) -> None:
    """One JSON document, indented for people, keys in the order given."""
    json.dump(value, sys.stdout, indent=2, default=str, ensure_ascii=False)
    sys.stdout.write("\n")


def print_json_line(value: Any) -> None:
    """One JSON document on one line, at once: for streams of events and progress."""
    sys.stdout.write(json.dumps(value, default=str, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, terminal: bool) -> None:
    """Columns padded with spaces; at a terminal the heading is bold."""
    widths = [
        max(len(header), *(len(row[i]) for row in rows)) if rows else len(header)
        for i, header in enumerate(headers)
    ]
    heading = "  ".join(h.ljust(w) for h, w in zip(headers, widths, strict=True)).rstrip()
    sys.stdout.write(f"\x1b[1m{heading}\x1b[0m\n" if terminal else f"{heading}\n")
    for row in rows:
        line = "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        sys.stdout.write(f"{line}\n")


def print_fields(fields: Mapping[str, str]) -> None:
    """`name: value` lines, values aligned."""
    width = max((len(name) for name in fields), default=0) + 1
    for name, value in fields.items():
        sys.stdout.write(f"{name + ':':<{width}} {value}\n")


def print_error(message: str) -> None:
    """One clear sentence on standard error."""
    sys.stderr.write(f"sterna: {message}\n")
