"""The destination's disks of one migration: their images, and the server they are received by."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from sterna.config import DomainDef
from sterna.guest.ports import Monitor
from sterna.guest.surroundings import MONITOR_S
from sterna.migration import transports
from sterna.migration.cookie import Nbd
from sterna.migration.disks import as_copied, copied, export, receives_at
from sterna.migration.made_images import MadeImages, missing, targets
from sterna.migration.params import Request
from sterna.migration.transports import PortPool
from sterna.rpc.enums import MigrateFlag
from sterna.store.ports import Store


class ReceivedDisks:
    """What a migration that copies disks needs here, from its Prepare to its end."""

    def __init__(
        self,
        *,
        store: Store,
        migration: str,
        guest: UUID,
        request: Request,
        offered: Nbd | None,
        ports: PortPool,
        address: str | None,
    ) -> None:
        """`offered` is what the source's cookie says; `address`, where this host receives, if the
        configuration says so."""
        self._request, self._offered = request, offered or Nbd()
        self._ports, self._address = ports, address
        self._images = MadeImages(store, migration, guest)
        self._port: int | None = None
        self._exports = False

    async def look(self, definition: DomainDef) -> None:
        """Look, before anything is begun, whether all of them can be received; nothing is changed
        but the definition.

        Raises: as `made_images.targets` and `missing`.
        """
        disks = copied(definition, self._request)
        incremental = MigrateFlag.NON_SHARED_INC in self._request.flags
        absent = await missing(targets(disks, self._offered.disks), incremental=incremental)
        self._images.absent = absent
        made = {target.path for target in absent}
        for disk in disks:
            if disk.path in made:
                disk.backing = None  # it gets everything

    async def make(self) -> None:
        """Make the images that are missing. Raises: SternaError; `settle` removes them."""
        await self._images.make()

    async def listen(self, qemu: Monitor, live: DomainDef, tls: Mapping[str, str]) -> None:
        """Let the source write them; `tls` as for `export`. Raises: SternaError."""
        address = self._request.listen_address or self._address or transports.any_address()
        place = receives_at(self._request, address.strip("[]"), self._ports.take)
        self._port = place.port
        disks = [as_copied(disk) for disk in copied(live, self._request)]
        await export(qemu, disks, place, tls)
        self._exports = True

    @property
    def told(self) -> Nbd:
        """What cookie 2 says of them."""
        return Nbd(self._offered.disks, self._port)

    async def hang_up(self, qemu: Monitor) -> None:
        """From now on nobody writes them but the guest. Raises: QmpError, MonitorGone, ..."""
        if self._exports:
            await qemu.execute("nbd-server-stop", timeout_s=MONITOR_S)
            self._exports = False

    async def settle(self) -> None:
        """It is over here, one way or the other: keep or remove what was made, as was decided."""
        await self._images.settle()

    def release(self) -> None:
        """Give the port back."""
        if self._port is not None:
            self._ports.release(self._port)
