"""CPU and node sets as libvirt writes them: "0-3,7", with ^n taking one out."""

from __future__ import annotations

from sterna.errors import InvalidArg

NUMBER_MAX = 16384  # far above any host; keeps "0-4000000000" from filling memory


def parse_set(text: str) -> set[int]:
    """Numbers in a set. Raises InvalidArg as libvirt does for a malformed one."""
    found: set[int] = set()
    for raw in text.split(","):
        part = raw.strip()
        remove = part.startswith("^")
        first, dash, last = part.removeprefix("^").partition("-")
        if not _is_number(first) or (dash and (remove or not _is_number(last))):
            raise InvalidArg(f"Failed to parse bitmap '{text}'")
        start, stop = int(first), int(last) if dash else int(first)
        if stop < start or stop > NUMBER_MAX:
            raise InvalidArg(f"Failed to parse bitmap '{text}'")
        if remove:
            found.discard(start)
        else:
            found.update(range(start, stop + 1))
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def format_set(numbers: set[int]) -> str:
    """The shortest form, in order."""
    parts: list[str] = []
    ordered = sorted(numbers)
    index = 0
    while index < len(ordered):
        end = index
        while end + 1 < len(ordered) and ordered[end + 1] == ordered[end] + 1:
            end += 1
        first, last = ordered[index], ordered[end]
        parts.append(str(first) if first == last else f"{first}-{last}")
        index = end + 1
    return ",".join(parts)


def normalise_set(text: str | None) -> str | None:
    return None if text is None else format_set(parse_set(text))
