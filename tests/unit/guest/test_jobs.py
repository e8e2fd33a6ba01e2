"""Who may change a guest beside whom, how long the others wait, and that locks end (L7)."""

from __future__ import annotations

import asyncio

import pytest

from sterna.errors import OperationInvalid, OperationTimeout
from sterna.guest.jobs import Call, Jobs, Operation
from sterna.guest.jobstats import JobOperation, JobStats, JobType
from support.links import FakeLink

SOON = 0.02


async def test_calls_take_turns_in_order() -> None:
    jobs = Jobs()
    first = await jobs.begin(Call.MODIFY, "a")
    order: list[str] = []

    async def turn(name: str) -> None:
        job = await jobs.begin(Call.MODIFY, name)
        order.append(name)
        jobs.end(job)

    async with asyncio.TaskGroup() as tasks:
        for name in "bcd":
            tasks.create_task(turn(name))
        await asyncio.sleep(0)
        assert order == []
        jobs.end(first)
    assert order == ["b", "c", "d"]
    assert jobs.call is None


async def test_one_who_waits_too_long_is_told_who_holds_the_guest() -> None:
    """wire-protocol 9.2: code 68, with the holder's name."""
    jobs = Jobs()
    await jobs.begin(Call.MODIFY, "remoteDispatchDomainSetMemoryFlags")
    with pytest.raises(OperationTimeout) as caught:
        await jobs.begin(Call.MODIFY, "b", wait_s=SOON)
    assert caught.value.message == (
        "Timed out during operation: cannot acquire state change lock"
        " (held by monitor=remoteDispatchDomainSetMemoryFlags)"
    )


@pytest.mark.parametrize(
    ("operation", "allowed"),
    [
        (
            Operation.MIGRATION_OUT,
            {Call.QUERY, Call.DESTROY, Call.ABORT, Call.SUSPEND, Call.MIGRATION_OP},
        ),
        (Operation.MIGRATION_IN, {Call.DESTROY}),
        (Operation.SAVE, {Call.QUERY, Call.DESTROY, Call.ABORT}),
        (Operation.DUMP, {Call.QUERY, Call.DESTROY, Call.ABORT}),
        (Operation.START, {Call.DESTROY}),
    ],
)
async def test_what_runs_beside_an_operation(operation: Operation, allowed: set[Call]) -> None:
    jobs = Jobs()
    await jobs.begin_operation(operation, "x")
    for kind in Call:
        if kind in allowed:
            jobs.end(await jobs.begin(kind, "c", wait_s=SOON))
        else:
            with pytest.raises(OperationTimeout, match="monitor=x"):
                await jobs.begin(kind, "c", wait_s=SOON)


async def test_a_call_kept_out_does_not_keep_out_those_allowed() -> None:
    jobs = Jobs()
    await jobs.begin_operation(Operation.MIGRATION_OUT, "x")
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(jobs.begin(Call.MODIFY, "setmem"))
        await asyncio.sleep(0)
        suspend = await jobs.begin(Call.SUSPEND, "suspend", wait_s=SOON)
        jobs.end(suspend)
        assert not waiting.done()
        jobs.drop()
    assert jobs.call is waiting.result()


async def test_a_destroy_runs_beside_a_hanging_call() -> None:
    jobs = Jobs()
    await jobs.begin(Call.MODIFY, "hangs")
    await jobs.begin(Call.DESTROY, "d", wait_s=SOON)


async def test_a_waiter_that_gives_up_leaves_nothing_behind() -> None:
    jobs = Jobs()
    first = await jobs.begin(Call.MODIFY, "a")
    with pytest.raises(OperationTimeout):
        await jobs.begin(Call.MODIFY, "b", wait_s=SOON)
    jobs.end(first)
    jobs.end(await jobs.begin(Call.MODIFY, "c", wait_s=SOON))


async def test_a_turn_that_comes_with_the_cancel_goes_on_to_the_next() -> None:
    jobs = Jobs()
    first = await jobs.begin(Call.MODIFY, "a")
    async with asyncio.TaskGroup() as tasks:
        loser = tasks.create_task(jobs.begin(Call.MODIFY, "b"))
        await asyncio.sleep(0)
        jobs.end(first)  # b has its turn now…
        loser.cancel()  # …and will never know
    jobs.end(await jobs.begin(Call.MODIFY, "c", wait_s=SOON))


async def test_a_stopped_guest_is_held_by_nobody() -> None:
    jobs = Jobs()
    job = await jobs.begin_operation(Operation.MIGRATION_IN, "x")
    link = FakeLink()
    job.hold(link, lambda: None)
    jobs.drop()
    assert jobs.job is None
    assert not link.callbacks
    later = await jobs.begin(Call.MODIFY, "y", wait_s=SOON)
    jobs.end(job)  # the old holder's end takes nothing from the new one
    assert jobs.call is later


async def test_an_operation_ends_with_its_owner() -> None:
    """L7."""
    jobs, link = Jobs(), FakeLink()
    job = await jobs.begin_operation(Operation.MIGRATION_OUT, "x", phase="begin3")
    job.hold(link, lambda: jobs.end(job))
    link.close()
    assert jobs.job is None
    gone = await jobs.begin_operation(Operation.MIGRATION_OUT, "x")
    gone.hold(link, lambda: jobs.end(gone))
    assert jobs.job is None


async def test_release_unties() -> None:
    jobs, link = Jobs(), FakeLink()
    job = await jobs.begin_operation(Operation.MIGRATION_OUT, "x")
    job.hold(link, lambda: jobs.end(job))
    job.release()
    link.close()
    assert jobs.job is job


async def test_abort_asks_the_operation_or_says_why_not() -> None:
    jobs, asked = Jobs(), []
    with pytest.raises(OperationInvalid, match="no job is active on the domain"):
        jobs.abort()
    job = await jobs.begin_operation(Operation.SAVE, "x")
    with pytest.raises(OperationInvalid, match="cannot abort save; use destroy instead"):
        jobs.abort()
    job.cancel = lambda: asked.append(1)
    jobs.abort()
    assert asked == [1]
    assert job.cancelled


async def test_changes_are_told() -> None:
    changes: list[str] = []
    jobs = Jobs(lambda: changes.append(jobs.job.operation.value if jobs.job else "-"))
    job = await jobs.begin_operation(Operation.SAVE, "x")
    jobs.end(job)
    assert changes == ["save", "-"]


async def test_completed_statistics_are_read_once_unless_kept() -> None:
    jobs = Jobs()
    job = await jobs.begin_operation(Operation.SAVE, "x")
    stats = JobStats(JobType.COMPLETED, JobOperation.SAVE, time_elapsed=5)
    jobs.complete(job, stats)
    assert jobs.take_completed(keep=True) is stats
    assert jobs.take_completed(keep=False) is stats
    assert jobs.take_completed(keep=False) is None


def test_statistics_of_a_migration_in_the_wire_s_order() -> None:
    reply = {
        "status": "active",
        "expected-downtime": 300,
        "setup-time": 2,
        "ram": {"total": 100, "transferred": 60, "remaining": 40, "mbps": 8.0, "normal": 3},
    }
    stats = JobStats.of_migration(JobOperation.MIGRATION_OUT, reply, time_elapsed=9)
    params = list(stats.params())
    assert params[:4] == [
        ("operation", 5),
        ("time_elapsed", 9),
        ("downtime", 300),
        ("setup_time", 2),
    ]
    assert dict(params)["memory_bps"] == 1_000_000
    assert dict(params)["data_remaining"] == 40
    assert "auto_converge_throttle" not in dict(params)
    assert stats.finished(JobType.COMPLETED, downtime=7).downtime == 7
