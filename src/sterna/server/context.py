"""What handlers work with: the parts of one daemon, wired by `app`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from sterna.guest.console import Consoles
from sterna.guest.events import EventBus
from sterna.guest.surroundings import Emulators
from sterna.host.places import Places
from sterna.server.decisions import DecisionListener
from sterna.server.pools import Pools
from sterna.server.settings import Settings

if TYPE_CHECKING:
    from sterna.guest.registry import Registry
    from sterna.migration.service import Migrations
    from sterna.server.session import Session
    from sterna.store.ports import Store


@dataclass(slots=True, eq=False)
class Context:
    """The parts of a running daemon.

    Attributes:
        settings: those in force; SIGHUP replaces them.
        hostname: this host's name, as peers see it.
        is_system: root's daemon, or one user's.
        guest_ids: user and group QEMU runs as, None where it is the daemon's own.
        host_uuid: this host's identity; two hosts of one migration must differ in it.
        door: where other hosts ask what was decided here.
        pools: directories of images.
        sessions: connections now served.
    """

    settings: Settings
    places: Places
    hostname: str
    host_uuid: UUID
    is_system: bool
    guest_ids: tuple[int, int] | None
    emulators: Emulators
    store: Store
    bus: EventBus
    registry: Registry
    migrations: Migrations
    door: DecisionListener
    consoles: Consoles = field(default_factory=Consoles)
    sessions: dict[int, Session] = field(default_factory=dict)
    pools: Pools = field(init=False)

    def __post_init__(self) -> None:
        self.pools = Pools(self.store)
