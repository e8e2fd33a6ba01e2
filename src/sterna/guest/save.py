"""Save, managed save and restore: a guest's memory laid into a file and taken up again."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sterna.config import DomainDef, parse_domain
from sterna.errors import OperationInvalid, SystemCallError
from sterna.guest import launch, outgoing
from sterna.guest.definitions import format_live
from sterna.guest.events import JobCompletedEvent
from sterna.guest.flags import SaveFlags, StartFlags
from sterna.guest.jobs import Job, Operation
from sterna.guest.jobstats import JobType
from sterna.guest.running import SAVED
from sterna.guest.saveimage import (
    Header,
    create_image,
    keep_image,
    look,
    open_image,
    read_header,
    write_header,
)
from sterna.guest.states import (
    Lifecycle,
    PausedReason,
    RunningReason,
    Started,
    State,
    Suspended,
)

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

log = logging.getLogger("sterna.guest.save")

LOAD_S: Final = 3600.0
"""A restore of a very large guest from a slow disk; longer means it hangs."""


async def save(
    guest: Guest,
    path: Path,
    flags: SaveFlags = SaveFlags.NONE,
    *,
    xml: str | None = None,
    api: str = "remoteDispatchDomainSaveFlags",
) -> None:
    """Lay a running guest into a file, and stop it.

    Args:
        xml: what the image shall say instead of the live definition.

    Raises:
        OperationInvalid (55): it is not running.
        OperationAborted (78): the job was aborted; the guest is as it was.
        OperationFailed (9), SystemCallError (38): so is it then.
    """

    async def work(job: Job) -> None:
        await _save(guest, job, path, flags, xml)

    guest.live_or_refuse()
    await guest.operate(Operation.SAVE, api, work)


async def managed_save(
    guest: Guest, flags: SaveFlags = SaveFlags.NONE, api: str = "remoteDispatchDomainManagedSave"
) -> None:
    """Save into the guest's own image, which its next start restores.

    Raises: as `save`; OperationInvalid (55) for a transient guest.
    """

    async def work(job: Job) -> None:
        def kept() -> None:
            # Before anybody hears that it stopped: a start that follows at once would boot the
            # guest anew, and a later one take up the memory of before.
            guest.has_managed_save = True

        await _save(guest, job, image_path(guest), flags, None, kept=kept)

    guest.live_or_refuse()
    if not guest.persistent:
        raise OperationInvalid("cannot do managed save for transient domain")
    await guest.operate(Operation.SAVE, api, work)


def image_path(guest: Guest) -> Path:
    """Where the guest's own image is, if there is one."""
    return guest.surroundings.paths.save / f"{guest.name}.save"


def managed_image(guest: Guest) -> Path | None:
    """The guest's own image."""
    return image_path(guest) if guest.has_managed_save else None


def remove_managed_image(guest: Guest) -> None:
    """Delete the guest's own image; harmless if there is none. Raises: OSError."""
    image_path(guest).unlink(missing_ok=True)
    guest.has_managed_save = False


async def _save(
    guest: Guest,
    job: Job,
    path: Path,
    flags: SaveFlags,
    xml: str | None,
    *,
    kept: Callable[[], None] = lambda: None,
) -> None:
    running = guest.live_or_refuse()
    if guest.surroundings.autokill.find(guest.uuid) is not None:
        raise OperationInvalid("domain is marked for auto destroy")
    ran = guest.state is State.RUNNING
    text = xml or format_live(running.definition, running.id)
    shall_run = bool(flags & SaveFlags.RUNNING) or (ran and not flags & SaveFlags.PAUSED)
    part = path.with_name(f".{path.name}.part")
    job.data.update(ran=ran, part=str(part))  # for `take_back`
    guest.post_status()
    if ran:
        await guest.pause_cpus(PausedReason.SAVE)
    fd = -1
    try:
        fd = create_image(part, path)
        try:
            write_header(fd, Header(guest.name, str(guest.uuid), text, shall_run))
        except OSError as exc:
            raise SystemCallError(f"Failed to write file '{path}'", errno=exc.errno or 0) from exc
        stats = await outgoing.send(guest, job, fd)
        await asyncio.to_thread(keep_image, fd, part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        if ran and guest.running is running and running.ending is None:
            await guest.resume_cpus(RunningReason.SAVE_CANCELED)
        raise
    finally:
        if fd >= 0:
            os.close(fd)
    kept()
    done = stats.finished(JobType.COMPLETED)
    guest.emit(JobCompletedEvent(guest.ref, done))
    await guest.stop_process(SAVED)
    guest.jobs.completed = done


async def take_back(guest: Guest, data: Mapping[str, Any]) -> None:
    """Let a guest go on whose daemon ended while it saved it.

    `data` is that of the job. Nobody waits for the image any more; whole or not, a later start must
    not take the guest back to this moment.

    Raises: SternaError, OSError, TimeoutError.
    """
    if "part" not in data:
        return  # it had not begun
    _remove_images(guest, Path(data["part"]))
    await outgoing.cancel(guest.live_or_refuse())
    if data["ran"] and guest.state is State.PAUSED:
        await guest.resume_cpus(RunningReason.SAVE_CANCELED)


def _remove_images(guest: Guest, part: Path) -> None:
    part.unlink(missing_ok=True)
    if guest.has_managed_save:
        remove_managed_image(guest)


# -- taking it up again -------------------------------------------------------------------------


async def start_from_image(
    guest: Guest,
    path: Path,
    flags: StartFlags,
    before_spawn: Callable[[], None],
) -> None:
    """Start a guest from its managed save image, which is used up by that.

    Raises: SternaError; the image is kept then.
    """
    definition, header = definition_of(path)
    paused = bool(flags & StartFlags.PAUSED) or not header.running
    await load_image(guest, path, definition, paused=paused, before_spawn=before_spawn)
    remove_managed_image(guest)


def definition_of(path: Path) -> tuple[DomainDef, Header]:
    """What an image's guest is. Raises: SystemCallError, OperationFailed, XmlError."""
    header = look(path)
    return parse_domain(header.xml), header


async def load_image(
    guest: Guest,
    path: Path,
    definition: DomainDef,
    *,
    paused: bool,
    before_spawn: Callable[[], None] = lambda: None,
) -> None:
    """Launch a guest and load its state from an image. The caller has the job.

    Raises: SternaError, with QEMU's words; nothing is left of the guest then.
    """
    fd = open_image(path)
    try:
        read_header(fd, path)
        plan = launch.Plan(definition, incoming=True)
        running = await launch.launch(
            guest, plan, audit_reason="restored", before_spawn=before_spawn
        )
        try:
            await outgoing.load(running, fd, timeout_s=LOAD_S)
        except BaseException as exc:
            raise await launch.gave_up(guest, running, exc) from exc
    finally:
        os.close(fd)
    running.launched = True
    launch.announce_agent(guest, running)
    guest.emit_lifecycle(Lifecycle.STARTED, Started.RESTORED)
    if paused:
        guest.set_paused(PausedReason.USER, Suspended.RESTORED)
    else:
        await guest.resume_cpus(RunningReason.RESTORED)
