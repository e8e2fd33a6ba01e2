"""Three hosts, one guest, there and back on random ways with faults: never started twice. (L1)

The production `Owners` over stores that may fail and daemons that may die at any write; moving,
starting, stopping and claiming as they come.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable
from uuid import UUID

import pytest

from sterna.errors import OperationInvalid
from sterna.migration.ownership import Owners
from sterna.migration.peers import Claim, Claimed, Decided, NoAnswer, Question
from sterna.store.errors import StoreFailed
from support.memory_store import MemoryStore

GUEST = UUID(int=42)
WAYS = 400
STEPS = 40


class Died(Exception):
    """The daemon was killed, right after a write or the answer to a claim."""


class Hosts:
    """Their stores outlive them. `runs` is where the guest really is; None: it is shut off."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.stores = [MemoryStore() for _ in range(3)]
        self.owners = [Owners(store, self, f"host{i}") for i, store in enumerate(self.stores)]
        self.runs: int | None = None
        self.doubt: tuple[int, Question, bool] | None = None
        self.moves = 0
        self.asking = 0
        self.trace: list[str] = []

    # -- what a host asks of others: `sterna.migration.peers.Peers` ------------------------------

    async def ask(self, question: Question) -> Decided:
        raise NotImplementedError

    async def own_place(self) -> str | None:
        return "tcp://here:1"

    async def claim(self, claim: Claim) -> Claimed:
        holder = claim.host.int
        if self.chance.random() < 0.15:
            raise NoAnswer("the network")
        mine = Claim(claim.migration, GUEST, claim.epoch, UUID(int=self.asking), claim.places)
        used = "it runs here" if self.runs == holder else ""
        said = await self.owners[holder].release(mine, f"host{self.asking}", used=used)
        if self.chance.random() < 0.15:
            raise Died
        return said

    # -- what happens ----------------------------------------------------------------------------

    async def step(self) -> None:
        happens = [self.start, self.start, self.stop, self.move, self.move, self.restart]
        if self.doubt is not None:
            happens.append(self.hear)
        for store in self.stores:
            store.fail_next = int(self.chance.random() < 0.05)
        await self.chance.choice(happens)()

    async def start(self) -> None:
        self.asking = self.chance.choice(self.once_had_it())
        try:
            await self.owners[self.asking].claim(GUEST, "web")
        except (OperationInvalid, StoreFailed) as refused:
            self.trace.append(f"host{self.asking} does not start it: {refused}")
            return
        except Died:
            await self.reload(self.asking)
            return
        self.trace.append(f"host{self.asking} starts it")
        if self.runs not in (None, self.asking):
            raise AssertionError("\n".join(["two copies", *self.trace]))
        if self.runs is None and self.strays(self.asking):
            raise AssertionError("\n".join(["an older copy", *self.trace]))
        self.runs = self.asking

    def once_had_it(self) -> list[int]:
        """Who could have a copy left: the first one, and wherever it ever moved."""
        return [host for host in range(3) if host == 0 or self.stores[host]._ownerships]

    def strays(self, host: int) -> bool:
        """Whether another host has seen a newer one than this host starts."""
        epochs = [owners.epoch(GUEST) for owners in self.owners]
        return epochs[host] < max(epochs)

    async def stop(self) -> None:
        if self.doubt is None:
            self.trace.append("it is shut off")
            self.runs = None

    async def move(self) -> None:
        """To another host; the source's daemon may die before it has heard how it ended."""
        if self.runs is None or self.doubt is not None:
            return
        here, self.moves = self.runs, self.moves + 1
        there = self.chance.choice([host for host in range(3) if host != here])
        id = str(UUID(int=self.moves))
        asked = Question(id, GUEST, UUID(int=there), (f"tcp://host{there}:1",))
        if await self.fails(self.owners[here].leaving(asked, f"host{there}", {})):
            return
        owner = self.owners[there].arriving(GUEST, id, self.owners[here].epoch(GUEST))
        committed = self.chance.random() < 0.7
        if committed:
            committed = not await self.fails(
                self.stores[there].decide(id, "committed", GUEST, owner)
            )
        if committed:
            self.owners[there].arrived(owner)
            self.runs = there
        self.trace.append(f"host{here} sends it to host{there}: committed {committed}")
        self.doubt = here, asked, committed
        if self.chance.random() < 0.3:
            await self.reload(here)
        if self.chance.random() < 0.7:
            await self.hear()

    async def hear(self) -> None:
        """The source is told."""
        assert self.doubt is not None
        here, asked, committed = self.doubt
        owners = self.owners[here]
        told = (
            owners.given(GUEST, asked.migration, 0)
            if committed
            else owners.stayed(GUEST, asked.migration)
        )
        if not await self.fails(told):
            self.trace.append(f"host{here} has heard")
            self.doubt = None

    async def restart(self) -> None:
        await self.reload(self.chance.randrange(3))

    async def reload(self, host: int) -> None:
        self.trace.append(f"the daemon of host{host} starts again")
        self.owners[host] = Owners(self.stores[host], self, f"host{host}")
        await self.owners[host].load()

    async def fails(self, write: Awaitable[object]) -> bool:
        try:
            await write
        except StoreFailed:
            return True
        return False

    async def settle(self) -> None:
        """Faults stop: somebody can start it."""
        for store in self.stores:
            store.fail_next = 0
        if self.doubt is not None:
            await self.hear()
        self.chance = random.Random(0)
        self.chance.random = lambda: 1.0  # type: ignore[method-assign]  # no more faults
        self.runs = None
        for host in self.once_had_it():
            self.asking = host
            try:
                await self.owners[host].claim(GUEST, "web")
            except OperationInvalid:
                continue
            return
        raise AssertionError("\n".join(["nobody can start it", *self.trace]))


@pytest.mark.parametrize("part", range(4))
async def test_no_older_copy_is_started_on_any_way(part: int) -> None:
    for seed in range(part, WAYS, 4):
        hosts = Hosts(seed)
        hosts.runs = 0
        for _ in range(STEPS):
            await hosts.step()
        await hosts.settle()
