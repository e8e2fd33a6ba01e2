"""How much memory a QEMU may keep from being swapped: zero-copy sends from locked pages."""

from __future__ import annotations

import resource

from sterna.config import DomainDef
from sterna.errors import SystemCallError

KIB = 1024
Limits = tuple[int, int]
"""Soft and hard limit in bytes, as `prlimit` has them."""


def allow(pid: int, definition: DomainDef) -> Limits | None:
    """Let that QEMU lock all memory of its guest, or what `<hard_limit>` says.

    Returns the limits it had; None if they are high enough already.

    Raises: SystemCallError (38), with libvirt's text: only a daemon with CAP_SYS_RESOURCE may raise
        a limit.
    """
    tuned = definition.memtune.hard_limit if definition.memtune is not None else None
    wanted = (tuned or definition.memory or 0) * KIB
    try:
        soft, hard = resource.prlimit(pid, resource.RLIMIT_MEMLOCK)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return None
        most = hard if hard == resource.RLIM_INFINITY else max(hard, wanted)
        resource.prlimit(pid, resource.RLIMIT_MEMLOCK, (wanted, most))
    except OSError as exc:
        text = f"cannot limit locked memory of process {pid} to {wanted}"
        raise SystemCallError(text, errno=exc.errno or 0) from exc
    return soft, hard


def restore(pid: int, limits: Limits) -> None:
    """Put them back. Raises: OSError."""
    resource.prlimit(pid, resource.RLIMIT_MEMLOCK, limits)
