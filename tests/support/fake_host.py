"""A registry of guests over fake QEMUs and a store in memory, in one scope."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sterna.config.caps import EmulatorFacts
from sterna.guest.events import (
    GuestEvent,
    LifecycleEvent,
    MonitorEvent,
)
from sterna.guest.registry import Registry
from sterna.guest.surroundings import GuestPaths, GuestSettings, Surroundings, Work
from sterna.qemu.caps import QemuCaps
from support.fake_qemu import FakeLauncher, make_guest_dirs
from support.memory_store import MemoryStore

UUID_TEXT = "11111111-2222-3333-4444-555555555555"


def domain_xml(name: str = "web", uuid: str = UUID_TEXT, more: str = "", devices: str = "") -> str:
    """A small guest's definition."""
    return (
        f"<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid>"
        "<memory unit='MiB'>64</memory><vcpu>2</vcpu>"
        f"<os><type arch='x86_64' machine='pc'>hvm</type></os>{more}"
        f"<devices><serial type='pty'/>{devices}</devices></domain>"
    )


FACTS = EmulatorFacts(
    binary="/usr/bin/qemu-system-x86_64",
    version=(7, 2, 0),
    machines={"pc": "pc-i440fx-7.2", "pc-i440fx-7.2": "pc-i440fx-7.2", "q35": "pc-q35-7.2"},
)


class FakeEmulators:
    """`sterna.guest.surroundings.Emulators` without any."""

    async def caps(self, binary: str | None = None, arch: str = "x86_64") -> QemuCaps:
        raise NotImplementedError("a fake launcher needs none")

    async def facts(self, binary: str | None = None, arch: str = "x86_64") -> EmulatorFacts:
        return FACTS


@dataclass
class FakeHost:
    """Everything a test looks at."""

    registry: Registry
    launcher: FakeLauncher
    store: MemoryStore
    surroundings: Surroundings
    events: list[GuestEvent] = field(default_factory=list)

    @property
    def lifecycle(self) -> list[str]:
        """The lifecycle events so far, as "STARTED/BOOTED"."""
        return [
            f"{e.event.name}/{e.detail.name}" for e in self.events if isinstance(e, LifecycleEvent)
        ]

    @property
    def others(self) -> list[GuestEvent]:
        """Every other event, without QEMU's raw ones."""
        return [e for e in self.events if not isinstance(e, LifecycleEvent | MonitorEvent)]


@asynccontextmanager
async def fake_host(
    root: Path, *, before: FakeHost | None = None, **settings: Any
) -> AsyncIterator[FakeHost]:
    """A host; with `before`, the same one after its daemon was started again."""
    dirs = (
        {n: root / n for n in ("run", "log", "nvram", "save")} if before else make_guest_dirs(root)
    )
    launcher = before.launcher if before else FakeLauncher()
    store = before.store if before else MemoryStore()
    async with asyncio.TaskGroup() as tasks:
        surroundings = Surroundings(
            GuestPaths(**dirs),
            GuestSettings(**settings),
            store,
            FakeEmulators(),
            launcher,
            Work(tasks),
        )
        host = FakeHost(Registry(surroundings), launcher, store, surroundings)
        surroundings.bus.subscribe(host.events.append)
        yield host
        host.registry.let_go()


async def until(condition: Any, turns: int = 200) -> None:
    """Let the loop turn until something holds; fails if it never does."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to hold")
