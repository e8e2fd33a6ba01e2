"""What must never be: one function a law. `settled` means nothing more will happen by itself."""

from __future__ import annotations

from model.world import World
from sterna.migration.core import destination, source
from sterna.migration.core.records import Record


def never_two(w: World) -> str | None:
    """L1, whatever anybody says."""
    return "L1: two guests run" if w.qs.cpus and w.qd.cpus else None


def never_none(w: World, settled: bool) -> str | None:
    """L2: it runs somewhere, unless its QEMU died or a user paused it."""
    if not settled:
        return None
    if w.excuses == {"source died late"}:
        # What it had sent is all there is, and nothing else went wrong.
        return None if w.qd.cpus or w.paused else "L2: the only copy is given up"
    if w.excuses:
        return None
    if w.qd.life == "dead" and w.d_store is Record.COMMITTED:
        return None  # it was the destination's, and died there like any guest's QEMU
    running = w.qs.cpus + w.qd.cpus
    if w.qd.post and w.qd.life == "up":
        return "L2: the guest waits for pages that nobody sends"
    if w.paused:
        return "I19: a user's pause is forgotten" if running else None
    return None if running else "L2: the guest runs nowhere"


def no_old_disk(w: World) -> str | None:
    """L1 for what it has written: where it runs, its disks are what it left."""
    if w.disks and w.qd.cpus and w.copy != "equal":
        return "L1: it runs at the destination with disks that are not its own"
    return None


def no_copy_is_left(w: World, settled: bool) -> str | None:
    """L7 for block jobs: a guest that stays is not copied on and on."""
    stays = settled and w.qs.alive and not w.qs.hung and w.source.phase is source.Phase.ENDED
    if stays and w.copy in ("behind", "ready", "failed") and "store failed" not in w.excuses:
        return "L7: the disks are still being copied"
    return None


def no_stale_copy(w: World, settled: bool) -> str | None:
    """L1 in the long run: a source that does not know that it gave the guest away would start it
    again, from its definition, as soon as somebody asks it to."""
    given = settled and w.asks and w.d_store is Record.COMMITTED
    if not given or w.excuses & {"store failed", "hung"} or Record.HANDED_OVER in w.s_store:
        return None
    return "L1: the source does not know that the guest is the destination's"


def no_orphans(w: World, settled: bool) -> str | None:
    """L3: once the destination knows that the connection ended, nothing undecided lives on."""
    if w.dest is None or not w.cd.told:
        return None
    heard = ("closed", 2) not in w.d_ops
    if heard and w.dest.phase in destination.UNDECIDED:
        return "L3: undecided, though its controller is gone"
    decided = w.d_store is Record.COMMITTED
    if settled and w.qd.life == "up" and not decided:
        return "L3: an incoming QEMU survives its controller"
    return None


def every_job_ends(w: World, settled: bool) -> str | None:
    """L7 and I17: nobody waits for ever, and a job outlives nobody."""
    if not settled:
        return None
    if w.owed:
        return f"L7: {min(w.owed)} is never answered"
    hung = w.qs.hung or w.qd.hung
    if w.source.phase is not source.Phase.ENDED and not hung:
        return f"L7: the source's job stays, {w.source.phase.value}"
    if w.qd.post and not w.qs.alive:
        return None  # its pages died with the source's QEMU: a person ends what is left of it
    if w.dest is not None and w.dest.phase is not destination.Phase.ENDED and not hung:
        return f"L7: the destination's job stays, {w.dest.phase.value}"
    return None


def bad(w: World, settled: bool) -> str | None:
    """The law this world breaks, if any. L4, L5 and I13 are seen as effects run (`World.sin`)."""
    return (
        w.sin
        or never_two(w)
        or no_old_disk(w)
        or no_copy_is_left(w, settled)
        or no_orphans(w, settled)
        or never_none(w, settled)
        or no_stale_copy(w, settled)
        or every_job_ends(w, settled)
    )
