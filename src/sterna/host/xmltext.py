"""Writes indented XML that looks like libvirt's: people compare the two by eye and by diff."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&apos;", '"': "&quot;"})


class XmlText:
    """A document in the making: two spaces a level, attributes in single quotes."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 0

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"

    def _open(self, tag: str, attributes: dict[str, object]) -> str:
        # None leaves an attribute out.
        given = [
            f" {name}='{str(value).translate(_ESCAPES)}'"
            for name, value in attributes.items()
            if value is not None
        ]
        return "  " * self._depth + "<" + tag + "".join(given)

    def leaf(self, tag: str, text: object = None, /, **attributes: object) -> None:
        """Write an element without children, empty or with a text."""
        start = self._open(tag, attributes)
        if text is None:
            self._lines.append(start + "/>")
        else:
            self._lines.append(f"{start}>{str(text).translate(_ESCAPES)}</{tag}>")

    @contextlib.contextmanager
    def element(self, tag: str, /, **attributes: object) -> Iterator[None]:
        """Write an element around what is written meanwhile."""
        self._lines.append(self._open(tag, attributes) + ">")
        self._depth += 1
        yield
        self._depth -= 1
        self._lines.append("  " * self._depth + f"</{tag}>")

    def blank(self) -> None:
        """Write an empty line."""
        self._lines.append("")
