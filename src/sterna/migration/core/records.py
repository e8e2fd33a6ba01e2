"""What is durable of a migration, and before which act it must be (I13).

The destination's two are the decision of L4: whichever is stored first stands for ever. The
source's three tell a restarted daemon what had been begun.
"""

from __future__ import annotations

from enum import Enum


class Record(Enum):
    COMMITTED = "committed"
    ABORTED = "aborted"

    PERFORMING = "performing"
    HANDED_OVER = "handed over"
    TAKEN_BACK = "taken back"
