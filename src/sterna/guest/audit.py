"""The audit trail: one line for each start and stop of a guest, for those who must account.

Fields and their order are those of libvirt's audit messages (libvirt 9.0, observed), so that tools
reading them keep working.
"""

from __future__ import annotations

import logging
from typing import Literal
from uuid import UUID

log = logging.getLogger("sterna.audit")


def record(
    op: Literal["start", "stop"],
    reason: str,
    *,
    name: str,
    uuid: UUID,
    pid: int,
    success: bool,
) -> None:
    """Write one line. `pid` is the QEMU's, -1 if none came to life."""
    # A name may hold what would start a second record; the log shall not be forgeable.
    safe = name.encode("unicode_escape").decode("ascii").replace('"', "\\x22")
    log.info(
        'virt=kvm op=%s reason=%s vm="%s" uuid=%s vm-pid=%d res=%s',
        op,
        reason,
        safe,
        uuid,
        pid,
        "success" if success else "failed",
    )
