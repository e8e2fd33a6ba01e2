"""The destination's half of a guest, before it is decided: the primitives of the migration package.

An incoming guest is launched with its CPUs stopped, registered for autokill before there is a
QEMU (I8), and nobody's until its migration is committed. What decides that is not here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from sterna.config import DomainDef
from sterna.guest import launch
from sterna.guest.ports import ClientLink
from sterna.guest.running import Running
from sterna.guest.states import Lifecycle, PausedReason, Started, State

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

log = logging.getLogger("sterna.guest.incoming")


async def launch_incoming(
    guest: Guest,
    definition: DomainDef,
    link: ClientLink,
    on_close: Callable[[], None],
    *,
    migration: str,
) -> Running:
    """Launch a QEMU that waits for a migration (`-incoming defer`). Nobody is told of it yet.

    `migration` is the id under which it will be decided.

    The caller holds the guest's job. `on_close` runs when `link` ends before `take_over`; it must
    end in `Guest.kill_now` (with `running.ORPHANED`) after the decision is on disk (L4). The
    status record, with the job's data, is on disk when this returns, and after every
    `Guest.save_status`.

    Raises: SternaError, with QEMU's words; nothing is left then, and no event was raised.
    """

    def arm() -> None:
        guest.surroundings.autokill.register(guest.uuid, link, on_close, incoming=True)

    plan = launch.Plan(definition, incoming=True, migration=migration)
    return await launch.launch(guest, plan, audit_reason="migrated", before_spawn=arm)


def announce_incoming(guest: Guest, running: Running) -> None:
    """It listens: state paused(migration), event STARTED/MIGRATED."""
    running.launched = True
    guest.set_state(State.PAUSED, PausedReason.MIGRATION)
    guest.emit_lifecycle(Lifecycle.STARTED, Started.MIGRATED)


def take_over(guest: Guest, running: Running) -> None:
    """The migration is committed, on disk: from now on this is a guest like any other.

    A later close of the connection that prepared it never touches it. The status record follows by
    itself; should we die before, recovery finds the decision.
    """
    guest.surroundings.autokill.remove(guest.uuid)
    guest.surroundings.launcher.release(running)
    running.incoming = False
    guest.post_status()
    launch.announce_agent(guest, running)
