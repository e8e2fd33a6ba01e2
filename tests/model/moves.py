"""Everything that can happen next in a world. A label that begins with "!" is a fault or a choice.

Choosing the moves is half of the proof: what is not here was not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

from model.qemus import (
    data_fails,
    dest_qemu_ends,
    dest_qemu_runs,
    disk_fails,
    enters_postcopy,
    postcopy_breaks,
    source_qemu_ends,
    source_qemu_runs,
    switchover,
)
from model.restarts import controller_exits, deaths_within_a_step, restarts, waits_on
from model.world import (
    CD,
    CS,
    Link,
    World,
    at_dest,
    at_source,
    client_hears,
    deliver,
    link_of,
    question_arrives,
)
from sterna.migration.core import destination
from sterna.migration.core import events as on
from sterna.migration.core.records import Record
from sterna.migration.core.words import QmpOp, QmpWhy, Status, Timer

Move = tuple[str, World]


def moves(w: World) -> Iterator[Move]:
    if w.sin:
        return
    quiet = True
    for move in _by_themselves(w):
        quiet = False
        yield move
    # Time passes for a timer when nothing else is left to happen, or by a fault: too early.
    if quiet:
        yield from _timers(w)
    elif _may(w, "timer"):
        for label, after in _timers(w):
            yield f"!{label} early", _spent(after)
    if w.qs.hung:
        yield "~source QEMU wakes", w._replace(qs=w.qs._replace(hung=False))
    if w.qd.hung and w.qd.life == "up":
        yield "~destination QEMU wakes", w._replace(qd=w.qd._replace(hung=False))
    yield from _choices(w)
    if w.left.faults:
        yield from _faults(w)


# -- what happens by itself ------------------------------------------------------------------------


def _by_themselves(w: World) -> Iterator[Move]:
    yield from _network(w)
    yield from _question(w)
    yield from _source_side(w)
    yield from _dest_side(w)
    yield from _data(w)


def _network(w: World) -> Iterator[Move]:
    for name in w.calls:
        link = link_of(w, name)
        if not link.told and not (link.state == "silent" and not name.startswith("x-")):
            yield f"{name} arrives", deliver(w, name)
    for name, ok in w.replies:
        yield f"{name} is answered {'well' if ok else 'badly'}", client_hears(w, ok)
    if w.c not in ("end", "gone") and link_of(w, w.c).state != "open":
        yield f"controller gives {w.c} up", client_hears(w, False)
    if w.c == "end":
        yield "controller exits", controller_exits(w, "closed")
    if w.cs.state != "open" and not w.cs.told:
        yield "source sees its connection end", _told_source(w)
    if w.cd.state != "open" and not w.cd.told:
        yield "destination sees its connection end", _told_dest(w)


def _question(w: World) -> Iterator[Move]:
    """The source's question has a connection of its own."""
    if w.question == "way":
        yield "the question arrives", question_arrives(w._replace(question="there"))
    if w.late:
        yield "a late question arrives", question_arrives(w._replace(late=False))
    if w.question not in ("", "way", "there"):
        event = on.Told(Record(w.question))
        yield f"the source is told {w.question}", at_source(w._replace(question=""), event)


def _source_side(w: World) -> Iterator[Move]:
    if w.s_out:
        ev, rest = w.s_out[0], w.s_out[1:]
        yield f"source hears {_say(ev)}", at_source(w._replace(s_out=rest), ev)
    if w.s_cmd and w.qs.alive and not w.qs.hung:
        yield f"source QEMU runs {w.s_cmd[0][0].value}", source_qemu_runs(w)
    if w.s_cmd and (w.qs.hung or not w.qs.alive):
        yield from _no_reply_source(w)
    for op, what in w.s_ops:
        done = w._replace(s_ops=w.s_ops - {(op, what)})
        if op == "store" and isinstance(what, Record):
            done = done._replace(s_store=w.s_store | {what})
            yield f"source has stored {what.value}", at_source(done, on.Stored(what))
        elif op == "closed":
            yield "source hears of a closed connection", at_source(done, on.ConnectionClosed(CS))
        elif op == "kill":
            if Record.HANDED_OVER not in w.s_store and "store failed" not in w.excuses:
                done = done._replace(sin="I13: the source's QEMU is killed before its record")
            if w.qs.alive and w.qd.life == "up" and w.qd.post:
                done = done._replace(sin="I23: the source's QEMU is killed with pages in it")
            if w.qs.alive:
                yield "source QEMU is killed", source_qemu_ends(done)
            else:
                said = (*w.s_out, on.QemuGone("migrated"))
                yield "source QEMU is found dead", done._replace(s_out=said)


def _dest_side(w: World) -> Iterator[Move]:
    if w.d_out:
        ev, rest = w.d_out[0], w.d_out[1:]
        yield f"destination hears {_say(ev)}", at_dest(w._replace(d_out=rest), ev)
    up = w.qd.life == "up"
    if w.d_cmd and up and not w.qd.hung:
        yield f"destination QEMU runs {w.d_cmd[0][0].value}", dest_qemu_runs(w)
    if w.d_cmd and (w.qd.hung or not up):
        yield from _no_reply_dest(w)
    for op, what in w.d_ops:
        done = w._replace(d_ops=w.d_ops - {(op, what)})
        if op == "store" and isinstance(what, Record):
            stands = w.d_store or what
            done = done._replace(d_store=stands)
            yield f"destination has stored {stands.value}", at_dest(done, on.Stored(stands))
        elif op == "closed":
            event = on.ConnectionClosed(CD)
            yield "destination hears of a closed connection", at_dest(done, event)
        elif op == "launch":
            born = done._replace(qd=w.qd._replace(life="up"))
            yield "destination QEMU is up", at_dest(born, on.Launched())
        elif op == "define":
            written = on.Defined(on.DefineOutcome.WRITTEN)
            yield "the definition is written", at_dest(done, written)
        elif op == "kill":
            yield "destination QEMU is killed", _kill_dest(done)


def _kill_dest(w: World) -> World:
    if w.d_store is Record.COMMITTED:
        w = w._replace(sin="L4: a committed guest is killed")
    if w.d_store is None and "store failed" not in w.excuses and not w.slow:
        w = w._replace(sin="L4: a kill before the decision is stored")
    launching = ("launch", None)
    if launching in w.d_ops:
        w = w._replace(d_ops=w.d_ops - {launching})
    return dest_qemu_ends(w)


def _no_reply_source(w: World) -> Iterator[Move]:
    """The deadline of a command to a QEMU that hangs or died. It may still run it later."""
    for i, (op, awaited) in enumerate(w.s_cmd):
        if awaited:
            why = QmpWhy.TIMED_OUT if w.qs.alive else QmpWhy.GONE
            cmd = _unawaited(w.s_cmd, i) if w.qs.alive else ()
            event = on.QmpFailed(op, why, "")
            yield f"source waits for {op.value} in vain", at_source(w._replace(s_cmd=cmd), event)
            return


def _no_reply_dest(w: World) -> Iterator[Move]:
    for i, (op, awaited) in enumerate(w.d_cmd):
        if awaited:
            up = w.qd.life == "up"
            why = QmpWhy.TIMED_OUT if up else QmpWhy.GONE
            cmd = _unawaited(w.d_cmd, i) if up else ()
            event = on.QmpFailed(op, why, "")
            yield f"destination waits for {op.value} in vain", at_dest(w._replace(d_cmd=cmd), event)
            return


def _unawaited(commands: tuple[tuple[QmpOp, bool], ...], i: int) -> tuple[tuple[QmpOp, bool], ...]:
    """Nobody waits for command `i` any more. Of the same one twice, once is as good."""
    given_up = (commands[i][0], False)
    before = tuple(c for c in commands[:i] if c != given_up)
    return (*before, given_up, *commands[i + 1 :])


def _data(w: World) -> Iterator[Move]:
    q = w.qs
    if w.postcopy:
        yield from _postcopy(w)
    if (not q.alive and not (w.tunnel and q.status == "done")) or q.hung:
        return
    listens = w.qd.life == "up" and w.qd.incoming
    if w.copy == "behind" and listens:
        said = (*w.s_out, on.DisksReady())
        yield "the disks are equal", w._replace(copy="ready", s_out=said)
    if w.copy in ("behind", "ready") and not listens:
        yield "source QEMU finds a disk's connection broken", disk_fails(w)
    if q.status == "active" and listens:
        yield "source QEMU stops its guest", switchover(w)
    sent = q.status == "device" or (w.tunnel and q.status == "done")
    if sent and listens and not w.qd.loaded and not w.qd.hung:
        loaded = w._replace(
            qd=w.qd._replace(loaded=True),
            d_out=(*w.d_out, on.StatusChanged(Status.COMPLETED)),
        )
        yield "destination QEMU has loaded all", loaded
    if q.status == "device" and (w.qd.loaded or w.tunnel):
        said = (*w.s_out, on.StatusChanged(Status.COMPLETED))
        yield "source QEMU completes", w._replace(qs=q._replace(status="done"), s_out=said)
    if q.status in ("active", "device") and (not listens or (w.tunnel and w.cd.told)):
        yield "source QEMU finds the data connection broken", data_fails(w)


def _postcopy(w: World) -> Iterator[Move]:
    """Pages go while the guest runs, or may run, at the destination."""
    qs, qd = w.qs, w.qd
    sends = qs.alive and not qs.hung
    up = qd.life == "up"
    takes = up and qd.incoming and not qd.hung
    if sends and qs.status == "active" and takes:
        yield "source QEMU enters post-copy", enters_postcopy(w)
    if sends and qs.status == "post" and takes and not qd.post and not qd.loaded:
        said = (*w.d_out, on.StatusChanged(Status.POSTCOPY_ACTIVE))
        devices = w._replace(qd=qd._replace(post="active"), d_out=said)
        yield "destination QEMU has all but memory", devices
    if sends and qs.status == "post" and takes and qd.post == "active":
        said = (*w.d_out, on.StatusChanged(Status.COMPLETED))
        loaded = w._replace(qd=qd._replace(post="", loaded=True), d_out=said)
        yield "destination QEMU has every page", loaded
    if sends and qs.status == "post" and qd.loaded:
        told = (*w.s_out, on.StatusChanged(Status.COMPLETED))
        yield (
            "source QEMU has sent every page",
            w._replace(qs=qs._replace(status="done"), s_out=told),
        )
    over = not qs.alive or qs.status in ("cancelled", "lost", "failed")
    if (qs.status == "post" and not up and not qd.loaded) or (qd.post == "active" and up and over):
        yield "QEMU finds the connection for pages broken", postcopy_breaks(w)


def _exits(w: World) -> Iterator[Move]:
    """An incoming QEMU ends by itself when its stream breaks."""
    broken = w.qs.status in ("failed", "cancelled", "lost") or (
        not w.qs.alive and w.qs.status != "none"
    )
    broken = broken or (w.tunnel and w.cd.state != "open")
    if (
        w.qd.life == "up"
        and w.qd.incoming
        and not w.qd.loaded
        and not w.qd.post
        and broken
        and not w.qd.hung
    ):
        yield "destination QEMU exits: its stream broke", dest_qemu_ends(w)


# -- time ------------------------------------------------------------------------------------------


def _timers(w: World) -> Iterator[Move]:
    yield from _exits(w)
    for timer in w.s_timers:
        if isinstance(timer, Timer):
            fired = w._replace(s_timers=w.s_timers - {timer})
            yield f"source's {timer.value} timer", at_source(fired, on.TimerFired(timer))
    for timer in w.d_timers:
        if isinstance(timer, Timer):
            fired = w._replace(d_timers=w.d_timers - {timer}, slow=w.slow or timer is Timer.STORE)
            yield f"destination's {timer.value} timer", at_dest(fired, on.TimerFired(timer))


# -- choices of people -----------------------------------------------------------------------------


def _choices(w: World) -> Iterator[Move]:
    left, w = w.left, _upset(w)
    if left.aborts and "abort" not in w.calls and "abort" not in w.owed:
        less = w._replace(left=left._replace(aborts=left.aborts - 1))
        yield "!user aborts", less._replace(calls=(*w.calls, "abort"))
    if left.pauses and w.qs.alive and w.qs.cpus and w.c != "gone":
        less = w._replace(left=left._replace(pauses=left.pauses - 1), paused=True)
        told = at_source(less, on.UserPaused(by_controller=False))
        yield "!user pauses the guest", told._replace(s_cmd=(*told.s_cmd, (QmpOp.STOP, False)))
    if left.wild:
        less = w._replace(left=left._replace(wild=left.wild - 1))
        for name in ("x-perform", "x-finish0", "x-finish1", "x-confirm0", "x-confirm1"):
            if name not in w.calls and name not in w.owed:
                yield f"!stranger calls {name}", less._replace(calls=(*w.calls, name))


# -- faults ----------------------------------------------------------------------------------------


def _may(w: World, kind: str) -> bool:
    return bool(w.left.faults) and kind in w.left.kinds


def _spent(w: World) -> World:
    return _upset(w._replace(left=w.left._replace(faults=w.left.faults - 1)))


def _upset(w: World) -> World:
    """Another thing goes wrong; with two of them the only copy of a guest may be lost."""
    return w.excused("source died") if "source died late" in w.excuses else w


def _faults(w: World) -> Iterator[Move]:
    spent = _spent(w)
    kinds = w.left.kinds
    if "cut" in kinds:
        yield from _break(spent, "closed", "is cut")
    if "silence" in kinds:
        yield from _break(spent, "silent", "falls silent")
    if w.question and kinds & {"cut", "silence"}:
        yield from _question_faults(w, spent)
    if "die" in kinds and w.c != "gone" and not w.p2p:
        yield "!controller is killed", controller_exits(spent, "closed")
        yield "!controller's host vanishes", controller_exits(spent, "silent")
    yield from _qemu_faults(w, spent)
    if "store" in kinds:
        yield from _store_faults(w, spent)
    if "restart" in kinds:
        yield from restarts(spent)
        yield from deaths_within_a_step(spent, _by_themselves)
    if "launch" in kinds and ("launch", None) in w.d_ops:
        failed = spent._replace(d_ops=w.d_ops - {("launch", None)})
        failed = failed._replace(qd=w.qd._replace(life="dead"))
        yield "!the launch fails", at_dest(failed, on.LaunchFailed("no"))


def _question_faults(w: World, spent: World) -> Iterator[Move]:
    """It does not get there, or its answer does not get back, or not in time."""
    untold = on.Untold("no answer")
    yield "!the question or its answer is lost", at_source(spent._replace(question=""), untold)
    if w.question == "way":
        late = spent._replace(question="", late=True)
        yield "!the question is late, nobody waits for it", at_source(late, untold)


def _break(w: World, how: str, word: str) -> Iterator[Move]:
    """One connection ends. A call on it may have reached the daemon's buffer, or not."""
    for field, name in (("cs", "source"), ("cd", "destination")):
        link: Link = getattr(w, field)
        if link.state != "open" or w.c == "gone" or (w.p2p and field == "cs"):
            continue
        here = [n for n in w.calls if link_of(w, n) is link and not n.startswith("x-")]
        cut = w._replace(
            **{field: link._replace(state=how)},  # type: ignore[arg-type]  # a field by its name
            **({"cs": w.cs._replace(state=how)} if w.p2p else {}),
            replies=() if waits_on(w, field) else w.replies,
        )
        if how == "closed" or not here:
            yield f"!connection to the {name} {word}", cut
        if here:
            gone = cut._replace(calls=tuple(n for n in w.calls if n not in here))
            yield f"!connection to the {name} {word}, {here[0]} lost", gone


def _qemu_faults(w: World, spent: World) -> Iterator[Move]:
    kinds, qs, qd = w.left.kinds, w.qs, w.qd
    if "crash" in kinds:
        if qs.alive:
            late = " late" if qs.status == "done" and _undisturbed(w) else ""
            yield "!source QEMU dies", source_qemu_ends(spent.excused(f"source died{late}"))
        if qd.life == "up":
            yield "!destination QEMU dies", dest_qemu_ends(spent)
    if "hang" in kinds:
        if qs.alive and not qs.hung:
            hung = spent.excused("hung")._replace(qs=qs._replace(hung=True))
            yield "!source QEMU hangs", hung
        if qd.life == "up" and not qd.hung:
            hung = spent._replace(qd=qd._replace(hung=True))
            yield "!destination QEMU hangs", hung
    if "data" in kinds and qs.alive and qs.status in ("active", "device"):
        yield "!the data connection breaks", data_fails(spent)
    if "data" in kinds and qs.alive and w.copy in ("behind", "ready"):
        yield "!a disk's connection breaks", disk_fails(spent)
    if "data" in kinds and qs.alive and qs.status == "post" and not qd.loaded:
        yield "!the connection for pages breaks", postcopy_breaks(spent)
    if "lock" in kinds and qd.life == "up" and not qd.locked and not qd.cpus:
        yield "!an image is locked at the destination", spent._replace(qd=qd._replace(locked=True))


def _undisturbed(w: World) -> bool:
    """Whether the destination is as it should be, and its controller about to call Finish."""
    ending = (destination.Phase.ABORTING, destination.Phase.KILLING, destination.Phase.FAILED)
    well = w.qd.life == "up" and not (w.qd.hung or w.qd.locked)
    heard = w.dest is not None and w.dest.phase not in ending and w.dest.unready is None
    reached = w.cs.state == w.cd.state == "open" and not w.calls and not w.question
    return well and heard and reached and w.d_store is not Record.ABORTED


def _store_faults(w: World, spent: World) -> Iterator[Move]:
    failing = spent.excused("store failed")
    for op, what in w.s_ops:
        if op == "store" and isinstance(what, Record):
            done = failing._replace(s_ops=w.s_ops - {(op, what)})
            event = on.StoreFailed(what, "disk full")
            yield f"!source cannot store {what.value}", at_source(done, event)
    for op, what in w.d_ops:
        if op == "store" and isinstance(what, Record):
            done = failing._replace(d_ops=w.d_ops - {(op, what)})
            event = on.StoreFailed(what, "disk full")
            yield f"!destination cannot store {what.value}", at_dest(done, event)


# -- connections -----------------------------------------------------------------------------------


def _told_source(w: World) -> World:
    mine = [n for n in w.calls if link_of(w, n) is w.cs and not n.startswith("x-")]
    w = w._replace(cs=w.cs._replace(told=True), calls=tuple(n for n in w.calls if n not in mine))
    return at_source(w, on.ConnectionClosed(CS)) if CS in w.s_watch else w


def _told_dest(w: World) -> World:
    mine = [n for n in w.calls if link_of(w, n) is w.cd and not n.startswith("x-")]
    w = w._replace(cd=w.cd._replace(told=True), calls=tuple(n for n in w.calls if n not in mine))
    return at_dest(w, on.ConnectionClosed(CD)) if CD in w.d_watch and w.dest is not None else w


def _say(ev: object) -> str:
    match ev:
        case on.StatusChanged(status=status):
            return f"status {status.value}"
        case on.QmpDone(op=op):
            return f"{op.value} done"
        case on.QmpFailed(op=op):
            return f"{op.value} refused"
    return type(ev).__name__
