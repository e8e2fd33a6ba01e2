"""Disk target names (sda, vdb, hdaa) and what they imply."""

from __future__ import annotations

PREFIXES = ("fd", "hd", "sd", "vd", "xvd", "ubd")
BUS_OF_PREFIX = {
    "fd": "fdc", "hd": "ide", "sd": "scsi", "vd": "virtio", "xvd": "xen", "ubd": "uml",
}  # fmt: skip
INDEX_MAX = 1 << 20


def split_target(name: str) -> tuple[str, int] | None:
    """Prefix and index of a target: sdc -> ("sd", 2), vdaa1 -> ("vd", 26). None if malformed."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            letters = name[len(prefix) :].rstrip("0123456789")
            if not letters or not all("a" <= c <= "z" for c in letters):
                continue
            index = 0
            for letter in letters:
                index = index * 26 + ord(letter) - ord("a") + 1
                if index > INDEX_MAX:
                    return None
            return prefix, index - 1
    return None


def target_index(name: str) -> int:
    """The index in a target's name, -1 if it has none."""
    found = split_target(name)
    return found[1] if found is not None else -1
