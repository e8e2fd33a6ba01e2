"""A daemon's start: bring back what the store knows, and ask reality about the rest.

Starting is recovering. Every guest with a status record is looked for by pid and start time; one
that lives is asked over its monitor what it does now. Whose process is gone is shut off. An
incoming guest nobody finished is aborted on disk, then killed (L4, I14); one that was committed is
handed on, with its job, to be let run (L2).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sterna.config import parse_domain
from sterna.errors import SternaError
from sterna.guest import reattach, save, stop
from sterna.guest.actor import Guest
from sterna.guest.jobs import Operation
from sterna.guest.registry import Registry
from sterna.guest.running import FAILED, Running
from sterna.guest.states import REASONS, Reason, ShutoffReason, State
from sterna.qemu.process import ProcessId
from sterna.store.errors import StoreFailed
from sterna.store.ports import Decision

log = logging.getLogger("sterna.guest.recover")

RECORD_VERSION: Final = 1
ANSWER_S: Final = 3.0
"""How long a start waits for one QEMU: one that hangs must not keep the other guests from their
daemon. It is listed as it was, and taken up when it answers. (L6)"""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A guest found running whose long operation lost its daemon.

    `job` is from the status record: operation, phase, started_at, and the operation's own data.
    """

    guest: Guest
    job: Mapping[str, Any]


async def recover(registry: Registry) -> list[Unfinished]:
    """Fill the registry. Guests that run are managed again when this returns.

    Returns those that were in the middle of a long operation, for whoever can finish it.
    """
    store = registry.surroundings.store
    for row in await store.definitions():
        try:
            definition = parse_domain(row.xml)
            guest = registry.add(definition)
        except SternaError as exc:
            # One definition nobody can read must not keep the others from their guests.
            log.error("guest.definition_unreadable guest=%s error=%s", row.name, exc)
            continue
        guest.definition, guest.autostart = definition, row.autostart
        guest.has_managed_save = save.image_path(guest).exists()
    lives = await store.lives()
    async with asyncio.TaskGroup() as tasks:
        for uuid, record in lives.items():
            tasks.create_task(_bring_back(registry, uuid, record))
    await _sweep(registry)
    unfinished = [
        Unfinished(found, record["job"])
        for uuid, record in lives.items()
        if record.get("job")
        and (found := registry.find(uuid)) is not None
        and found.running is not None
        and found.running.ending is None
    ]
    for one in unfinished:
        if one.job["operation"] == Operation.SAVE.value:
            taking_back = registry.surroundings.work.start(_take_back(one))
            taking_back.add_done_callback(functools.partial(_report, one.guest))
    return unfinished


async def _take_back(found: Unfinished) -> None:
    guest, job = found.guest, found.job
    await guest.operate(
        Operation.SAVE, job["api"], lambda _job: save.take_back(guest, job.get("data") or {})
    )


async def _bring_back(registry: Registry, uuid: UUID, record: Mapping[str, Any]) -> None:
    undecided = False
    try:
        if record["v"] != RECORD_VERSION:
            raise ValueError(f"status record of version {record['v']}")
        # Before its process is looked for: whether it lives must not change what was decided, and
        # the guardian may have killed it without a word in the store.
        undecided = record["incoming"] and not await _is_committed(registry, uuid, record)
        await _reattach(registry, uuid, record, undecided=undecided)
    except ProcessLookupError:
        guest = registry.find(uuid)
        if guest is not None:
            guest.state = State.SHUTOFF
            guest.reason = ShutoffReason.FAILED if undecided else ShutoffReason.CRASHED
        log.warning("guest.gone_meanwhile guest=%s pid=%s", uuid, record.get("pid"))
        await registry.surroundings.store.delete_live(uuid)
    except (SternaError, KeyError, ValueError, TypeError) as exc:
        # Nothing is killed for our not understanding it; a person can look at it.
        log.error("guest.unmanaged guest=%s pid=%s error=%r", uuid, record.get("pid"), str(exc))


async def _reattach(
    registry: Registry, uuid: UUID, record: Mapping[str, Any], *, undecided: bool
) -> None:
    surroundings = registry.surroundings
    ident = ProcessId(record["pid"], record["start_time"], record["boot"])
    definition = parse_domain(record["xml"])
    running = Running(
        record["id"],
        definition,
        Path(record["run_dir"]),
        Path(record["log_path"]),
        incoming=record["incoming"],
        launched=record["launched"],
        started_at=record["started_at"],
        reboot_on_shutdown=record["reboot_on_shutdown"],
        process=surroundings.launcher.attach(ident),
    )
    guest = registry.find(uuid) or registry.add(definition)
    surroundings.last_id = max(surroundings.last_id, running.id)
    guest.running = running
    stop.watch(guest, running)
    guest.state, guest.reason = _remembered(record)
    if undecided:
        guest.kill_now(FAILED)
        return
    if running.incoming or _in_postcopy(record):
        # Before anything writes its record anew: what is in the job is needed after the next
        # crash, too.
        guest.jobs.take_up(Operation.MIGRATION_IN, record["job"])
    answered = surroundings.work.start(reattach.take_up(guest, running))
    limit_s = surroundings.settings.start_timeout_s if record.get("job") else ANSWER_S
    await asyncio.wait([answered], timeout=limit_s)
    if not answered.done():
        log.warning("guest.silent guest=%s pid=%d", guest.name, ident.pid)
        answered.add_done_callback(functools.partial(_report, guest))
        return
    answered.result()
    log.info("guest.reattached guest=%s pid=%d state=%s", guest.name, ident.pid, guest.state.name)


def _in_postcopy(record: Mapping[str, Any]) -> bool:
    """It runs here, and its memory was not all here yet when the daemon died."""
    job = record.get("job") or {}
    arriving = job.get("operation") == Operation.MIGRATION_IN.value
    return arriving and bool(job["data"].get("post"))


def _report(guest: Guest, done: asyncio.Future[None]) -> None:
    if not done.cancelled() and (exc := done.exception()) is not None:
        log.error("guest.unmanaged guest=%s error=%r", guest.name, str(exc))


async def _is_committed(registry: Registry, uuid: UUID, record: Mapping[str, Any]) -> bool:
    """What was decided about an incoming guest; to find no decision makes one (L4)."""
    migration = ((record.get("job") or {}).get("data") or {}).get("migration")
    if migration is None:
        return False
    store = registry.surroundings.store
    standing: Decision | None
    try:
        standing = await store.decide(migration, "aborted", uuid)
    except StoreFailed as exc:
        # A full disk, say. Having no decision counts as aborted anyway.
        log.error("guest.not_recorded guest=%s record=aborted error=%r", uuid, str(exc))
        standing = await store.decision(migration)
    return standing is not None and standing.verdict == "committed"


def _remembered(record: Mapping[str, Any]) -> tuple[State, Reason]:
    state = State(record["state"])
    return state, REASONS[state](record["reason"])


async def _sweep(registry: Registry) -> None:
    """Remove run directories that no record speaks of.

    If a QEMU lives there, its daemon died between the spawn and the record: its CPUs never ran,
    and nobody was told of it. It is ended by its own monitor.
    """
    surroundings = registry.surroundings
    known = {guest.running.run_dir for guest in registry if guest.running is not None}
    known |= {
        Path(record.get("run_dir", "")) for record in (await surroundings.store.lives()).values()
    }
    for path in [p for p in surroundings.paths.run.iterdir() if p.is_dir() and p not in known]:
        await surroundings.launcher.end_stray(path)
        shutil.rmtree(path, ignore_errors=True)
