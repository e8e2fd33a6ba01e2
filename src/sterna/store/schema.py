"""The tables, as numbered steps from an empty file to the newest form.

A file carries its version in SQLite's `user_version`. A step is never changed once released: a new
one is appended. Each runs in one transaction with the new version number.
"""

from __future__ import annotations

from typing import Final

STEPS: Final[tuple[str, ...]] = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE definition (
        uuid TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        xml TEXT NOT NULL,
        autostart INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE live (uuid TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE decision (
        migration TEXT PRIMARY KEY,
        verdict TEXT NOT NULL CHECK (verdict IN ('committed', 'aborted')),
        uuid TEXT NOT NULL,
        decided_at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE history (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        uuid TEXT NOT NULL,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL
    );
    CREATE INDEX history_of_guest ON history (uuid, id);
    """,
    """
    CREATE TABLE ownership (
        uuid TEXT PRIMARY KEY,
        epoch INTEGER NOT NULL,
        holder TEXT NOT NULL CHECK (holder IN ('here', 'leaving', 'elsewhere')),
        detail TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE made_image (
        path TEXT PRIMARY KEY,
        migration TEXT NOT NULL,
        uuid TEXT NOT NULL,
        inode INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
)

HISTORY_ROWS_MAX: Final = 10_000
"""Older rows go: history is for people and must not grow the host's disk."""
