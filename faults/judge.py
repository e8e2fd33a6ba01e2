"""Says of a case whether the law held: one guest, one history, nothing left, nobody needed."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from dataclasses import dataclass, field
from typing import Final

from faults import cases as c
from faults.flight import GUEST, Flight
from support.daemon import Daemon
from support.leaks import check_no_leaks, remove_guests

SETTLE_S: Final = 40.0
"""After the healing; most of it is libvirt's client, which must give up first in some cases."""
CLIENT_S: Final = 60.0
EVERY_S: Final = 0.02
BEFORE_COMMIT: Final = ("begin", "prepare", "copying", "perform")
AFTER_COMMIT: Final = ("finish", "finished", "confirm", "confirmed")


@dataclass(slots=True)
class Judged:
    """`outcome`: where the guest is. `problems`: which law was broken, in words; empty if none."""

    outcome: str = ""
    settled_at: float = 0.0
    problems: list[str] = field(default_factory=list)


def judge(flight: Flight) -> Judged:
    """Wait until it has settled by itself, then look at everything. All is healed by now."""
    judged = Judged()
    _settle(flight, judged)
    if judged.problems:
        return judged
    _client(flight, judged)
    if judged.outcome in ("source", "destination"):
        _history(flight, judged)
    _definitions(flight, judged)
    if flight.case.fault == c.FULL:
        # What could not be written then must not come back later.
        for host in flight.world.hosts:
            host.restart()
        _definitions(flight, judged)
    _leftovers(flight, judged)
    return judged


def _settle(flight: Flight, judged: Judged) -> None:
    deadline = time.monotonic() + SETTLE_S
    since = 0.0
    while True:
        where = _where(flight)
        now = time.monotonic()
        if where != judged.outcome:
            judged.outcome, since = where, now
        if where == "two":
            judged.problems.append("two guests run")
            return
        if where and _told_alike(flight, where):
            judged.settled_at = since
            return
        if now > deadline:
            judged.problems.append(f"not settled: {_evidence(flight)}")
            return
        time.sleep(EVERY_S)


def _where(flight: Flight) -> str:
    """Where the guest's CPUs run, from QEMUs and ticks alone; empty while that is not clear."""
    here, there = flight.source.qemus(), flight.destination.qemus()
    if here and there:
        return ""
    if not here and not there:
        return "died with its QEMU" if _may_die(flight) else ""
    before = len(flight.tap.history().ticks)
    with contextlib.suppress(TimeoutError):
        flight.tap.wait_more_ticks(2, timeout_s=0.3)
        assert len(flight.tap.history().ticks) > before
        return "source" if here else "destination"
    return ""


def _may_die(flight: Flight) -> bool:
    """Whether the fault killed the only copy of the guest there was."""
    case = flight.case
    if case.fault != c.KILL:
        return False
    if case.party == c.SOURCE_QEMU:
        # Once Finish is lost with the controller's connection, too, the other copy dies (L3).
        return case.phase in BEFORE_COMMIT or (case.phase == "performed" and case.lost)
    # The moment varies in some phases: it may have run there before it was killed.
    ran_there = len(flight.tap.history().speakers) > 1
    return case.party == c.DESTINATION_QEMU and (case.phase in AFTER_COMMIT or ran_there)


def _told_alike(flight: Flight, where: str) -> bool:
    """Whether both daemons say what is, and no job is left."""
    owner = {"source": flight.source, "destination": flight.destination}.get(where)
    for host in (flight.source, flight.destination):
        if not host.alive:
            return False
        listed = host.virsh("list", "--name")
        if listed.code or (GUEST in listed.lines) != (host is owner):
            return False
    if owner is None:
        return True
    state = owner.virsh("domstate", GUEST).out.strip()
    return state == "running" and "None" in owner.virsh("domjobinfo", GUEST).out


def _evidence(flight: Flight) -> str:
    words = []
    for side, host in (("source", flight.source), ("destination", flight.destination)):
        state = host.virsh("domstate", GUEST, "--reason")
        job = host.virsh("domjobinfo", GUEST).out.split("\n")[0]
        told = (state.out or state.err).strip()
        words.append(f"{side} has {len(host.qemus())} QEMU, says {told!r}, {job.strip()!r}")
    return "; ".join([*words, f"{len(flight.tap.history().ticks)} ticks"])


def _client(flight: Flight, judged: Judged) -> None:
    """It ended by itself, and was not told a success that is none."""
    deadline = time.monotonic() + CLIENT_S
    while (code := flight.virsh.process.poll()) is None:
        if time.monotonic() > deadline:
            judged.problems.append("the client still waits")
            return
        time.sleep(EVERY_S)
    if code == 0 and judged.outcome == "source":
        judged.problems.append("the client was told that it moved, and it did not")


def _history(flight: Flight, judged: Judged) -> None:
    try:
        history = flight.tap.wait_verified(time.monotonic_ns())
        history.check_one_history()
    except (AssertionError, TimeoutError) as exc:
        judged.problems.append(str(exc))


def _definitions(flight: Flight, judged: Judged) -> None:
    """A persistent guest is known where it is, and nowhere else."""
    known = {
        "source": GUEST in flight.source.guests("--all"),
        "destination": GUEST in flight.destination.guests("--all"),
    }
    if judged.outcome in known:
        wanted = {side: side == judged.outcome for side in known}
        if known != wanted:
            judged.problems.append(f"is at {judged.outcome}, known to {known}")
    elif sum(known.values()) > int(flight.persistent):
        judged.problems.append(f"died, known to {known}")


def _leftovers(flight: Flight, judged: Judged) -> None:
    for host in (flight.source, flight.destination):
        remove_guests(host)
    for host in (flight.source, flight.destination):
        try:
            check_no_leaks(host)
        except AssertionError as exc:
            judged.problems.append(str(exc))
    checked = subprocess.run(
        ["qemu-img", "check", "-q", flight.disk],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if checked.returncode and not _torn(flight, checked.stdout + checked.stderr):
        judged.problems.append(f"the disk: {checked.stdout}{checked.stderr}")


def _torn(flight: Flight, told: str) -> bool:
    """A QEMU that is killed may leave clusters that nobody uses: no damage."""
    return _may_die(flight) and re.search(r"leaked cluster", told) is not None


def healthy(host: Daemon) -> bool:
    """Whether the world can be used for the next case."""
    return host.alive and not host.qemus()
