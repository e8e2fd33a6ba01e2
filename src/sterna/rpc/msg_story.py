"""Messages of Sterna's own program, for people: what happened to a guest, and what is in doubt.

Details are JSON texts, for their keys will grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.xdr.message import Message
from sterna.xdr.wire import U32, U64, Max, Str, Uuid

HISTORY_ENTRIES_MAX = 1000
"""Most entries that one call asks for and gets."""


class HistoryRecord(Message):
    """One finished happening. `at` is ms since the epoch by the host's clock; `detail` is JSON."""

    at: U64
    guest: Uuid
    kind: Str
    detail: Str


class GuestHistoryArgs(Message):
    """`guest`: a name or uuid, also of one that is not here any more; "" for all guests."""

    guest: Str
    limit: U32


class GuestHistoryRet(Message):
    """Newest first."""

    entries: Annotated[Sequence[HistoryRecord], Max(HISTORY_ENTRIES_MAX)]


class GuestEvidenceArgs(Message):
    """`guest`: a name or uuid."""

    guest: Str


class GuestEvidenceRet(Message):
    """What this host knows about where the guest runs, as JSON."""

    evidence: Str


class GuestReconcileArgs(Message):
    """`action`: "ask", "take-back" or "give-up"; the last two want `force` unless proven."""

    guest: Str
    action: Str
    force: U32


class GuestReconcileRet(Message):
    """What was done, as JSON."""

    done: Str
