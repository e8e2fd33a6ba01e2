"""Does the harm, and says how it is healed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from faults import cases as c
from faults.flight import GUEST, Flight
from support.daemon import Daemon
from support.processes import Process, Watched
from support.proxy import Proxy
from support.relay import Relay

SHORT_S: Final = 0.3
FROZEN_S: Final = (8.0, 3.0)
"""Beyond what a silent peer is granted (5 s), and, in odd rounds, within it."""
FULL_S: Final = 2.0
ALMOST_S: Final = 0.0


class Absent(Exception):
    """Whom the fault was meant for is not there any more: nothing was injected."""


@dataclass(slots=True)
class Harm:
    """What was done: after `seconds` it shall be undone, with `heal`."""

    seconds: float = 0.0
    heal: Callable[[], None] = lambda: None


def inject(flight: Flight) -> Harm:
    """Do what the case says. Raises: Absent."""
    case = flight.case
    match case.party:
        case c.CLIENT:
            return _process(case, flight.virsh.process.pid)
        case c.USER:
            flight.source.virsh("domjobabort", GUEST)
            return Harm()
        case c.SOURCE:
            return _daemon(flight, flight.source)
        case c.DESTINATION:
            return _daemon(flight, flight.destination)
        case c.BOTH:
            for host in flight.world.hosts:
                host.kill()
            return Harm(SHORT_S, lambda: _start(flight.world.hosts))
        case c.GUARDIAN:
            return _process(case, _guardian(flight.destination).pid)
        case c.GUARDED:
            Watched(_guardian(flight.destination).pid).signal(signal.SIGKILL)
            flight.destination.kill()
            return Harm(SHORT_S, flight.destination.start)
        case c.SOURCE_QEMU:
            return _process(case, _only(flight.source.qemus()).pid)
        case c.DESTINATION_QEMU:
            return _process(case, _only(flight.destination.qemus()).pid)
    return _link(flight)


def _start(hosts: Iterable[Daemon]) -> None:
    for host in hosts:
        host.start()


def _only(found: list[Process]) -> Process:
    if len(found) != 1:
        raise Absent
    return found[0]


def _guardian(host: Daemon) -> Process:
    return _only([p for p in host.processes() if any("guardian_program" in w for w in p.argv)])


def _frozen_s(case: c.Case) -> float:
    return FROZEN_S[case.round % 2]


def _process(case: c.Case, pid: int) -> Harm:
    try:
        watched = Watched(pid)
    except ProcessLookupError:
        raise Absent from None
    with contextlib.closing(watched):
        if not watched.alive:
            raise Absent
        if case.fault == c.KILL:
            watched.signal(signal.SIGKILL)
            return Harm()
        watched.signal(signal.SIGSTOP)

    def thaw() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    return Harm(_frozen_s(case), thaw)


def _daemon(flight: Flight, host: Daemon) -> Harm:
    match flight.case.fault:
        case c.KILL:
            host.kill()
            return Harm(SHORT_S, host.start)
        case c.RESTART:
            host.stop()
            return Harm(ALMOST_S, host.start)
        case c.STOP:
            host.freeze()
            return Harm(_frozen_s(flight.case), host.thaw)
    if not flight.world.alone:
        raise Absent
    filler = host.root / "filler"
    _fill(filler)
    return Harm(FULL_S, filler.unlink)


def _fill(path: Path) -> None:
    """Until not a byte is left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        size = 1 << 20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def _link(flight: Flight) -> Harm:
    case, world = flight.case, flight.world
    wire: Proxy | Relay
    if case.party in (c.TO_SOURCE, c.TO_DESTINATION):
        to_source = case.party == c.TO_SOURCE
        wire = flight.to_source if to_source else flight.to_destination
        cable = world.place(flight.source if to_source else flight.destination).clients
    else:
        name = "data" if case.party == c.DATA else "question"
        if name not in flight.relays:
            raise Absent
        wire = flight.relays[name]
        cable = world.place(flight.destination).hosts
    match case.fault:
        case c.CLOSE:
            wire.cut()
            return Harm()
        case c.RESET:
            wire.reset()
            return Harm()
    if cable is not None:
        cable.cut()
        return Harm(_frozen_s(case), cable.heal)
    wire.silence()
    return Harm(_frozen_s(case), wire.resume)
