"""Types that keep one kind of number or text from being taken for another."""

from __future__ import annotations

from typing import NewType

Bytes = NewType("Bytes", int)
KiB = NewType("KiB", int)
MigrationId = NewType("MigrationId", str)
"""One migration's epoch: a UUID text made by Begin and carried by every cookie (I3)."""
