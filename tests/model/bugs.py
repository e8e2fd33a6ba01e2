"""Bugs that are planted to see whether the explorer finds them: one of each sort that we fear.

Each takes a core's `step` and returns a wrong one; the tables say which law that breaks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sterna.migration.core import destination, destination_state, source, source_ways
from sterna.migration.core import effects as do
from sterna.migration.core import events as on
from sterna.migration.core.records import Record
from sterna.migration.core.words import QmpOp, Status

Step = Callable[[Any, Any], tuple[Any, tuple[Any, ...]]]
Plant = Callable[[Step], Step]


def resumes_when_its_controller_is_gone(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        if isinstance(ev, on.ConnectionClosed) and s.phase is source.Phase.PERFORMED:
            return replace(s, phase=source.Phase.RESUMING), (do.Qmp(QmpOp.CONT),)
        return step(s, ev)

    return bug


def takes_completed_for_cancelled(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        completed = isinstance(ev, on.StatusChanged) and ev.status is Status.COMPLETED
        if completed and s.phase is source.Phase.CANCELLING:
            ev = on.StatusChanged(Status.CANCELLED)
            return step(replace(s, stopped=True), ev)
        return step(s, ev)

    return bug


def migrates_before_its_record(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        if isinstance(ev, on.PerformCalled) and s.phase is source.Phase.BEGUN:
            s = replace(s, phase=source.Phase.CONFIGURING, perform=ev.call)
            return s, (do.Qmp(QmpOp.CONFIGURE),)
        return step(s, ev)

    return bug


def acknowledges_an_abort_that_is_too_late(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        if isinstance(ev, on.AbortCalled) and s.phase is source.Phase.PERFORMED:
            return s, (do.Answer(ev.call),)
        return step(s, ev)

    return bug


def forgets_the_call_when_in_doubt(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        after, effects = step(s, ev)
        if after.phase is source.Phase.IN_DOUBT and s.phase is source.Phase.CANCELLING:
            effects = tuple(e for e in effects if not isinstance(e, do.Refuse))
        return after, effects

    return bug


def forgets_a_users_pause(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        return (s, ()) if isinstance(ev, on.UserPaused) else step(s, ev)

    return bug


def never_drives_the_switchover(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        after, effects = step(s, ev)
        driven = (e for e in effects if e != do.Qmp(QmpOp.CONTINUE))
        return after, tuple(e for e in driven if not isinstance(e, do.SetTimer))

    return bug


def believes_cancelled_without_asking(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        lied_to = isinstance(ev, on.ConfirmCalled) and ev.cancelled
        if lied_to and s.phase is source.Phase.PERFORMED:
            return source_ways.decided(replace(s, confirm=ev.call), taken_back=True)
        return step(s, ev)

    return bug


def takes_silence_for_aborted(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        return step(s, on.Told(Record.ABORTED) if isinstance(ev, on.Untold) else ev)

    return bug


def asks_only_once(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        after, effects = step(s, ev)
        if isinstance(ev, on.Untold):
            effects = tuple(e for e in effects if not isinstance(e, do.SetTimer))
        return after, effects

    return bug


def forgets_with_its_qemu(step: Step) -> Step:
    """It was sent completely, and is perhaps let run there."""

    def bug(s: source.Source, ev: Any) -> Any:
        if isinstance(ev, on.QemuGone) and s.phase is source.Phase.PERFORMED:
            return replace(s, phase=source.Phase.ENDED), (do.Unwatch(), do.EndJob(False))
        return step(s, ev)

    return bug


def asks_at_once_without_a_copy(step: Step) -> Step:
    """To ask ends the only copy there is, while its controller is about to let it run."""

    def bug(s: source.Source, ev: Any) -> Any:
        if isinstance(ev, on.QemuGone) and s.phase is source.Phase.PERFORMED:
            return source_ways.doubt(replace(s, gone=True), at_once=True)
        return step(s, ev)

    return bug


def switches_before_the_disks_are_equal(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        after, effects = step(s, ev)
        if do.Qmp(QmpOp.SETTLE) in effects:
            effects = (do.Qmp(QmpOp.CONTINUE), *effects)
        return after, effects

    return bug


def goes_on_without_a_disk(step: Step) -> Step:
    """A copy failed, and memory goes on alone."""

    def bug(s: source.Source, ev: Any) -> Any:
        failed = isinstance(ev, on.QmpFailed) and ev.op is QmpOp.SETTLE
        return step(s, on.QmpDone(QmpOp.SETTLE) if failed else ev)

    return bug


def leaves_its_mirrors(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        failed = isinstance(ev, on.DiskFailed) and s.phase is source.Phase.MIRRORING
        return source_ways.end(s) if failed else step(s, ev)

    return bug


SOURCE_BUGS: dict[Plant, str | tuple[str, ...]] = {
    resumes_when_its_controller_is_gone: "L5",
    takes_completed_for_cancelled: "L5",
    migrates_before_its_record: "I13",
    acknowledges_an_abort_that_is_too_late: "I17",
    forgets_the_call_when_in_doubt: "L7",
    forgets_a_users_pause: "I19",
    never_drives_the_switchover: ("L2", "L7"),
    believes_cancelled_without_asking: "L1",
    takes_silence_for_aborted: "L1",
    asks_only_once: ("L2", "L7"),
    forgets_with_its_qemu: "L1",
    asks_at_once_without_a_copy: "L2",
    switches_before_the_disks_are_equal: "L1",
    goes_on_without_a_disk: "L1",
    leaves_its_mirrors: "L7",
}


def starts_before_the_decision_is_stored(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        after, effects = step(s, ev)
        if do.Store(Record.COMMITTED) in effects:
            effects = (*effects, do.Qmp(QmpOp.CONT))
        return after, effects

    return bug


def kills_before_the_decision_is_stored(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        after, effects = step(s, ev)
        if do.Store(Record.ABORTED) in effects:
            effects = (do.Kill(do.StopReason.FAILED), *effects)
        return after, effects

    return bug


def kills_a_committed_guest(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        if isinstance(ev, on.ConnectionClosed) and s.phase is destination.Phase.STARTING:
            return s, (do.Kill(do.StopReason.AUTOKILL),)
        return step(s, ev)

    return bug


def trusts_a_caller_that_is_gone(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        return step(s, on.CallerChecked(True) if isinstance(ev, on.CallerChecked) else ev)

    return bug


def is_deaf_while_finish_waits(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        if isinstance(ev, on.ConnectionClosed) and s.phase is destination.Phase.FINISHING:
            return replace(s, link=None), ()
        return step(s, ev)

    return bug


def waits_for_a_hung_qemu(step: Step) -> Step:
    """Finish without a deadline: W7."""

    def bug(s: destination.Destination, ev: Any) -> Any:
        after, effects = step(s, ev)
        return after, tuple(e for e in effects if not isinstance(e, do.SetTimer))

    return bug


def needs_no_permit(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        if isinstance(ev, on.FinishCalled):
            ev = replace(ev, permitted=True)
        return step(s, ev)

    return bug


def fails_after_the_commit(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        failed = isinstance(ev, on.QmpFailed) and ev.op is QmpOp.CONT
        if failed and s.phase is destination.Phase.STARTING and s.finish is not None:
            failure = destination_state.lost(s)
            return replace(s, finish=None), (do.Refuse(s.finish, failure),)
        return step(s, ev)

    return bug


def tells_aborted_before_it_is_stored(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        if isinstance(ev, on.Asked) and s.phase in destination.UNDECIDED:
            return s, (do.Tell(ev.call, Record.ABORTED),)
        return step(s, ev)

    return bug


def tells_committed_before_it_is_stored(step: Step) -> Step:
    def bug(s: destination.Destination, ev: Any) -> Any:
        if isinstance(ev, on.Asked) and s.phase is destination.Phase.COMMITTING:
            return s, (do.Tell(ev.call, Record.COMMITTED),)
        return step(s, ev)

    return bug


DESTINATION_BUGS: dict[Plant, str | tuple[str, ...]] = {
    starts_before_the_decision_is_stored: "L4",
    kills_before_the_decision_is_stored: "L4",
    kills_a_committed_guest: "L4",
    trusts_a_caller_that_is_gone: "I2",
    is_deaf_while_finish_waits: "L3",
    waits_for_a_hung_qemu: ("L2", "L7"),
    needs_no_permit: "L1",
    fails_after_the_commit: "L4",
    tells_aborted_before_it_is_stored: ("L1", "L4"),
    tells_committed_before_it_is_stored: "L4",
}


def ends_with_pages_missing_there(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        handing_over = s.phase is source.Phase.HANDING_OVER and isinstance(ev, on.Stored)
        return step(replace(s, post=False) if handing_over else s, ev)

    return bug


def cancels_postcopy_when_its_controller_is_gone(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        if isinstance(ev, on.ConnectionClosed) and s.phase is source.Phase.PERFORMED and s.post:
            return replace(s, phase=source.Phase.WITHDRAWING), (do.Qmp(QmpOp.WITHDRAW),)
        return step(s, ev)

    return bug


def never_joins_a_lost_link_again(step: Step) -> Step:
    def bug(s: source.Source, ev: Any) -> Any:
        s, effects = step(s, ev)
        return s, tuple(e for e in effects if e != do.Qmp(QmpOp.RECOVER))

    return bug


POSTCOPY_SOURCE_BUGS: dict[Plant, str] = {
    ends_with_pages_missing_there: "I23",
    cancels_postcopy_when_its_controller_is_gone: "I23",
    never_joins_a_lost_link_again: "L2",
}
