"""Changes to a guest's memory, vcpus and descriptions: live, for the next start, or both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sterna.config import DomainDef, check_lifecycle, clone
from sterna.errors import ErrorDomain, InvalidArg, NoDomainMetadata, OperationInvalid
from sterna.guest import metadata, vcpus
from sterna.guest.definitions import (
    check_words,
    memory_max_kib,
    memory_now_kib,
    vcpus_max,
    vcpus_now,
)
from sterna.guest.events import MetadataChangeEvent
from sterna.guest.flags import Affect
from sterna.guest.jobs import Call
from sterna.guest.running import Running
from sterna.guest.surroundings import MONITOR_S

if TYPE_CHECKING:
    from sterna.guest.actor import Guest


def affected(guest: Guest, affect: Affect) -> tuple[Running | None, DomainDef | None]:
    """The life and the stored definition a change is for.

    Raises: OperationInvalid (55) if one that was named is not there.
    """
    live = bool(affect & Affect.LIVE)
    config = bool(affect & Affect.CONFIG)
    if not live and not config:
        live = guest.active
        config = not live
    running = guest.live_or_refuse() if live else None
    return running, guest.stored_or_refuse() if config else None


async def change_stored(guest: Guest, change: Callable[[DomainDef], None]) -> None:
    """Change the stored definition: on disk first, then in memory."""

    async def work() -> None:
        before = guest.stored_or_refuse()
        changed = clone(before)
        change(changed)
        check_words(changed)
        guest.definition = changed
        try:
            await guest.save_definition()
        except BaseException:
            guest.definition = before
            raise

    await guest.surroundings.write_down(work)


# -- memory --------------------------------------------------------------------------------------


async def set_memory(
    guest: Guest,
    kib: int,
    affect: Affect = Affect.CURRENT,
    *,
    maximum: bool = False,
    api: str = "remoteDispatchDomainSetMemoryFlags",
) -> None:
    """Set the balloon, or with `maximum` the memory the guest is built with.

    Raises: InvalidArg (8), OperationInvalid (55), QmpError.
    """

    async def work() -> None:
        running, stored = affected(guest, affect)
        if maximum:
            await _set_maximum(guest, running, stored, kib)
            return
        for definition in (running.definition if running else None, stored):
            if definition is not None and kib > memory_max_kib(definition):
                raise InvalidArg("cannot set memory higher than max memory")
        if running is not None:
            balloon = running.definition.devices.memballoon
            if balloon is None or balloon.model == "none":
                raise OperationInvalid(
                    "Unable to change memory of active domain without the balloon device and"
                    " guest OS balloon driver"
                )
            await running.qemu.execute("balloon", {"value": kib * 1024}, timeout_s=MONITOR_S)
        if stored is not None:
            await change_stored(guest, lambda d: setattr(d, "current_memory", kib))

    await guest.do(Call.MODIFY, api, work)


async def _set_maximum(
    guest: Guest, running: Running | None, stored: DomainDef | None, kib: int
) -> None:
    if running is not None:
        raise OperationInvalid("cannot resize the maximum memory on an active domain")
    if stored is None:
        return

    def change(d: DomainDef) -> None:
        d.memory = kib
        d.current_memory = min(memory_now_kib(d), kib)

    await change_stored(guest, change)


def max_memory(guest: Guest) -> int:
    """In KiB."""
    return memory_max_kib(guest.current)


# -- vcpus ---------------------------------------------------------------------------------------


async def set_vcpus(
    guest: Guest,
    count: int,
    affect: Affect = Affect.CURRENT,
    *,
    maximum: bool = False,
    api: str = "remoteDispatchDomainSetVcpusFlags",
) -> None:
    """Set how many vcpus are there, or with `maximum` how many there may be.

    Live, vcpus are plugged in and out one at a time where the machine can.

    Raises: InvalidArg (8), OperationInvalid (55), QmpError.
    """

    async def work() -> None:
        running, stored = affected(guest, affect)
        if maximum:
            if running is not None:
                raise InvalidArg("maximum vcpu count of a live domain can't be modified")
            await change_stored(guest, lambda d: _set_vcpus_max(d, count))
            return
        live = running.definition if running is not None else None
        for definition, word in ((live, "live"), (stored, "persistent")):
            if definition is not None and count > vcpus_max(definition):
                raise InvalidArg(
                    f"requested vcpus is greater than max allowable vcpus for the {word} domain:"
                    f" {count} > {vcpus_max(definition)}"
                )
        if running is not None:
            await vcpus.plug(running, count)
        if stored is not None:
            await change_stored(guest, lambda d: _set_vcpus_now(d, count))
        guest.post_status()

    if count < 1:
        raise InvalidArg(f"argument unsupported: vcpu count must be positive, not {count}")
    await guest.do(Call.MODIFY, api, work)


def _set_vcpus_max(d: DomainDef, count: int) -> None:
    now = vcpus_now(d)
    d.vcpu = count
    _set_vcpus_now(d, min(now, count))


def _set_vcpus_now(d: DomainDef, count: int) -> None:
    d.vcpu_current = count if count != vcpus_max(d) else None
    for vcpu in d.vcpus:
        vcpu.enabled = (vcpu.id or 0) < count


def get_vcpus(guest: Guest, affect: Affect = Affect.CURRENT, *, maximum: bool = False) -> int:
    """How many vcpus are there, or may be there. Raises: OperationInvalid (55)."""
    running, stored = affected(guest, affect)
    definition = running.definition if running is not None else stored
    if definition is None:
        raise OperationInvalid("domain is not running", domain=ErrorDomain.DOMAIN)
    return vcpus_max(definition) if maximum else vcpus_now(definition)


# -- title, description, metadata ------------------------------------------------------------------

DESCRIPTION, TITLE, ELEMENT = range(3)


def get_metadata(
    guest: Guest, kind: int, uri: str | None = None, affect: Affect = Affect.CURRENT
) -> str:
    """Title, description, or the element of a namespace.

    Raises: NoDomainMetadata (80) if it isn't there; InvalidArg (8); OperationInvalid (55).
    """
    running, stored = affected(guest, affect)
    definition = running.definition if running is not None else stored
    found: str | None = None
    if definition is not None:
        if kind == DESCRIPTION:
            found = definition.description
        elif kind == TITLE:
            found = definition.title
        elif kind == ELEMENT and uri:
            found = metadata.get(definition, uri)
        else:
            raise InvalidArg(f"unknown metadata type {kind}")
    if found is None:
        raise NoDomainMetadata("Requested metadata element is not present")
    return found


async def set_metadata(
    guest: Guest,
    kind: int,
    text: str | None,
    *,
    key: str | None = None,
    uri: str | None = None,
    affect: Affect = Affect.CURRENT,
    api: str = "remoteDispatchDomainSetMetadata",
) -> None:
    """Set, or with None remove, title, description, or the element of a namespace.

    Raises: InvalidArg (8), XmlError, OperationInvalid (55), StoreFailed.
    """

    def change(d: DomainDef) -> None:
        if kind == DESCRIPTION:
            d.description = text or None
        elif kind == TITLE:
            if text and "\n" in text:
                raise InvalidArg("Domain title can't contain newlines")
            d.title = text or None
        elif kind == ELEMENT and uri:
            metadata.put(d, uri, key, text)
        else:
            raise InvalidArg(f"unknown metadata type {kind}")

    async def work() -> None:
        running, stored = affected(guest, affect)
        if running is not None:
            trial = clone(running.definition)
            change(trial)
            check_words(trial)
            change(running.definition)
            running.definition_changed()
            guest.post_status()
        if stored is not None:
            await change_stored(guest, change)
        guest.emit(MetadataChangeEvent(guest.ref, kind, uri if kind == ELEMENT else None))

    await guest.do(Call.MODIFY, api, work)


# -- statistics of the balloon ---------------------------------------------------------------------


async def set_memory_stats_period(
    guest: Guest,
    seconds: int,
    affect: Affect = Affect.CURRENT,
    *,
    api: str = "remoteDispatchDomainSetMemoryStatsPeriod",
) -> None:
    """How often the guest's balloon driver tells its numbers; 0 never.

    Raises: OperationInvalid (55) without a balloon device; QmpError.
    """

    def change(d: DomainDef) -> None:
        balloon = d.devices.memballoon
        if balloon is None or balloon.model == "none":
            raise OperationInvalid(
                "Memory balloon model must be virtio to set the collection period"
            )
        balloon.stats_period = seconds or None

    async def work() -> None:
        running, stored = affected(guest, affect)
        if running is not None:
            change(running.definition)
            running.definition_changed()
            balloon = running.definition.devices.memballoon
            arguments = {
                "path": f"/machine/peripheral/{balloon.alias if balloon is not None else ''}",
                "property": "guest-stats-polling-interval",
                "value": seconds,
            }
            await running.qemu.execute("qom-set", arguments, timeout_s=MONITOR_S)
            guest.post_status()
        if stored is not None:
            await change_stored(guest, change)

    await guest.do(Call.MODIFY, api, work)


# -- what follows --------------------------------------------------------------------------------


async def set_lifecycle_action(
    guest: Guest, kind: str, action: str, affect: Affect = Affect.CURRENT
) -> None:
    """What follows a power-off, a reboot or a crash: `on_<kind>` becomes `action`.

    Raises: OperationInvalid (55), ConfigUnsupported (67), MonitorGone, StoreFailed.
    """

    def change(d: DomainDef) -> None:
        setattr(d, f"on_{kind}", action)

    async def work() -> None:
        running, stored = affected(guest, affect)
        for definition in (running.definition if running is not None else None, stored):
            if definition is not None:
                changed = clone(definition)
                change(changed)
                check_lifecycle(changed)
        if running is not None:
            if kind == "reboot":
                # A reset is QEMU's own doing: it must know that it ends the machine.
                arguments = {"reboot": "shutdown" if action == "destroy" else "reset"}
                await running.qemu.execute("set-action", arguments, timeout_s=MONITOR_S)
            change(running.definition)
            running.definition_changed()
            guest.post_status()
        if stored is not None:
            await change_stored(guest, change)

    await guest.do(Call.MODIFY, "remoteDispatchDomainSetLifecycleAction", work)
