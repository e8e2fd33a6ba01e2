"""Starting a guest, and what is written down about it: autostart, name, undefine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sterna.config import DomainDef
from sterna.errors import OperationInvalid
from sterna.guest import launch, save
from sterna.guest.flags import StartFlags, UndefineFlags
from sterna.guest.jobs import Job, Operation
from sterna.guest.ports import ClientLink
from sterna.guest.running import DESTROYED, Running
from sterna.guest.states import (
    Lifecycle,
    PausedReason,
    RunningReason,
    Started,
    Suspended,
    Undefined,
)

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

log = logging.getLogger("sterna.guest.lifecycle")


async def start(
    guest: Guest,
    flags: StartFlags = StartFlags.NONE,
    owner: ClientLink | None = None,
    *,
    definition: DomainDef | None = None,
    api: str = "remoteDispatchDomainCreateWithFlags",
) -> None:
    """Start a guest, from its managed save image if there is one.

    Args:
        owner: the connection that the guest dies with, for the autodestroy flag.
        definition: what to start instead of the persistent definition (`create`).

    Raises:
        OperationInvalid (55): it runs already.
        SternaError: why QEMU would not, in its own words.
    """
    refuse_if_active(guest)

    def arm() -> None:
        arm_autodestroy(guest, flags, owner)

    async def work(_job: Job) -> None:
        refuse_if_active(guest)
        image = save.managed_image(guest)
        if image is not None and definition is None:
            if not flags & StartFlags.FORCE_BOOT:
                await save.start_from_image(guest, image, flags, arm)
                return
            save.remove_managed_image(guest)
        await _boot(guest, definition or guest.stored_or_refuse(), flags, arm)

    await guest.operate(Operation.START, api, work)


def refuse_if_active(guest: Guest) -> None:
    if guest.active:
        raise OperationInvalid("domain is already running")


def arm_autodestroy(guest: Guest, flags: StartFlags, owner: ClientLink | None) -> None:
    """Tie the guest's life to the connection, before there is a QEMU (I8)."""
    if flags & StartFlags.AUTODESTROY:
        if owner is None:
            raise OperationInvalid("autodestroy needs the connection it is for")
        guest.surroundings.autokill.register(guest.uuid, owner, lambda: guest.kill_now(DESTROYED))


async def _boot(
    guest: Guest,
    definition: DomainDef,
    flags: StartFlags,
    arm: Callable[[], None],
) -> None:
    reset_nvram = bool(flags & StartFlags.RESET_NVRAM)
    plan = launch.Plan(definition, reset_nvram=reset_nvram)
    running = await launch.launch(
        guest,
        plan,
        audit_reason="booted",
        before_spawn=arm,
    )
    await announce_boot(guest, running, paused=bool(flags & StartFlags.PAUSED))


async def announce_boot(guest: Guest, running: Running, *, paused: bool) -> None:
    """Tell everybody in libvirt's order (observed): resumed, then started; or started, then
    suspended."""
    running.launched = True
    launch.announce_agent(guest, running)
    if not paused:
        await guest.resume_cpus(RunningReason.BOOTED)
        guest.emit_lifecycle(Lifecycle.STARTED, Started.BOOTED)
        return
    guest.emit_lifecycle(Lifecycle.STARTED, Started.BOOTED)
    guest.set_paused(PausedReason.USER, Suspended.PAUSED)


# -- what is written down ----------------------------------------------------------------------


async def set_autostart(guest: Guest, autostart: bool) -> None:
    """Start it with the daemon, or not.

    Raises: OperationInvalid (55) for a transient guest.
    """

    async def change() -> None:
        if not guest.persistent:
            raise OperationInvalid("cannot set autostart for transient domain")
        before, guest.autostart = guest.autostart, autostart
        try:
            await guest.save_definition()
        except BaseException:
            guest.autostart = before
            raise

    await guest.surroundings.write_down(change)


async def undefine(guest: Guest, flags: UndefineFlags = UndefineFlags.NONE) -> None:
    """Forget the persistent definition; a running guest goes on as a transient one.

    Raises: OperationInvalid (55): transient, or a managed save image or NVRAM file would be left.
    """
    await guest.surroundings.write_down(lambda: _undefine(guest, flags))


async def _undefine(guest: Guest, flags: UndefineFlags) -> None:
    definition = guest.definition
    if definition is None:
        raise OperationInvalid("cannot undefine transient domain")
    if flags & UndefineFlags.NVRAM and flags & UndefineFlags.KEEP_NVRAM:
        raise OperationInvalid("cannot both keep and delete nvram")
    if save.managed_image(guest) is not None and not flags & UndefineFlags.MANAGED_SAVE:
        raise OperationInvalid("Refusing to undefine while domain managed save image exists")
    nvram = _nvram_file(definition)
    if nvram is not None and not flags & (UndefineFlags.NVRAM | UndefineFlags.KEEP_NVRAM):
        raise OperationInvalid("cannot undefine domain with nvram")
    await guest.surroundings.store.delete_definition(guest.uuid)
    save.remove_managed_image(guest)
    if nvram is not None and flags & UndefineFlags.NVRAM:
        nvram.unlink(missing_ok=True)
    guest.definition = None
    guest.autostart = False
    guest.emit_lifecycle(Lifecycle.UNDEFINED, Undefined.REMOVED)
    guest.forget_if_nothing()


def _nvram_file(definition: DomainDef) -> Path | None:
    path = definition.os.nvram.path if definition.os is not None and definition.os.nvram else None
    return Path(path) if path and Path(path).exists() else None
