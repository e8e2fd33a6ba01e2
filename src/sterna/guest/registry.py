"""All guests of a host: found by name, uuid and id; defined, created, forgotten, brought back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID

from sterna.config import DomainDef
from sterna.errors import (
    NoDomain,
    OperationFailed,
    OperationInvalid,
    SternaError,
)
from sterna.guest import lifecycle, save
from sterna.guest.actor import Guest
from sterna.guest.definitions import check_name, completed_beside, parsed, uuid_of
from sterna.guest.events import GuestRef, LifecycleEvent
from sterna.guest.flags import SaveFlags, StartFlags
from sterna.guest.jobs import Job, Operation
from sterna.guest.ports import ClientLink
from sterna.guest.states import Defined, Lifecycle, Undefined
from sterna.guest.surroundings import Surroundings

log = logging.getLogger("sterna.guest.registry")


class Registry:
    """The guests of one host. `sterna.guest.recover.recover` fills it at the daemon's start."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self._guests: dict[UUID, Guest] = {}

    # -- finding ---------------------------------------------------------------------------------

    def all(self) -> Sequence[Guest]:
        """Every guest, by name."""
        return sorted(self._guests.values(), key=lambda guest: guest.name)

    def __iter__(self) -> Iterator[Guest]:
        return iter(list(self._guests.values()))

    def __len__(self) -> int:
        return len(self._guests)

    def lookup_by_uuid(self, uuid: UUID, name: str = "") -> Guest:
        """The guest of that uuid; `name` only helps the error text.

        Raises: NoDomain (42).
        """
        guest = self._guests.get(uuid)
        if guest is None:
            hint = f" ({name})" if name else ""
            raise NoDomain(f"no domain with matching uuid '{uuid}'{hint}")
        return guest

    def lookup_by_name(self, name: str) -> Guest:
        """Raises: NoDomain (42)."""
        for guest in self._guests.values():
            if guest.name == name:
                return guest
        raise NoDomain(f"no domain with matching name '{name}'")

    def lookup_by_id(self, id: int) -> Guest:
        """The running guest with that number. Raises: NoDomain (42)."""
        if id >= 0:
            for guest in self._guests.values():
                if guest.id == id:
                    return guest
        raise NoDomain(f"no domain with matching id {id}")

    def find(self, uuid: UUID) -> Guest | None:
        return self._guests.get(uuid)

    # -- bringing in -----------------------------------------------------------------------------

    async def define(self, xml: str) -> Guest:
        """Keep a definition; a running guest uses it from its next start on.

        Raises: XmlDetail, XmlError, ConfigUnsupported; OperationFailed (9) when name and uuid
        belong to different guests; StoreFailed.
        """
        return await self.define_parsed(await self.complete(await parsed(xml)))

    async def define_parsed(self, definition: DomainDef) -> Guest:
        """The same with a completed definition."""
        return await self.surroundings.write_down(lambda: self._define(definition))

    async def _define(self, definition: DomainDef) -> Guest:
        known = self._match(definition)
        guest = known or self.add(definition)
        before, guest.definition = guest.definition, definition
        try:
            await guest.save_definition()
        except BaseException:
            guest.definition = before
            guest.forget_if_nothing()
            raise
        guest.emit_lifecycle(Lifecycle.DEFINED, Defined.UPDATED if known else Defined.ADDED)
        return guest

    async def create(
        self,
        xml: str,
        flags: StartFlags = StartFlags.NONE,
        owner: ClientLink | None = None,
        api: str = "remoteDispatchDomainCreateXML",
    ) -> Guest:
        """Start a guest from XML. It is transient unless a definition of it exists.

        Raises: as `define`; OperationInvalid (55) if it is active; why QEMU would not start.
        """
        definition = await self.complete(await parsed(xml))
        guest = self.admit(definition)
        try:
            await lifecycle.start(guest, flags, owner, definition=definition, api=api)
        except BaseException:
            guest.forget_if_nothing()
            raise
        return guest

    async def restore(
        self,
        path: Path,
        flags: SaveFlags = SaveFlags.NONE,
        *,
        xml: str | None = None,
        api: str = "remoteDispatchDomainRestoreFlags",
    ) -> Guest:
        """Take up a saved guest again.

        Args:
            xml: what to use instead of the definition in the image.

        Raises: as `create`; OperationFailed (9) if the file is no image.
        """
        # A file of any place may be named, on a disk that does not answer too.
        definition, header = await asyncio.to_thread(save.definition_of, path)
        if xml is not None:
            definition = await self.complete(await parsed(xml))
        guest = self.admit(definition)
        runs = bool(flags & SaveFlags.RUNNING) or (header.running and not flags & SaveFlags.PAUSED)

        async def work(_job: Job) -> None:
            lifecycle.refuse_if_active(guest)
            await save.load_image(guest, path, definition, paused=not runs)

        try:
            await guest.operate(Operation.START, api, work)
        except BaseException:
            guest.forget_if_nothing()
            raise
        return guest

    def admit(self, definition: DomainDef) -> Guest:
        """The guest that a new life of this definition belongs to, made if there is none.

        Raises: OperationInvalid (55) if it is active; OperationFailed (9) when name and uuid
        belong to different guests.
        """
        known = self._match(definition)
        if known is None:
            return self.add(definition)
        if known.active:
            raise OperationInvalid(f"domain '{known.name}' is already active")
        if known.jobs.job is not None:
            raise OperationInvalid(f"domain '{known.name}' is already being started")
        return known

    async def complete(self, definition: DomainDef) -> DomainDef:
        """Fill in what the host decides, and check it. Raises: XmlError, ConfigUnsupported."""
        arch = (definition.os.arch if definition.os is not None else None) or "x86_64"
        facts = await self.surroundings.emulators.facts(definition.devices.emulator, arch)
        return await completed_beside(definition, facts)

    def add(self, definition: DomainDef) -> Guest:
        """A new guest, transient until it gets a definition."""
        guest = Guest(self.surroundings, definition, self.forget)
        self._guests[guest.uuid] = guest
        return guest

    def forget(self, guest: Guest) -> None:
        """It is gone: no name, uuid or id finds it any more."""
        if self._guests.get(guest.uuid) is guest:
            del self._guests[guest.uuid]

    def _match(self, definition: DomainDef) -> Guest | None:
        """The guest with this name and uuid; both must be the same guest's, or free."""
        uuid = uuid_of(definition)
        known = self._guests.get(uuid)
        if known is not None:
            if known.name != definition.name:
                raise OperationFailed(
                    f"domain '{known.name}' is already defined with uuid {known.uuid}"
                )
            return known
        for other in self._guests.values():
            if other.name == definition.name:
                raise OperationFailed(
                    f"domain '{other.name}' already exists with uuid {other.uuid}"
                )
        return None

    # -- names -----------------------------------------------------------------------------------

    async def rename(self, guest: Guest, name: str) -> None:
        """Give a shut-off persistent guest another name.

        Raises: OperationInvalid (55), XmlError (27), OperationFailed (9).
        """
        await self.surroundings.write_down(lambda: self._rename(guest, name))

    async def _rename(self, guest: Guest, name: str) -> None:
        self._check_rename(guest, name)
        before, old_name = guest.definition, guest.name
        definition = guest.stored_or_refuse()
        old_image = save.managed_image(guest)
        guest.name = definition.name = name
        try:
            await guest.save_definition()
        except BaseException:
            guest.name = definition.name = old_name
            guest.definition = before
            raise
        if old_image is not None:
            old_image.rename(save.image_path(guest))
        gone = GuestRef(old_name, guest.uuid, -1)
        guest.emit(LifecycleEvent(gone, Lifecycle.UNDEFINED, Undefined.RENAMED))
        guest.emit_lifecycle(Lifecycle.DEFINED, Defined.RENAMED)

    def _check_rename(self, guest: Guest, name: str) -> None:
        if guest.active or guest.job is not None:
            raise OperationInvalid("cannot rename active domain")
        if not guest.persistent:
            raise OperationInvalid("cannot rename a transient domain")
        if name == guest.name:
            raise OperationInvalid("Can't rename domain to itself")
        check_name(name)
        for other in self._guests.values():
            if other.name == name:
                raise OperationInvalid(f"domain with name '{name}' already exists")

    # -- the daemon's start ------------------------------------------------------------------------

    async def autostart(self) -> None:
        """Start every guest marked for it that does not run; one that fails is logged."""
        for guest in self.all():
            if guest.autostart and not guest.active:
                try:
                    await lifecycle.start(guest, api="autostart")
                except SternaError as exc:
                    log.error("guest.autostart_failed guest=%s error=%s", guest.name, exc)

    def let_go(self) -> None:
        """The daemon ends: close what it holds of running guests, which go on without it.

        Autodestroy and incoming guests end with their connections, so those are closed before.
        """
        for guest in self:
            if guest.running is not None:
                guest.running.let_go()
