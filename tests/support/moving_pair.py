"""Two hosts with fake QEMUs that migrate, and a client connected to both."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sterna.guest.actor import Guest
from sterna.guest.flags import StartFlags
from sterna.migration.answers import Begun, Finished, Host, Prepared
from sterna.migration.params import Request
from sterna.migration.service import Migrations
from sterna.rpc.enums import MigrateFlag
from support.fake_host import FakeHost, domain_xml, fake_host, until
from support.fake_peers import FakePeers
from support.fake_qemu import FakeMonitor
from support.links import FakeLink

F = MigrateFlag
LIVE = F.LIVE | F.CHANGE_PROTECTION
ASKS = re.compile(rb' asks="[^"]*"')
GUEST = UUID("11111111-2222-3333-4444-555555555555")
PARAMETERS = {
    **{"downtime-limit": 300, "max-bandwidth": 134217728, "xbzrle-cache-size": 1 << 26},
    **{"multifd-channels": 2, "multifd-compression": "none", "multifd-zstd-level": 1},
}
CAPABILITIES = [
    {"capability": name, "state": False}
    for name in (
        *("xbzrle", "auto-converge", "pause-before-switchover", "return-path", "events"),
        *("multifd", "zero-copy-send"),
    )
]
TRANSFER = {"status": "completed", "ram": {"transferred": 5, "total": 9, "remaining": 0}}


@dataclass
class Pair:
    """Two hosts, a client connected to both, and the data socket between them."""

    source: FakeHost
    destination: FakeHost
    here: Migrations
    there: Migrations
    to_source: FakeLink
    to_destination: FakeLink
    data: str
    peers: FakePeers
    asks: bool = True

    @property
    def guest(self) -> Guest:
        return self.source.registry.lookup_by_uuid(GUEST)

    @property
    def sender(self) -> FakeMonitor:
        return self.source.launcher.monitor

    @property
    def receiver(self) -> FakeMonitor:
        return self.destination.launcher.monitor

    def request(self, flags: MigrateFlag = LIVE, **more: object) -> Request:
        return Request(flags, migrate_uri=self.data, name="web", **more)  # type: ignore[arg-type]  # fields by name

    async def begin(self, flags: MigrateFlag = LIVE, **more: object) -> Begun:
        request = self.request(flags, **more)
        return await self.here.source.begin(self.guest, self.to_source, request)

    async def prepare(self, begun: Begun, flags: MigrateFlag = LIVE, **more: object) -> Prepared:
        request = self.request(flags, **more)
        return await self.there.destination.prepare(
            self.to_destination, request, begun.xml, begun.cookie
        )

    async def perform(self, prepared: Prepared, flags: MigrateFlag = LIVE, **more: object) -> bytes:
        request = self.request(flags, **more)
        cookie = prepared.cookie if self.asks else ASKS.sub(b"", prepared.cookie)
        return await self.here.source.perform(self.guest, self.to_source, request, cookie)

    async def finish(
        self, cookie: bytes, flags: MigrateFlag = LIVE, *, cancelled: bool = False
    ) -> Finished:
        request = self.request(flags)
        return await self.there.destination.finish(
            self.to_destination, request, cookie, cancelled=cancelled
        )

    async def confirm(self, cookie: bytes, *, cancelled: bool = False) -> None:
        await self.here.source.confirm(self.guest, self.to_source, cookie, cancelled=cancelled)

    async def performed(self, flags: MigrateFlag = LIVE, **more: object) -> bytes:
        """Begin, Prepare and Perform have gone well."""
        prepared = await self.prepare(await self.begin(flags, **more), flags, **more)
        return await self.perform(prepared, flags, **more)

    def completed(self) -> None:
        """The last of the guest is over."""
        self.receiver.say("MIGRATION", status="completed")
        self.sender.say("MIGRATION", status="completed")

    def copies_for_ever(self) -> None:
        self.sender.says["migrate"] = [("MIGRATION", {"status": "active"})]
        self.sender.says["migrate_cancel"] = [("MIGRATION", {"status": "cancelled"})]

    async def is_copying(self) -> None:
        await until(lambda: "migrate" in self.sender.commands)
        await until(lambda: self.guest.job is not None and self.guest.job.phase == "perform3")

    @property
    def verdicts(self) -> list[str]:
        return [decision.verdict for decision in self.destination.store._decisions.values()]


@asynccontextmanager
async def pair(
    root: Path, flags: StartFlags = StartFlags.NONE, *, asks: bool = True
) -> AsyncIterator[Pair]:
    """The guest runs at the source; QEMU migrates as soon as it is told to.

    Without `asks` the source does not learn where the destination answers questions.
    """
    (root / "a").mkdir()
    (root / "b").mkdir()
    path = root / "data"
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen()
        one = await stack.enter_async_context(fake_host(root / "a"))
        two = await stack.enter_async_context(fake_host(root / "b"))
        peers = FakePeers()
        here = Migrations(one.registry, Host("hosta", UUID(int=1)), peers)
        there = Migrations(two.registry, Host("hostb", UUID(int=2)), peers)
        peers.hosts = {UUID(int=1): here, UUID(int=2): there}
        made = Pair(one, two, here, there, FakeLink(), FakeLink(), f"unix://{path}", peers, asks)
        await one.registry.create(domain_xml(), flags)
        _teach(made)
        yield made
        for link in (made.to_source, made.to_destination):
            link.close()
        for host in (one, two):
            for guest in host.registry.all():
                if guest.active:
                    await guest.destroy()
        await here.settle(1)
        await there.settle(1)


def _teach(pair: Pair) -> None:
    """Replies and events of QEMUs that migrate."""

    sender = pair.sender
    sender.replies |= {
        "query-migrate-parameters": PARAMETERS,
        "query-migrate-capabilities": CAPABILITIES,
        "query-migrate": TRANSFER,
    }
    sender.says["migrate"] = [("MIGRATION", {"status": "active"}), ("STOP", {})]
    sender.subscribe(lambda event: pair.completed() if event.name == "STOP" else None)

    connect = pair.destination.launcher.connect

    async def taught(running: object) -> FakeMonitor:
        monitor = await connect(running)  # type: ignore[arg-type]  # passed through
        monitor.replies |= {
            "query-migrate-parameters": PARAMETERS,
            "query-migrate-capabilities": CAPABILITIES,
            "query-status": {"status": "paused", "running": False},
        }
        return monitor

    pair.destination.launcher.connect = taught  # type: ignore[method-assign]  # a fake of ours
