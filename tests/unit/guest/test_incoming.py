"""A guest that arrives: nobody's until it is taken over, and gone with its connection before."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from sterna.config import parse_domain
from sterna.guest.incoming import announce_incoming, launch_incoming, take_over
from sterna.guest.jobs import Operation
from sterna.guest.running import ORPHANED
from sterna.guest.states import PausedReason, RunningReason, State
from support.fake_host import domain_xml, fake_host, until
from support.links import FakeLink


async def test_taken_over_it_outlives_its_connection(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        definition = await host.registry.complete(parse_domain(domain_xml()))
        guest, link = host.registry.admit(definition), FakeLink()
        job = await guest.jobs.begin_operation(Operation.MIGRATION_IN, "Prepare", phase="prepare")
        running = await launch_incoming(guest, definition, link, guest.kill_now, migration="m")
        assert host.launcher.incoming == [True]
        assert host.lifecycle == []
        assert host.surroundings.autokill.find(guest.uuid) is not None
        record = (await host.store.lives())[guest.uuid]
        assert record["incoming"]
        assert record["job"]["phase"] == "prepare"
        announce_incoming(guest, running)
        assert (guest.state, guest.reason) == (State.PAUSED, PausedReason.MIGRATION)
        await guest.resume_cpus(RunningReason.MIGRATED)
        take_over(guest, running)
        assert host.launcher.released == [running.migration]
        guest.jobs.end(job)
        link.close()
        assert guest.state is State.RUNNING
        assert host.lifecycle == ["STARTED/MIGRATED", "RESUMED/MIGRATED"]
        assert not (await host.store.lives())[guest.uuid]["incoming"]
        await guest.destroy()


async def test_before_that_it_dies_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with fake_host(tmp_path) as host:
        definition = await host.registry.complete(parse_domain(domain_xml()))
        guest, link = host.registry.admit(definition), FakeLink()
        await guest.jobs.begin_operation(Operation.MIGRATION_IN, "Prepare")
        ended: list[object] = []
        running = await launch_incoming(
            guest, definition, link, lambda: guest.kill_now(ORPHANED), migration="m"
        )
        running.when_stopped(ended.append)
        announce_incoming(guest, running)
        with caplog.at_level(logging.INFO, "sterna.audit"):
            link.close()
            await until(lambda: not guest.active)
        assert host.lifecycle == ["STARTED/MIGRATED", "SHUTDOWN/HOST", "STOPPED/DESTROYED"]
        assert "op=stop reason=failed" in caplog.text
        assert len(host.registry) == 0
        assert guest.job is None
        await until(lambda: ended == [ORPHANED])
