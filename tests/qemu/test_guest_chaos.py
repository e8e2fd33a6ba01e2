"""Many hands at once on a few guests, some of them killing: nothing may hang, leak or be left.

What each hand does is drawn from a seed, which a failure shows; the timing is the machine's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest

from sterna.errors import SternaError
from sterna.guest import stats
from sterna.guest.actor import Guest
from sterna.guest.flags import StartFlags
from sterna.guest.jobs import Operation
from support.links import FakeLink
from support.real_host import RealHost, real_host

pytestmark = pytest.mark.qemu

GUESTS = 4
HANDS_EACH = 2
SECONDS = 4.0


def uuid_of(number: int) -> UUID:
    return UUID(int=0x6F2B1BB8_1111_4222_8333_444455556600 + number)


def xml(number: int) -> str:
    return (
        f"<domain type='qemu'><name>chaos{number}</name><uuid>{uuid_of(number)}</uuid>"
        "<memory unit='MiB'>16</memory><vcpu>1</vcpu>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os><devices><serial type='pty'/>"
        "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
        "<graphics type='vnc'/></devices></domain>"
    )


async def create_and_close(host: RealHost, number: int, dice: random.Random) -> None:
    """A client that starts a guest of its own and is gone at any moment of the start."""
    link = FakeLink()
    creating = asyncio.ensure_future(
        host.registry.create(xml(number), StartFlags.AUTODESTROY, link)
    )
    await asyncio.sleep(dice.random() * 0.1)
    link.close()
    await creating


async def start_and_hang_up(guest: Guest, dice: random.Random) -> None:
    """A client that stops waiting for what it asked for."""
    starting = asyncio.ensure_future(guest.start())
    await asyncio.sleep(dice.random() * 0.05)
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting


async def from_outside(guest: Guest, sig: signal.Signals) -> None:
    if guest.running is not None and guest.running.process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(guest.running.pid, sig)


async def killed(guest: Guest) -> None:
    guest.kill_now()


async def hand(host: RealHost, number: int, dice: random.Random, until: float) -> None:
    while time.monotonic() < until:
        guest = host.registry.find(uuid_of(number))
        deeds: list[Callable[[], Awaitable[object]]] = [
            lambda: host.registry.define(xml(number)),
            lambda: host.registry.create(xml(number)),
            lambda: create_and_close(host, number, dice),
            lambda: stats.all_stats(list(host.registry.all())),
        ]
        if guest is not None:
            deeds += [
                guest.start,
                guest.destroy,
                guest.suspend,
                guest.resume,
                guest.reset,
                guest.managed_save,
                guest.undefine,
                lambda g=guest: start_and_hang_up(g, dice),
                lambda g=guest: killed(g),
                lambda g=guest: from_outside(g, signal.SIGKILL),
                lambda g=guest: from_outside(g, signal.SIGTERM),
            ]
        with contextlib.suppress(SternaError):
            await dice.choice(deeds)()
        await asyncio.sleep(dice.random() * 0.05)


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_hangs_and_nothing_is_left(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """L3, L7."""
    files_before = len(os.listdir("/proc/self/fd"))
    cache = tmp_path_factory.getbasetemp() / "probe"
    async with real_host(tmp_path, cache) as host:
        until = time.monotonic() + SECONDS
        async with asyncio.timeout(30), asyncio.TaskGroup() as hands:
            for number in range(GUESTS):
                for each in range(HANDS_EACH):
                    dice = random.Random(f"{seed}/{number}/{each}")
                    hands.create_task(hand(host, number, dice, until))
        for guest in host.registry.all():
            # What a client hung up on may still be under way: its turn comes first.
            call = await guest.jobs.begin_operation(Operation.START, "the end of the test")
            guest.jobs.end(call)
            if guest.active:
                await guest.destroy()
            assert guest.job is None
            assert guest.jobs.call is None
        assert os.listdir(tmp_path / "run") == []
        assert await host.store.lives() == {}
    assert children() == ""
    assert len(os.listdir("/proc/self/fd")) == files_before
