"""Both QEMUs of the world: what they do when they are told to, and by themselves."""

from __future__ import annotations

from model.world import SourceQemu, World
from sterna.migration.core import destination
from sterna.migration.core import events as on
from sterna.migration.core.records import Record
from sterna.migration.core.words import QmpOp, QmpWhy, Status


def source_qemu_runs(w: World) -> World:
    """The source's QEMU runs the first command it was sent."""
    (op, awaited), rest = w.s_cmd[0], w.s_cmd[1:]
    w, q = w._replace(s_cmd=rest), w.qs
    said: list[on.SourceEvent] = []
    refused, value = False, 0
    status = STATUS.get(q.status)
    match op:
        case QmpOp.STOP if q.cpus:
            q = q._replace(cpus=False)
            said.append(on.CpusStopped())
        case QmpOp.MIGRATE:
            if Record.PERFORMING not in w.s_store:
                w = w._replace(sin="I13: `migrate` before its record")
            q = q._replace(status="active")
        case QmpOp.MIRROR:
            w = w._replace(copy="behind")
        case QmpOp.SETTLE:
            refused = w.copy != "ready" or q.cpus
            w = w if refused else w._replace(copy="equal")
        case QmpOp.RESTORE if w.copy in ("behind", "ready", "failed"):
            w = w._replace(copy="none")
        case QmpOp.CONTINUE:
            refused = q.status != "pre"
            q = q if refused else q._replace(status="device")
        case QmpOp.CANCEL if q.status in ("active", "pre", "device"):
            back = q.ran and q.status != "active"
            q = q._replace(status="cancelled", cpus=q.cpus or back)
            said.append(on.StatusChanged(Status.CANCELLED))
            said += [on.CpusStarted()] if back else []
        case QmpOp.CANCEL | QmpOp.WITHDRAW if q.status in ("post", "lost"):
            w = _withdrawn(w, op)
            q = q._replace(status="cancelled")
            said.append(on.StatusChanged(Status.CANCELLED))
        case QmpOp.RECOVER:
            w, q, refused, value = _recovers(w, q)
            if value:
                said.append(on.StatusChanged(Status.POSTCOPY_ACTIVE))
        case QmpOp.CONT if q.status in ("post", "lost"):
            refused = True
        case QmpOp.CONT:
            if (
                q.status == "done"
                and Record.TAKEN_BACK not in w.s_store
                and "store failed" not in w.excuses
            ):
                w = w._replace(sin="L5: the source runs again without a verdict")
            q = q._replace(cpus=True)
            said.append(on.CpusStarted())
    if awaited:
        reply = (
            on.QmpFailed(op, QmpWhy.REFUSED, "")
            if refused
            else on.QmpDone(op, value, status=status)
        )
        said.append(reply)
    return w._replace(qs=q, s_out=(*w.s_out, *said))


def _withdrawn(w: World, op: QmpOp) -> World:
    """QEMU is told to let go of a post-copy: with pages missing at a guest that may run there?"""
    proven = Record.TAKEN_BACK in w.s_store or "store failed" in w.excuses
    if w.d_store is Record.COMMITTED or (op is QmpOp.WITHDRAW and not proven):
        return w._replace(sin="I23: post-copy is withdrawn without or against a verdict")
    return w


def _recovers(w: World, q: SourceQemu) -> tuple[World, SourceQemu, bool, int]:
    """The destination is asked for a place to send the missing pages to; does it want any?"""
    if w.dest is None or w.qd.life != "up" or w.qd.loaded:
        return w, q, False, 0
    if w.qd.hung or w.dest.phase is not destination.Phase.RECEIVING or q.status != "lost":
        return w, q, True, 0
    said = (on.StatusChanged(Status.POSTCOPY_PAUSED), on.StatusChanged(Status.POSTCOPY_ACTIVE))
    w = w._replace(qd=w.qd._replace(post="active"), d_out=(*w.d_out, *said))
    return w, q._replace(status="post"), False, 1


STATUS = {
    "post": Status.POSTCOPY_ACTIVE,
    "lost": Status.POSTCOPY_PAUSED,
    "active": Status.ACTIVE,
    "pre": Status.PRE_SWITCHOVER,
    "device": Status.DEVICE,
    "done": Status.COMPLETED,
    "failed": Status.FAILED,
    "cancelled": Status.CANCELLED,
}


def dest_qemu_runs(w: World) -> World:
    """The destination's QEMU runs the first command it was sent."""
    (op, awaited), rest = w.d_cmd[0], w.d_cmd[1:]
    w, q = w._replace(d_cmd=rest), w.qd
    said: list[on.DestinationEvent] = []
    refused = False
    match op:
        case QmpOp.LISTEN:
            q = q._replace(incoming=True)
        case QmpOp.READY:
            refused = q.locked
        case QmpOp.CONT:
            if w.d_store is not Record.COMMITTED:
                w = w._replace(sin="L4: `cont` before the decision is stored")
            refused = q.locked
            if not refused:
                q = q._replace(cpus=True)
                said.append(on.CpusStarted())
    if awaited:
        lacking = "done" if q.loaded else {"active": "post"}.get(q.post, q.post)
        done = on.QmpDone(op, status=STATUS.get(lacking))
        said.append(on.QmpFailed(op, QmpWhy.REFUSED, "") if refused else done)
    return w._replace(qd=q, d_out=(*w.d_out, *said))


def disk_fails(w: World) -> World:
    """A copy ends by itself; the guest does not notice. Once it is being settled, that says so."""
    settles = any(op is QmpOp.SETTLE for op, _ in w.s_cmd)
    said = () if settles else (on.DiskFailed("no"),)
    return w._replace(copy="failed", s_out=(*w.s_out, *said))


def switchover(w: World) -> World:
    """The source's QEMU has converged: it stops the CPUs, and sends the rest or waits."""
    paused = (on.StatusChanged(Status.PRE_SWITCHOVER),) if w.waits else ()
    said: tuple[on.SourceEvent, ...] = (on.CpusStopped(), *paused) if w.qs.cpus else paused
    status = "pre" if w.waits else "device"
    q = w.qs._replace(status=status, ran=w.qs.cpus, cpus=False)
    return w._replace(qs=q, s_out=(*w.s_out, *said))


def enters_postcopy(w: World) -> World:
    """The CPUs stop; QEMU 7.2 does not start the guest again by itself from here on."""
    stopped: tuple[on.SourceEvent, ...] = (on.CpusStopped(),) if w.qs.cpus else ()
    q = w.qs._replace(status="post", cpus=False)
    said = (*stopped, on.StatusChanged(Status.POSTCOPY_ACTIVE))
    return w._replace(qs=q, s_out=(*w.s_out, *said))


def postcopy_breaks(w: World) -> World:
    """Each side that is up keeps what it has, and waits."""
    if w.qs.alive and w.qs.status == "post":
        said = (*w.s_out, on.StatusChanged(Status.POSTCOPY_PAUSED))
        w = w._replace(qs=w.qs._replace(status="lost"), s_out=said)
    if w.qd.life == "up" and w.qd.post == "active" and not w.qd.loaded:
        told = (*w.d_out, on.StatusChanged(Status.POSTCOPY_PAUSED))
        w = w._replace(qd=w.qd._replace(post="lost"), d_out=told)
    return w


def data_fails(w: World) -> World:
    """The data connection breaks: the source's QEMU gives up and starts its guest again."""
    q = w.qs
    back = q.ran and q.status != "active"
    said: list[on.SourceEvent] = [on.StatusChanged(Status.FAILED)]
    said += [on.CpusStarted()] if back else []
    q = q._replace(status="failed", cpus=q.cpus or back)
    return w._replace(qs=q, s_out=(*w.s_out, *said))


def source_qemu_ends(w: World) -> World:
    q = w.qs._replace(alive=False, cpus=False)
    q = q if q.status == "done" else q._replace(status="failed")
    return w._replace(qs=q, s_cmd=(), s_out=(*w.s_out, on.QemuGone("died")))


def dest_qemu_ends(w: World) -> World:
    q = w.qd._replace(life="dead", cpus=False)
    return w._replace(qd=q, d_cmd=(), d_out=(*w.d_out, on.QemuGone("died")))
