"""Finding, defining, renaming and forgetting guests; texts are those of libvirt 9.0, observed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from sterna.errors import (
    NoDomain,
    OperationFailed,
    OperationInvalid,
    XmlError,
)
from sterna.guest.flags import StartFlags, UndefineFlags
from sterna.guest.jobs import Operation
from sterna.store.errors import StoreFailed
from support.fake_host import UUID_TEXT, FakeHost, domain_xml, fake_host, until
from support.links import FakeLink

OTHER = "99999999-2222-3333-4444-555555555555"


async def test_lookups_and_their_errors(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        registry = host.registry
        guest = await registry.create(domain_xml())
        assert registry.lookup_by_name("web") is guest
        assert registry.lookup_by_uuid(UUID(UUID_TEXT)) is guest
        assert registry.lookup_by_id(1) is guest
        with pytest.raises(NoDomain, match="no domain with matching name 'x'"):
            registry.lookup_by_name("x")
        with pytest.raises(NoDomain, match="no domain with matching id -1"):
            registry.lookup_by_id(-1)
        with pytest.raises(NoDomain, match=rf"no domain with matching uuid '{OTHER}' \(g1\)"):
            registry.lookup_by_uuid(UUID(OTHER), "g1")
        await guest.destroy()


async def test_define_adds_then_updates(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        assert await host.registry.define(domain_xml(more="<title>t</title>")) is guest
        assert host.lifecycle == ["DEFINED/ADDED", "DEFINED/UPDATED"]
        assert guest.definition is not None
        assert guest.definition.title == "t"
        assert "<title>t</title>" in (await host.store.definitions())[0].xml


async def test_names_and_uuids_belong_to_one_guest(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        await host.registry.define(domain_xml())
        with pytest.raises(
            OperationFailed, match=f"domain 'web' is already defined with uuid {UUID_TEXT}"
        ):
            await host.registry.define(domain_xml(name="other"))
        with pytest.raises(OperationFailed, match="domain 'web' already exists with uuid"):
            await host.registry.create(domain_xml(uuid=OTHER))


async def test_a_definition_that_is_not_on_disk_is_not_there(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        host.store.fail_next = 1
        with pytest.raises(StoreFailed):
            await host.registry.define(domain_xml())
        assert len(host.registry) == 0
        guest = await host.registry.define(domain_xml())
        host.store.fail_next = 1
        with pytest.raises(StoreFailed):
            await host.registry.define(domain_xml(more="<title>t</title>"))
        assert guest.definition is not None
        assert guest.definition.title is None


async def test_create_over_a_definition_keeps_it(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        assert await host.registry.create(domain_xml(more="<title>once</title>")) is guest
        assert guest.current.title == "once"
        await guest.destroy()
        assert guest.current.title is None
        assert len(host.registry) == 1


async def test_undefine_makes_a_running_guest_transient(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        await guest.start()
        await guest.undefine()
        assert not guest.persistent
        assert await host.store.definitions() == []
        with pytest.raises(OperationInvalid, match="cannot undefine transient domain"):
            await guest.undefine()
        with pytest.raises(OperationInvalid, match="cannot set autostart for transient domain"):
            await guest.set_autostart(True)
        await host.registry.define(domain_xml())
        assert guest.persistent
        assert host.lifecycle[-2:] == ["UNDEFINED/REMOVED", "DEFINED/UPDATED"]
        await guest.destroy()
        await guest.undefine()
        assert len(host.registry) == 0


async def test_undefine_leaves_no_image_behind_unasked(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        image = tmp_path / "save" / "web.save"
        image.touch()
        guest.has_managed_save = True
        with pytest.raises(
            OperationInvalid, match="Refusing to undefine while domain managed save image exists"
        ):
            await guest.undefine()
        await guest.undefine(UndefineFlags.MANAGED_SAVE)
        assert not image.exists()


async def test_rename(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        registry = host.registry
        guest = await registry.define(domain_xml())
        await registry.define(domain_xml(name="other", uuid=OTHER))
        with pytest.raises(OperationInvalid, match="Can't rename domain to itself"):
            await registry.rename(guest, "web")
        with pytest.raises(OperationInvalid, match="domain with name 'other' already exists"):
            await registry.rename(guest, "other")
        with pytest.raises(XmlError, match="name a/b cannot contain '/'"):
            await registry.rename(guest, "a/b")
        host.events.clear()
        await registry.rename(guest, "new")
        assert registry.lookup_by_name("new") is guest
        assert host.lifecycle == ["UNDEFINED/RENAMED", "DEFINED/RENAMED"]
        assert [e.guest.name for e in host.events] == ["web", "new"]
        assert [d.name for d in await host.store.definitions()] == ["new", "other"]
        await guest.start()
        with pytest.raises(OperationInvalid, match="cannot rename active domain"):
            await registry.rename(guest, "x")
        await guest.destroy()


async def test_autostart_starts_what_is_marked(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        await host.registry.define(domain_xml(name="other", uuid=OTHER))
        await guest.set_autostart(True)
        assert (await host.store.definitions())[1].autostart
        await host.registry.autostart()
        assert [g.name for g in host.registry if g.active] == ["web"]
        await guest.destroy()


async def test_a_guest_of_another_connection_is_not_taken_over(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml(), StartFlags.AUTODESTROY, FakeLink())
        with pytest.raises(OperationInvalid, match="already active"):
            await host.registry.create(domain_xml(), StartFlags.AUTODESTROY, FakeLink())
        await guest.destroy()


class SlowStore:
    """Holds up the writing of definitions in a fake host's store until told otherwise."""

    def __init__(self, host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        for name in ("put_definition", "delete_definition"):
            monkeypatch.setattr(host.store, name, self._held_up(getattr(host.store, name)))

    def _held_up(self, write: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        async def later(what: Any) -> None:
            self.reached.set()
            await self.go_on.wait()
            await write(what)

        return later

    async def cut_off(self, work: Coroutine[Any, Any, object]) -> None:
        """Its client hangs up while the disk is at it."""
        task = asyncio.create_task(work)
        await self.reached.wait()
        task.cancel()
        await asyncio.wait([task])
        self.go_on.set()


async def test_a_client_that_hangs_up_leaves_no_difference_between_memory_and_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_host(tmp_path) as host:
        registry, store = host.registry, host.store
        await SlowStore(host, monkeypatch).cut_off(registry.define(domain_xml()))
        await until(lambda: host.lifecycle == ["DEFINED/ADDED"])
        guest = registry.lookup_by_name("web")
        await SlowStore(host, monkeypatch).cut_off(guest.set_autostart(True))
        await host.surroundings.write_down(store.definitions)
        assert [d.autostart for d in await store.definitions()] == [True]
        await SlowStore(host, monkeypatch).cut_off(registry.rename(guest, "new"))
        await until(lambda: host.lifecycle[-1] == "DEFINED/RENAMED")
        assert [d.name for d in await store.definitions()] == [guest.name] == ["new"]
        await SlowStore(host, monkeypatch).cut_off(guest.undefine())
        await until(lambda: host.lifecycle[-1] == "UNDEFINED/REMOVED")
        assert not registry.all()
        assert not await store.definitions()


async def test_defined_while_it_is_being_undefined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        slow = SlowStore(host, monkeypatch)
        gone = asyncio.create_task(guest.undefine())
        await slow.reached.wait()
        again = asyncio.create_task(host.registry.define(domain_xml()))
        slow.go_on.set()
        await gone
        assert host.registry.lookup_by_name("web") is await again
        assert [d.name for d in await host.store.definitions()] == ["web"]


async def test_undefined_while_it_is_being_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.define(domain_xml())
        slow = SlowStore(host, monkeypatch)
        gone = asyncio.create_task(guest.undefine())
        await slow.reached.wait()
        slow.go_on.set()
        # The job is taken, its work has not begun.
        job = await guest.jobs.begin_operation(Operation.START, "test")
        await gone
        assert host.registry.all() == [guest]
        guest.jobs.end(job)
        with pytest.raises(OperationInvalid, match="transient domains do not have any"):
            await guest.start()
        assert not host.registry.all()
