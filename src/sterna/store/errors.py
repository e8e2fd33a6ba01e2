"""What can go wrong with the store, in words an administrator can act on."""

from __future__ import annotations

from sterna.errors import InternalError, ResourceBusy


class StoreFailed(InternalError):
    """A read or write failed; nothing of it was kept."""


class StoreFull(StoreFailed):
    """The disk is full, or a quota is reached."""


class StoreCorrupt(StoreFailed):
    """The file is not a database any more, or not one of ours."""


class StoreTooNew(StoreFailed):
    """A newer Sterna wrote this file; an older one must not guess at it."""


class StoreInUse(ResourceBusy):
    """Another daemon holds the file."""
