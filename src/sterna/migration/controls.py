"""What may be set and asked beside migrations: speed, downtime, the compression cache."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from sterna.errors import Overflow
from sterna.guest.actor import Guest
from sterna.guest.jobs import Call
from sterna.guest.registry import Registry
from sterna.guest.surroundings import MONITOR_S
from sterna.migration import qmp
from sterna.migration.params import BANDWIDTH_MIB_MAX
from sterna.migration.qmp import bandwidth_bps
from sterna.migration.tuning import MIB


class Controls:
    """The settings of one host's migrations, guest by guest."""

    def __init__(self, registry: Registry, is_outgoing: Callable[[Guest], bool]) -> None:
        self._registry = registry
        self._is_outgoing = is_outgoing
        self._speed_mib: dict[uuid.UUID, int] = {}

    def speed_mib(self, guest: Guest) -> int:
        """MiB/s; 0 for no limit."""
        return self._speed_mib.get(guest.uuid, 0)

    async def set_max_speed(self, guest: Guest, mib: int) -> None:
        """Limit outgoing migrations of the guest, the running one too. MiB/s; 0 is no limit.

        Raises: Overflow (82).
        """
        if mib > BANDWIDTH_MIB_MAX:
            raise Overflow(f"bandwidth must be less than {BANDWIDTH_MIB_MAX + 1}")
        self.keep_speed(guest, mib)
        if self._is_outgoing(guest):
            await self._set_parameter(guest, "max-bandwidth", bandwidth_bps(mib))

    async def set_max_postcopy_speed(self, guest: Guest, mib: int) -> None:
        """Limit post-copy of the guest that moves now. MiB/s; 0 is no limit. Raises: Overflow."""
        if mib > BANDWIDTH_MIB_MAX:
            raise Overflow(f"bandwidth must be less than {BANDWIDTH_MIB_MAX + 1}")
        await self._set_parameter(guest, "max-postcopy-bandwidth", mib * MIB)

    async def max_postcopy_speed(self, guest: Guest) -> int:
        """MiB/s; 0 is no limit. Raises: OperationInvalid (55) if it does not run."""
        return int((await self._parameters(guest))["max-postcopy-bandwidth"]) // MIB

    def max_speed(self, guest: Guest) -> int:
        """MiB/s. Without a limit it is the number libvirt 9.0 shows."""
        return self._speed_mib.get(guest.uuid, 0) or BANDWIDTH_MIB_MAX

    async def set_max_downtime(self, guest: Guest, downtime_ms: int) -> None:
        """How long the guest may stand at the end, as QEMU estimates it.

        Raises: OperationInvalid (55) if it does not run; QmpError.
        """
        await self._set_parameter(guest, "downtime-limit", downtime_ms)

    async def max_downtime(self, guest: Guest) -> int:
        """In ms. Raises: OperationInvalid (55) if it does not run."""
        return int((await self._parameters(guest))["downtime-limit"])

    async def set_compression_cache(self, guest: Guest, size_bytes: int) -> None:
        """xbzrle's cache; QEMU wants a power of two. Raises: OperationInvalid (55), QmpError."""
        await self._set_parameter(guest, "xbzrle-cache-size", size_bytes)

    async def compression_cache(self, guest: Guest) -> int:
        """In bytes. Raises: OperationInvalid (55) if it does not run."""
        return int((await self._parameters(guest))["xbzrle-cache-size"])

    def keep_speed(self, guest: Guest, mib: int) -> None:
        # Guests come and go; their speeds go with them.
        known = {u: s for u, s in self._speed_mib.items() if self._registry.find(u) is not None}
        self._speed_mib = {**known, guest.uuid: mib}

    async def _set_parameter(self, guest: Guest, name: str, value: int) -> None:
        async def work() -> None:
            await qmp.set_parameters(guest.live_or_refuse().qemu, {name: value})

        guest.live_or_refuse()
        await guest.do(Call.MIGRATION_OP, "remoteDispatchDomainMigrateSetParameter", work)

    async def _parameters(self, guest: Guest) -> dict[str, Any]:
        qemu = guest.live_or_refuse().qemu
        found: dict[str, Any] = await qemu.execute("query-migrate-parameters", timeout_s=MONITOR_S)
        return found
