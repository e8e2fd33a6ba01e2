"""A guest at a host, as the client sees it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sterna.client.console import Console
from sterna.client.driven import Driven, Watched
from sterna.client.migrate import MigrateOptions, migrate
from sterna.client.moving import OnProgress
from sterna.client.types import GuestInfo, MigrationResult
from sterna.errors import NoDomain, OperationInvalid
from sterna.guest.states import REASONS, State
from sterna.rpc.msg_common import Dom
from sterna.rpc.msg_connect import ConnectListAllDomainsArgs
from sterna.rpc.msg_domain import (
    DomainAbortJobArgs,
    DomainCreateWithFlagsArgs,
    DomainDestroyArgs,
    DomainGetAutostartArgs,
    DomainGetInfoArgs,
    DomainGetJobStatsArgs,
    DomainGetMessagesArgs,
    DomainGetStateArgs,
    DomainGetXmlDescArgs,
    DomainIsPersistentArgs,
    DomainLookupByNameArgs,
    DomainLookupByUuidArgs,
    DomainResumeArgs,
    DomainShutdownArgs,
    DomainSuspendArgs,
    DomainUndefineFlagsArgs,
)
from sterna.rpc.msg_story import GuestEvidenceArgs, GuestReconcileArgs
from sterna.together import together

if TYPE_CHECKING:
    from sterna.client.api import Host

START_PAUSED = 1
XML_SECURE, XML_INACTIVE, XML_MIGRATABLE = 1, 2, 8
UNDEFINE_MANAGED_SAVE, UNDEFINE_NVRAM, UNDEFINE_KEEP_NVRAM = 1, 4, 8
JOB_OPERATIONS = (
    "unknown", "start", "save", "restore", "migration-in", "migration-out", "snapshot", "revert",
    "dump", "backup", "snapshot-delete",
)  # fmt: skip


class Guest:
    """One guest of one host, found by name or UUID when it is first used.

    Every method raises `sterna.errors.NoDomain` if the host has no such guest, and
    `sterna.client.errors.ConnectionFailed` if the host went away.
    """

    def __init__(self, host: Host, name: str, dom: Dom | None = None) -> None:
        self.host = host
        self.name = name
        self._dom = dom

    async def dom(self) -> Dom:
        """The guest as the protocol names it."""
        if self._dom is None:
            self._dom = await self._look_up()
            self.name = self._dom.name
        return self._dom

    async def _look_up(self) -> Dom:
        try:
            uuid = UUID(self.name) if len(self.name) == 36 else None
        except ValueError:
            uuid = None
        if uuid is not None:
            try:
                found = await self.host.call(
                    "DOMAIN_LOOKUP_BY_UUID", DomainLookupByUuidArgs(uuid.bytes)
                )
            except NoDomain:
                found = None
            if found is not None:
                return found.dom  # type: ignore[no-any-return]  # replies are as their call says
        found = await self.host.call("DOMAIN_LOOKUP_BY_NAME", DomainLookupByNameArgs(self.name))
        return found.dom  # type: ignore[no-any-return]  # replies are as their call says

    async def info(self) -> GuestInfo:
        """What it is and does now."""
        dom = await self.dom()
        call = self.host.call
        # At once, so that the calls travel together: this costs one round trip, not five.
        info, state, persistent, autostart, now = await together(
            call("DOMAIN_GET_INFO", DomainGetInfoArgs(dom)),
            call("DOMAIN_GET_STATE", DomainGetStateArgs(dom, 0)),
            call("DOMAIN_IS_PERSISTENT", DomainIsPersistentArgs(dom)),
            call("DOMAIN_GET_AUTOSTART", DomainGetAutostartArgs(dom)),
            call("DOMAIN_LOOKUP_BY_UUID", DomainLookupByUuidArgs(dom.uuid)),
        )
        return GuestInfo(
            name=now.dom.name,
            uuid=UUID(bytes=dom.uuid),
            id=None if now.dom.id == -1 else now.dom.id,
            state=State(state.state),
            reason=state.reason,
            persistent=bool(persistent.persistent),
            autostart=bool(autostart.autostart),
            vcpus=info.nrVirtCpu,
            memory_kib=info.memory,
            max_memory_kib=info.maxMem,
            cpu_time_ns=info.cpuTime,
        )

    async def info_or_none(self) -> GuestInfo | None:
        """As `info`; None if it is gone meanwhile, as a guest in a list may be."""
        try:
            return await self.info()
        except NoDomain:
            return None

    async def state(self) -> State:
        """What it does now."""
        reply = await self.host.call("DOMAIN_GET_STATE", DomainGetStateArgs(await self.dom(), 0))
        return State(reply.state)

    async def state_in_words(self) -> str:
        """State and reason for people: `paused (migration)`."""
        reply = await self.host.call("DOMAIN_GET_STATE", DomainGetStateArgs(await self.dom(), 0))
        return describe_state(reply.state, reply.reason)

    async def evidence(self) -> dict[str, Any]:
        """What the host knows about where the guest runs.

        Keys: docs/reference/sterna-program.md.

        Raises: NoDomain; NoSupport if the daemon is not Sterna.
        """
        reply = await self.host.call("GUEST_EVIDENCE", GuestEvidenceArgs(self.name))
        return json.loads(reply.evidence)  # type: ignore[no-any-return]  # an object, by contract

    async def reconcile(self, action: str = "ask", *, force: bool = False) -> dict[str, Any]:
        """Settle a guest in doubt: `ask`, `take-back` or `give-up`. With `settled` and `by`.

        The last two ask first, and need `force` where nobody answers.

        Raises: NoDomain; OperationInvalid: it is not in doubt; OperationFailed: nobody answered,
            and it was not forced.
        """
        args = GuestReconcileArgs(self.name, action, int(force))
        reply = await self.host.call("GUEST_RECONCILE", args)
        return json.loads(reply.done)  # type: ignore[no-any-return]  # an object, by contract

    async def xml(self, *, inactive: bool = False, secure: bool = False) -> str:
        """Its domain XML; with `inactive` the definition that the next start will use."""
        flags = (XML_INACTIVE if inactive else 0) | (XML_SECURE if secure else 0)
        reply = await self.host.call(
            "DOMAIN_GET_XML_DESC", DomainGetXmlDescArgs(await self.dom(), flags)
        )
        return str(reply.xml)

    async def start(self, *, paused: bool = False) -> None:
        """Starts it from its definition."""
        flags = START_PAUSED if paused else 0
        reply = await self.host.call(
            "DOMAIN_CREATE_WITH_FLAGS", DomainCreateWithFlagsArgs(await self.dom(), flags)
        )
        self._dom = reply.dom

    async def shutdown(self) -> None:
        """Presses its power button."""
        await self.host.call("DOMAIN_SHUTDOWN", DomainShutdownArgs(await self.dom()))

    async def shutdown_and_wait(self, *, timeout_s: float) -> None:
        """Presses its power button and waits until it is off.

        Raises:
            TimeoutError: it still runs after `timeout_s`.
        """
        dom = await self.dom()
        async with self.host.events() as events, asyncio.timeout(timeout_s):
            await self.shutdown()
            async for event in events:
                if event.uuid.bytes == dom.uuid and event.event == "stopped":
                    return

    async def destroy(self) -> None:
        """Ends it at once."""
        await self.host.call("DOMAIN_DESTROY", DomainDestroyArgs(await self.dom()))

    async def suspend(self) -> None:
        """Stops its CPUs."""
        await self.host.call("DOMAIN_SUSPEND", DomainSuspendArgs(await self.dom()))

    async def resume(self) -> None:
        """Lets its CPUs run."""
        await self.host.call("DOMAIN_RESUME", DomainResumeArgs(await self.dom()))

    async def undefine(self, *, nvram: bool = False) -> None:
        """Forgets its definition; with `nvram` its UEFI variables too, else they are kept."""
        flags = UNDEFINE_NVRAM if nvram else UNDEFINE_KEEP_NVRAM
        await self.host.call(
            "DOMAIN_UNDEFINE_FLAGS",
            DomainUndefineFlagsArgs(await self.dom(), flags | UNDEFINE_MANAGED_SAVE),
        )

    async def messages(self) -> list[str]:
        """What a person should know of it: in doubt, frozen, tainted. One sentence each."""
        reply = await self.host.call(
            "DOMAIN_GET_MESSAGES", DomainGetMessagesArgs(await self.dom(), 0)
        )
        return list(reply.msgs)

    async def job(self, *, completed: bool = False) -> dict[str, Any] | None:
        """The job it has, or the last one that ended: its figures by the protocol's names."""
        args = DomainGetJobStatsArgs(await self.dom(), 1 if completed else 0)
        try:
            reply = await self.host.call("DOMAIN_GET_JOB_STATS", args)
        except OperationInvalid:
            return None  # It is shut off.
        if reply.type == 0:
            return None
        figures = {param.field: param.value for param in reply.params}
        figures["operation"] = JOB_OPERATIONS[int(figures.get("operation", 0))]
        return figures

    async def abort_job(self) -> None:
        """Ends the job it has; a migration out leaves it running here."""
        await self.host.call("DOMAIN_ABORT_JOB", DomainAbortJobArgs(await self.dom()))

    async def migrate(
        self, destination: Host | str, *, on_progress: OnProgress | None = None, **options: Any
    ) -> MigrationResult:
        """Moves it to `destination`; see `sterna.client.migrate.migrate` for the options.

        To a connected host this client drives it; to a URI, as the source sees it, the source.
        """
        return await migrate(self, destination, MigrateOptions(**options), on_progress)

    async def begin_migration(self, uri: str, **options: Any) -> None:
        """Has its host move it to the daemon at `uri`; returns once memory moves.

        It goes on when this client leaves; `watch_migration` tells how it ends.

        Raises:
            MigrationFailed: it could not begin.
        """
        await Driven(self, uri, MigrateOptions(**options), None).begin()

    async def watch_migration(self, on_progress: OnProgress | None = None) -> MigrationResult:
        """Watches the migration by which it leaves, whoever asked for it, until it has ended.

        Raises:
            OperationInvalid: there is none.
            MigrationFailed, MigrationInDoubt: as `migrate` does.
        """
        return await Watched(self, on_progress).run()

    def console(self, device: str | None = None, *, force: bool = False) -> Console:
        """Its serial console, as an async context manager."""
        return Console(self, device, force=force)


def describe_state(state: int, reason: int) -> str:
    """`paused (migration)`, `running (booted)`, `shut off (destroyed)`."""
    known = State(state) if state in State._value2member_map_ else State.NOSTATE
    return f"{state_label(known)} ({reason_label(known, reason)})"


STATE_LABELS = {State.NOSTATE: "no state", State.SHUTOFF: "shut off", State.SHUTDOWN: "in shutdown"}


def state_label(state: State) -> str:
    """The word for people: `running`, `shut off`, ..."""
    return STATE_LABELS.get(state, state.name.lower())


def reason_label(state: State, reason: int) -> str:
    """Why a guest is in its state, in a word."""
    reasons = REASONS.get(state)
    if reasons is None or reason not in reasons._value2member_map_:
        return "unknown"
    return reasons(reason).name.lower().replace("_", " ")


async def list_doms(host: Host, flags: int) -> list[Dom]:
    """The guests that match the protocol's filter flags."""
    reply = await host.call("CONNECT_LIST_ALL_DOMAINS", ConnectListAllDomainsArgs(1, flags))
    return list(reply.domains)
