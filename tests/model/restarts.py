"""Daemons that die and come back: between two steps, or between two effects of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from model.qemus import STATUS, dest_qemu_runs, source_qemu_runs
from model.world import AT_SOURCE, Link, World, at_source, link_of, run_dest, run_source
from sterna.migration.core import destination, source
from sterna.migration.core import events as on
from sterna.migration.core.records import Record

Move = tuple[str, World]
EFFECTS_MAX = 6
"""No step of either core orders more."""


def deaths_within_a_step(
    w: World, by_themselves: Callable[[World], Iterator[Move]]
) -> Iterator[Move]:
    """What would happen next begins to, and the daemon it happens to dies on the way.

    The first effects of the step were carried out, or handed to who does (a store, a QEMU, a
    socket); the others never were.
    """
    for count in range(1, EFFECTS_MAX):
        for label, after in by_themselves(w._replace(dies_after=count)):
            died = after._replace(dies_after=0, dead="")
            if after.dead == "source":
                yield f"!{label}; its daemon dies after effect {count}", source_restarts(died)
            elif after.dead == "destination":
                yield f"!{label}; its daemon dies after effect {count}", dest_restarts(died)


def restarts(w: World) -> Iterator[Move]:
    """A daemon is killed and started again: what it had in memory is gone, QEMU went on.

    A record on its way to the disk arrived there, or did not. Commands on their way to QEMU were
    run, or were not; a new monitor connection is only taken when the old one is through.
    """
    if w.source.phase is not source.Phase.ENDED:
        label = "!source's daemon restarts"
        yield label, source_restarts(w)
        if w.qs.alive and not w.qs.hung and w.qs.status in ("active", "pre", "device"):
            yield f"{label}, its guardian kept the guest", source_restarts(_kept(w))
        after = w
        while after.s_cmd and after.qs.alive and not after.qs.hung:
            after = source_qemu_runs(after)
            yield f"{label}, {len(after.s_cmd)} commands unrun", source_restarts(after)
        for op, what in w.s_ops:
            if op == "store" and isinstance(what, Record):
                written = w._replace(s_store=w.s_store | {what})
                yield f"{label}, {what.value} stored", source_restarts(written)
    if w.dest is not None and w.dest.phase is not destination.Phase.ENDED:
        label = "!destination's daemon restarts"
        yield label, dest_restarts(w)
        there = w
        while there.d_cmd and there.qd.life == "up" and not there.qd.hung:
            there = dest_qemu_runs(there)
            yield f"{label}, {len(there.d_cmd)} commands unrun", dest_restarts(there)
        for op, what in w.d_ops:
            if op == "store" and isinstance(what, Record):
                written = w._replace(d_store=w.d_store or what)
                yield f"{label}, {what.value} stored", dest_restarts(written)


def _kept(w: World) -> World:
    """The guardian has cancelled the migration meanwhile; QEMU starts a guest it had stopped."""
    back = w.qs.ran and w.qs.status != "active"
    return w._replace(qs=w.qs._replace(status="cancelled", cpus=w.qs.cpus or back))


def source_restarts(w: World) -> World:
    if w.p2p:
        w = controller_exits(w, "closed")
    calls = tuple(n for n in w.calls if n not in AT_SOURCE)
    w = w._replace(
        cs=Link("closed", told=True),
        calls=calls,
        replies=() if waits_on(w, "cs") else w.replies,
        owed=w.owed - AT_SOURCE,
        s_cmd=(),
        s_out=(),
        s_ops=frozenset(),
        s_timers=frozenset(),
        s_watch=frozenset(),
        question="",
        late=w.late or w.question == "way",
    )
    order = (Record.HANDED_OVER, Record.TAKEN_BACK, Record.PERFORMING)
    state, effects = source.recovered(
        "g",
        next((record for record in order if record in w.s_store), None),
        STATUS.get(w.qs.status),
        shall_run=not w.paused,
        stopped=not w.qs.cpus,
        asks=w.asks and Record.PERFORMING in w.s_store,
        gone=not w.qs.alive,
    )
    return run_source(w._replace(source=state), effects)


def dest_restarts(w: World) -> World:
    calls = tuple(n for n in w.calls if n in AT_SOURCE)
    w = w._replace(
        cd=Link("closed", told=True),
        calls=calls,
        replies=() if waits_on(w, "cd") else w.replies,
        owed=w.owed & AT_SOURCE,
        d_cmd=(),
        d_out=(),
        d_ops=frozenset(),
        d_timers=frozenset(),
        d_watch=frozenset(),
    )
    if w.question in ("way", "there"):
        # The connection it came over ended with the daemon.
        w = at_source(w._replace(question=""), on.Untold("connection lost"))
    # Asking for the decision makes one (L4).
    w = w._replace(d_store=w.d_store or Record.ABORTED)
    over = dataclasses.replace(w.dest, phase=destination.Phase.ENDED) if w.dest else None
    if w.d_store is Record.ABORTED or w.qd.life != "up":
        life = "dead" if w.qd.life == "up" else w.qd.life
        return w._replace(dest=over, qd=w.qd._replace(life=life, cpus=False), d_cmd=())
    state, effects = destination.recovered(
        "g", persist=True, paused=w.permit == "paused", post=bool(w.qd.post)
    )
    return run_dest(w._replace(dest=state), effects)


def controller_exits(w: World, how: str) -> World:
    """Its process is gone: both connections end, and no reply is read any more."""
    cs = w.cs if w.cs.state != "open" else w.cs._replace(state=how)
    cd = w.cd if w.cd.state != "open" else w.cd._replace(state=how)
    return w._replace(c="gone", cs=cs, cd=cd, replies=())


def waits_on(w: World, field: str) -> bool:
    """Whether the controller waits for an answer on that connection, `cs` or `cd`."""
    return w.c not in ("end", "gone") and link_of(w, w.c) is getattr(w, field)
