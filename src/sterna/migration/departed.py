"""A guest that was sent away and has no QEMU here any more: what became of it is still to be heard.

Its daemon, or this whole host, died in the middle of the migration. The same core goes on as if
nothing had happened: it asks until the destination has spoken. Until then nobody may start the
guest here; afterwards it is the destination's, or shut off here like any guest whose host died.
"""

from __future__ import annotations

from collections.abc import Callable

from sterna.guest.registry import Registry
from sterna.migration import asking
from sterna.migration.core import effects as do
from sterna.migration.core import events as on
from sterna.migration.core import source
from sterna.migration.core.records import Record
from sterna.migration.doubtful import Doubtful
from sterna.migration.ownership import MIGRATION, Owners
from sterna.migration.peers import Peers
from sterna.store.ports import Ownership


class Departed(Doubtful):
    """One such guest."""

    def __init__(
        self, registry: Registry, leaving: Ownership, peers: Peers, owners: Owners
    ) -> None:
        id = str(leaving.detail[MIGRATION])
        super().__init__(id, leaving.uuid, registry, peers, owners)
        self.name = str(leaving.detail.get("name", leaving.uuid))
        self._given = leaving.holder == "elsewhere"
        self._undefines = bool(leaving.detail.get("undefine"))
        self._taken_up = True
        self.question = asking.from_record(id, leaving.uuid, leaving.detail)
        self.hostname = (leaving.detail.get("question") or {}).get("hostname", "")
        self.ended: Callable[[Departed], None] = lambda _departed: None

    def go_on(self) -> None:
        """Ask, or do what is left to be done of the answer that an earlier daemon got."""
        self.handed_over = self._given
        record = Record.HANDED_OVER if self._given else Record.PERFORMING
        state, effects = source.recovered(
            self.name, record, None, shall_run=True, stopped=True, asks=True, gone=True
        )
        self.begin(state, effects)
        self.entered(state.phase)

    def run(self, effect: do.SourceEffect) -> None:
        match effect:
            case do.Kill():
                self.post(on.QemuGone("its QEMU is gone"))
            case do.Undefine():
                if self._undefines:
                    self.do(self._undefine())
            case do.EndJob(succeeded=succeeded):
                self._conclude(self.name, succeeded=succeeded, stats=None)
                self.ended(self)
            case _:
                super().run(effect)
