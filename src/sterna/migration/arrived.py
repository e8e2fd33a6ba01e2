"""What is written down of a guest once it runs here."""

from __future__ import annotations

import logging

from sterna.config import DomainDef, parse_domain
from sterna.config.clone import clone
from sterna.guest.actor import Guest
from sterna.guest.definitions import completed
from sterna.guest.states import Defined, Lifecycle
from sterna.migration.core.events import DefineOutcome

log = logging.getLogger("sterna.migration.destination")


async def keep(id: str, guest: Guest, live: DomainDef, xml: str | None) -> DefineOutcome:
    """Write the definition down, after `cont`, so that a failed Finish leaves nothing (I16).

    It is that of the source's cookie, or else `live`, as which it runs.
    """
    known = guest.persistent
    try:
        definition = await _definition(guest, live, xml)
        await guest.surroundings.write_down(lambda: _save(guest, definition))
    except Exception:
        # The guest runs here all the same, as it was before: the log says why, and whoever waits
        # for Finish must not wait for ever. (L7)
        log.exception("migration.not_persistent mig=%s guest=%s", id, guest.name)
        return DefineOutcome.FAILED
    guest.emit_lifecycle(Lifecycle.DEFINED, Defined.UPDATED if known else Defined.ADDED)
    return DefineOutcome.WRITTEN


async def _save(guest: Guest, definition: DomainDef) -> None:
    before, guest.definition = guest.definition, definition
    try:
        await guest.save_definition()
    except BaseException:
        guest.definition = before
        raise


async def _definition(guest: Guest, live: DomainDef, xml: str | None) -> DomainDef:
    found = parse_domain(xml) if xml is not None else clone(live)
    found.name, found.uuid = guest.name, guest.uuid
    arch = (found.os.arch if found.os is not None else None) or "x86_64"
    emulators = guest.surroundings.emulators
    return completed(found, await emulators.facts(found.devices.emulator, arch))
