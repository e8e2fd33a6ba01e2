"""Two hosts, a controller and what lies between them, around the production cores.

The daemons are `sterna.migration.core` itself; everything else is the smallest thing that behaves
like the real one where a law could notice: QEMU with its statuses, its habit of starting a guest
again by itself and its one ordered stream of replies and events; connections that are cut, fall
silent, and hold a call in a buffer while their client has gone; a store that may fail; a client
that drives the phases by libvirt's rules, and a stranger who calls what he likes.

Effects of one step run at once here, unless the daemon is to die between two of them.
"""

from __future__ import annotations

from typing import NamedTuple

from sterna.migration.core import destination, source
from sterna.migration.core import effects as do
from sterna.migration.core import events as on
from sterna.migration.core.records import Record
from sterna.migration.core.words import Proof, QmpOp

CS, CD, X = 1, 2, 3
"""Connections: controller to source, controller to destination, the stranger to both."""

NAMES = (
    "prepare",
    "perform",
    "finish0",
    "finish1",
    "confirm0",
    "confirm1",
    "abort",
    "x-perform",
    "x-finish0",
    "x-finish1",
    "x-confirm0",
    "x-confirm1",
    "ask",
)
AT_SOURCE = frozenset(NAMES) - {"prepare", "finish0", "finish1", "x-finish0", "x-finish1", "ask"}


class Link(NamedTuple):
    """A connection. `told`: the daemon at its end has run its close callbacks."""

    state: str = "open"  # open, silent (nothing arrives, nobody notices yet), closed
    told: bool = False


class SourceQemu(NamedTuple):
    alive: bool = True
    cpus: bool = True
    status: str = "none"  # none, active, pre, device, post, lost, done, failed, cancelled
    ran: bool = False
    """It ran when the migration stopped it, so QEMU starts it again if that fails."""
    hung: bool = False


class DestQemu(NamedTuple):
    life: str = "none"  # none, up, dead
    incoming: bool = False
    loaded: bool = False
    cpus: bool = False
    post: str = ""  # active, lost: it could run, and pages are missing
    hung: bool = False
    locked: bool = False
    """An image is held by somebody else."""


class Bounds(NamedTuple):
    """How much may go wrong, and what."""

    faults: int = 1
    wild: int = 0
    aborts: int = 0
    pauses: int = 0
    kinds: frozenset[str] = frozenset()
    """Kinds of fault: cut, silence, crash, hang, data, store, lock, timer, launch, die."""


class World(NamedTuple):
    source: source.Source
    dest: destination.Destination | None
    left: Bounds
    qs: SourceQemu = SourceQemu()
    qd: DestQemu = DestQemu()
    s_cmd: tuple[tuple[QmpOp, bool], ...] = ()
    """QMP commands sent and not run yet, and whether the reply is still awaited."""
    d_cmd: tuple[tuple[QmpOp, bool], ...] = ()
    s_out: tuple[on.SourceEvent, ...] = ()
    """What QEMU said, in order, and the daemon has not read yet."""
    d_out: tuple[on.DestinationEvent, ...] = ()
    s_ops: frozenset[tuple[str, object]] = frozenset()
    d_ops: frozenset[tuple[str, object]] = frozenset()
    s_timers: frozenset[object] = frozenset()
    d_timers: frozenset[object] = frozenset()
    s_watch: frozenset[int] = frozenset()
    d_watch: frozenset[int] = frozenset()
    s_store: frozenset[Record] = frozenset()
    d_store: Record | None = None
    cs: Link = Link()
    cd: Link = Link()
    c: str = "prepare"
    """What the controller waits for; "end" when it is through, "gone" when it has exited."""
    calls: tuple[str, ...] = ("prepare",)
    """Calls on the way to a daemon."""
    replies: tuple[tuple[str, bool], ...] = ()
    owed: frozenset[str] = frozenset()
    """Calls a daemon has taken and not answered."""
    permit: str = ""
    """What cookie₃ said: "run" or "paused"; empty before there was one."""
    paused: bool = False
    """A user paused the guest."""
    question: str = ""
    """The source's question: on its "way", "there", or the decision on its way back."""
    late: bool = False
    """A question that the source has given up is still on its way."""
    asks: bool = True
    """The destination is Sterna."""
    p2p: bool = False
    """The source drives: its two connections are one, and the controller dies with its daemon."""
    tunnel: bool = False
    """The data goes through the controller's connection, one way: the source's QEMU is through as
    soon as it has sent everything."""
    waits: bool = False
    """The source's QEMU stops before the switchover until it is told to go on."""
    disks: bool = False
    """Disks are copied, too."""
    copy: str = "none"
    """The disks' copies: none, behind, ready, equal (for good), or failed."""
    postcopy: bool = False
    """It may be switched to post-copy, and will be at any moment."""
    dies_after: int = 0
    """The daemon that runs the next step dies after so many of its effects; 0: it lives."""
    dead: str = ""
    """Which one has."""
    slow: bool = False
    """The destination's store did not answer in time."""
    excuses: frozenset[str] = frozenset()
    """Why the guest may end up running nowhere."""
    sin: str = ""
    """A law that an effect broke as it was run."""

    def excused(self, why: str) -> World:
        return self._replace(excuses=self.excuses | {why})


def start(
    bounds: Bounds,
    *,
    live: bool = True,
    asks: bool = True,
    waits: bool = False,
    disks: bool = False,
    p2p: bool = False,
    tunnel: bool = False,
    postcopy: bool = False,
) -> World:
    """Begin has been answered, Prepare is on its way."""
    state, effects = source.begin(
        "g", CS, live=live, running=True, patience=1, may_postcopy=postcopy
    )
    world = World(state, None, bounds, asks=asks, waits=waits or disks, disks=disks)
    world = world._replace(p2p=p2p or tunnel, tunnel=tunnel, postcopy=postcopy)
    return run_source(world, effects)


# -- the drivers -------------------------------------------------------------------------------


def at_source(w: World, ev: on.SourceEvent) -> World:
    state, effects = source.step(w.source, ev)
    return run_source(w._replace(source=state), effects)


def run_source(w: World, effects: tuple[do.SourceEffect, ...]) -> World:
    if 0 < w.dies_after < len(effects):
        effects, w = effects[: w.dies_after], w._replace(dead="source")
    w = w._replace(dies_after=0)
    for effect in effects:
        match effect:
            case do.Answer(call=call):
                w = answered(w, NAMES[call], True)
                late = (
                    source.Phase.PERFORMED,
                    source.Phase.IN_DOUBT,
                    source.Phase.SERVING,
                    source.Phase.STOPPING,
                )
                if NAMES[call] == "abort" and w.source.phase in late:
                    w = w._replace(sin="I17: an abort is acknowledged and ignored")
                if NAMES[call] in ("perform", "x-perform"):
                    w = w._replace(permit="run" if w.source.shall_run else "paused")
            case do.Refuse(call=call):
                w = answered(w, NAMES[call], False)
            case do.Store(record=record):
                w = w._replace(s_ops=w.s_ops | {("store", record)})
            case do.Qmp(op=op):
                w = w._replace(s_cmd=(*w.s_cmd, (op, True)))
            case do.Kill():
                w = w._replace(s_ops=w.s_ops | {("kill", None)})
            case do.Ask():
                if w.question:
                    w = w._replace(sin="L7: two questions at a time")
                w = w._replace(question="way")
            case do.Watch(link=link):
                w = w._replace(s_watch=w.s_watch | {link})
                if link == CS and w.cs.told:
                    w = w._replace(s_ops=w.s_ops | {("closed", link)})
            case do.Unwatch():
                w = w._replace(s_watch=frozenset())
            case do.SetTimer(timer=timer):
                w = w._replace(s_timers=w.s_timers | {timer})
            case do.ClearTimer(timer=timer):
                w = w._replace(s_timers=w.s_timers - {timer})
            case do.Show(view=do.View.STUCK):
                w = w.excused("stuck")
    return w


def at_dest(w: World, ev: on.DestinationEvent) -> World:
    if w.dest is None:
        raise AssertionError("no destination yet")
    state, effects = destination.step(w.dest, ev)
    return run_dest(w._replace(dest=state), effects)


def run_dest(w: World, effects: tuple[do.DestinationEffect, ...]) -> World:
    if 0 < w.dies_after < len(effects):
        effects, w = effects[: w.dies_after], w._replace(dead="destination")
    w = w._replace(dies_after=0)
    for effect in effects:
        match effect:
            case do.Answer(call=call):
                w = answered(w, NAMES[call], True)
            case do.Refuse(call=call):
                w = answered(w, NAMES[call], False)
                broken = w.qd.hung or (w.dest is not None and w.dest.broken)
                if NAMES[call] == "finish0" and w.d_store is Record.COMMITTED and not broken:
                    w = w._replace(sin="L4: Finish fails although the guest is here")
            case do.Tell(decision=decision):
                w = told(w, decision)
            case do.Store(record=record):
                gone = w.cd.state == "closed" and w.dest is not None and w.dest.finish_link == CD
                if record is Record.COMMITTED and gone:
                    w = w._replace(sin="I2: decided for a caller that has gone")
                w = w._replace(d_ops=w.d_ops | {("store", record)})
            case do.Qmp(op=op):
                w = w._replace(d_cmd=(*w.d_cmd, (op, True)))
            case do.Launch():
                w = w._replace(d_ops=w.d_ops | {("launch", None)})
            case do.Define():
                w = w._replace(d_ops=w.d_ops | {("define", None)})
            case do.Kill():
                w = w._replace(d_ops=w.d_ops | {("kill", None)})
            case do.Watch(link=link):
                w = w._replace(d_watch=w.d_watch | {link})
                if link == CD and w.cd.told:
                    w = w._replace(d_ops=w.d_ops | {("closed", link)})
            case do.Unwatch():
                w = w._replace(d_watch=frozenset())
            case do.CheckCaller(link=link):
                w = at_dest(w, on.CallerChecked(link == X or w.cd.state != "closed"))
            case do.SetTimer(timer=timer):
                w = w._replace(d_timers=w.d_timers | {timer})
            case do.ClearTimer(timer=timer):
                w = w._replace(d_timers=w.d_timers - {timer})
            case do.Show(view=do.View.HELD):
                w = w.excused("held")
    return w


def told(w: World, decision: Record) -> World:
    """The destination answers a question. A wrong answer is a second guest in waiting."""
    if decision is Record.COMMITTED and w.d_store is not Record.COMMITTED:
        w = w._replace(sin="L4: the destination tells a decision that is not stored")
    if decision is Record.ABORTED and w.d_store is Record.COMMITTED:
        w = w._replace(sin="L4: the destination denies its decision")
    return w._replace(question=decision.value) if w.question == "there" else w


def question_arrives(w: World) -> World:
    """The destination is asked; without a machine for this migration its store answers."""
    if w.dest is not None and w.dest.phase is not destination.Phase.ENDED:
        return at_dest(w, on.Asked(NAMES.index("ask")))
    w = w._replace(d_store=w.d_store or Record.ABORTED)
    return told(w, w.d_store or Record.ABORTED)


# -- calls and replies ---------------------------------------------------------------------------


def link_of(w: World, name: str) -> Link:
    if name.startswith("x-") or name in ("abort", "ask"):
        return Link()
    return w.cs if name in AT_SOURCE else w.cd


def answered(w: World, name: str, ok: bool) -> World:
    w = w._replace(owed=w.owed - {name})
    if name.startswith("x-") or name == "abort":
        return w
    if link_of(w, name).state == "open" and w.c == name:
        w = w._replace(replies=(*w.replies, (name, ok)))
    return w


def deliver(w: World, name: str) -> World:
    """A daemon reads a call and its core hears of it."""
    calls = list(w.calls)
    calls.remove(name)
    w = w._replace(calls=tuple(calls), owed=w.owed | {name})
    call, stranger = NAMES.index(name), name.startswith("x-")
    at_s, at_d = (X, X) if stranger else (CS, CD)
    match name.removeprefix("x-"):
        case "prepare":
            state, effects = destination.begin("g", call, CD, persist=True)
            return run_dest(w._replace(dest=state), effects)
        case "perform":
            return at_source(w, on.PerformCalled(call, at_s, w.asks, w.disks))
        case "abort":
            return at_source(w, on.AbortCalled(call))
        case "confirm0":
            proof = Proof.NONE if stranger else Proof.COMMITTED
            return at_source(w, on.ConfirmCalled(call, at_s, False, proof))
        case "confirm1":
            return at_source(w, on.ConfirmCalled(call, at_s, True, Proof.NONE))
    if w.dest is None:
        return answered(w, name, False)
    cancelled = name.endswith("1")
    permitted, paused = bool(w.permit), w.permit == "paused"
    return at_dest(w, on.FinishCalled(call, at_d, cancelled, permitted, paused))


NEXT = {
    ("prepare", True): "perform",
    ("prepare", False): "confirm1",
    ("perform", True): "finish0",
    ("perform", False): "finish1",
    ("finish0", True): "confirm0",
    ("finish0", False): "confirm1",
}
"""How libvirt's client goes on after an answer; every loss of one is a `False`."""


def client_hears(w: World, ok: bool) -> World:
    """The controller's call has ended; it makes the next one."""
    following = NEXT.get((w.c, ok), "end")
    w = w._replace(c=following, replies=())
    if following != "end" and link_of(w, following).state == "open":
        w = w._replace(calls=(*w.calls, following))
    return w
