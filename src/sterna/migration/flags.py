"""The flags of a migration: what they mean, which do not go together, which are not served yet.

Numbers and the texts of refusals are those of libvirt 9.0 (observed), since clients show them.
"""

from __future__ import annotations

from typing import Final

from sterna.errors import (
    ArgumentUnsupported,
    BadArgument,
    InvalidArg,
    OperationInvalid,
    OperationUnsupported,
    SternaError,
)
from sterna.rpc.enums import MigrateFlag

F = MigrateFlag
KNOWN: Final = F((1 << 21) - 1)
COPIES_STORAGE: Final = F.NON_SHARED_DISK | F.NON_SHARED_INC

_EXCLUSIVE: Final = (
    (F.TUNNELLED, F.PARALLEL),
    (F.TUNNELLED, F.TLS),
    (F.NON_SHARED_DISK, F.NON_SHARED_INC),
)
_NOT_SERVED: Final = ((F.POSTCOPY_RESUME, "resuming a failed post-copy migration by hand"),)


def checked(bits: int, function: str) -> MigrateFlag:
    """The flags of a call, if they make sense together and can be served.

    Raises:
        InvalidArg (8), ArgumentUnsupported (74), OperationInvalid (55): as libvirt 9.0 does.
        OperationUnsupported (84): a way of migrating that Sterna does not have.
    """
    unknown = bits & ~int(KNOWN)
    if unknown:
        raise BadArgument(f"unsupported flags (0x{unknown:x}) in function {function}")
    flags = F(bits)
    if refusal := _refusal(flags):
        raise refusal
    for some, what in _NOT_SERVED:
        if flags & some:
            raise OperationUnsupported(f"{what} is not supported by this host")
    return flags


def _refusal(flags: MigrateFlag) -> SternaError | None:
    if F.TUNNELLED in flags and F.PEER2PEER not in flags:
        return InvalidArg("cannot perform tunnelled migration without using peer2peer flag")
    for one, other in _EXCLUSIVE:
        if one in flags and other in flags:
            names = f"'VIR_MIGRATE_{one.name}' and 'VIR_MIGRATE_{other.name}'"
            return InvalidArg(f"Flags {names} are mutually exclusive")
    if refusal := _unserved_together(flags):
        return refusal
    if F.POSTCOPY in flags and F.TUNNELLED in flags:
        return ArgumentUnsupported("post-copy is not supported with tunnelled migration")
    if F.POSTCOPY in flags and (F.LIVE not in flags or F.PAUSED in flags):
        text = "post-copy migration is not supported with non-live or paused migration"
        return ArgumentUnsupported(text)
    if F.POSTCOPY_RESUME in flags and F.POSTCOPY not in flags:
        text = "resuming failed post-copy migration requires post-copy to be enabled"
        return ArgumentUnsupported(text)
    if F.ZEROCOPY in flags and F.PARALLEL not in flags:
        return OperationInvalid("zero-copy is only available for parallel migration")
    if F.ZEROCOPY in flags and F.TLS in flags:
        return OperationInvalid("zero-copy is not available for encrypted migration")
    return _offline_refusal(flags) if F.OFFLINE in flags else None


def _unserved_together(flags: MigrateFlag) -> SternaError | None:
    if flags & COPIES_STORAGE and F.TUNNELLED in flags:
        return OperationUnsupported("migration of non-shared storage cannot be tunnelled")
    if F.PARALLEL in flags and F.POSTCOPY in flags:
        return OperationUnsupported("post-copy migrations cannot be parallel on this host")
    if flags & COPIES_STORAGE and F.POSTCOPY in flags:
        return OperationUnsupported("disks cannot be copied in post-copy migrations by this host")
    if F.NON_SHARED_SYNCHRONOUS_WRITES in flags and not flags & COPIES_STORAGE:
        return InvalidArg(
            "VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES needs VIR_MIGRATE_NON_SHARED_DISK or"
            " VIR_MIGRATE_NON_SHARED_INC"
        )
    return None


def _offline_refusal(flags: MigrateFlag) -> SternaError | None:
    if flags & COPIES_STORAGE:
        return OperationInvalid("offline migration cannot handle non-shared storage")
    if F.PERSIST_DEST not in flags:
        return OperationInvalid("offline migration must be specified with the persistent flag set")
    if F.TUNNELLED in flags:
        return OperationInvalid("tunnelled offline migration does not make sense")
    return None
