"""A registry of guests over real QEMUs and a real store, in one scope, without a daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sterna.guest.events import GuestEvent, LifecycleEvent
from sterna.guest.launcher import QemuEmulators, QemuLauncher
from sterna.guest.registry import Registry
from sterna.guest.running import DESTROYED
from sterna.guest.surroundings import GuestPaths, GuestSettings, Surroundings, Work
from sterna.qemu.guardian import Guardian
from sterna.store.db import SqliteStore
from support.fake_qemu import make_guest_dirs


@dataclass
class RealHost:
    """Everything a test looks at."""

    registry: Registry
    surroundings: Surroundings
    store: SqliteStore
    events: list[GuestEvent] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def heard(self, event: GuestEvent) -> None:
        """Keep an event, and wake who waits for one."""
        self.events.append(event)
        self.news.set()

    async def wait_for(self, condition: Callable[[], bool], within_s: float = 10.0) -> None:
        """Wait, event by event, until something holds; TimeoutError if it never does."""
        async with asyncio.timeout(within_s):
            while not condition():
                self.news.clear()
                await self.news.wait()

    @property
    def lifecycle(self) -> list[str]:
        """The lifecycle events so far, as "STARTED/BOOTED"."""
        return [
            f"{e.event.name}/{e.detail.name}" for e in self.events if isinstance(e, LifecycleEvent)
        ]


@asynccontextmanager
async def real_host(
    root: Path, cache: Path, *, keep: bool = False, **settings: Any
) -> AsyncIterator[RealHost]:
    """A host. At the end its guests are killed, or with `keep` left running for the next one."""
    dirs = {name: root / name for name in ("run", "log", "nvram", "save")}
    if not dirs["run"].exists():
        make_guest_dirs(root)
    store = await SqliteStore.open(root / "sterna.db")
    try:
        async with asyncio.TaskGroup() as tasks:
            emulators = QemuEmulators(cache)
            guest_settings = GuestSettings(**settings)
            launcher = QemuLauncher(emulators, guest_settings, Guardian(root / "sterna.db"))
            surroundings = Surroundings(
                GuestPaths(**dirs), guest_settings, store, emulators, launcher, Work(tasks)
            )
            host = RealHost(Registry(surroundings), surroundings, store)
            surroundings.bus.subscribe(host.heard)
            try:
                yield host
            finally:
                if not keep:
                    for guest in host.registry.all():
                        await guest.stop_process(DESTROYED, grace_s=0)
                host.registry.let_go()
    finally:
        await store.close()
