"""Errors only a client meets.

ConnectionFailed
    the host could not be reached, or went away; `host` says which one.
MigrationInDoubt
    the guest was handed over and the destination's answer was lost.
"""

from __future__ import annotations

from sterna.errors import OperationFailed, RpcError


class ConnectionFailed(RpcError):
    """A host cannot be reached or the connection to it was lost.

    Attributes:
        host: the URI as the user wrote it.
        why: what went wrong, without it.
    """

    def __init__(self, host: str, why: str) -> None:
        super().__init__(f"cannot talk to {host}: {why}")
        self.host = host
        self.why = why


class MigrationFailed(OperationFailed):
    """A migration did not happen. Says what failed, where, and where the guest is now (L8).

    Attributes:
        phase: `begin`, `prepare`, `perform`, `finish` or `confirm`; empty if the source drove it,
            whose words tell it then.
        side: `source` or `destination`: who reported the failure.
        guest_state: the guest's state at the source now, in words; empty if it cannot be asked.
        aborted: whether somebody asked for it to stop.
    """

    opening = ""

    def __init__(
        self, *, phase: str, side: str, cause: str, guest_state: str, aborted: bool = False
    ) -> None:
        inside = f" in {phase}" if phase else ""
        what = "the migration was aborted" if aborted else f"the migration failed{inside}"
        at = f" at the {side}: {cause}" if phase else f": {cause}"
        now = f"; the guest is {guest_state} at the source" if guest_state else ""
        super().__init__(f"{what}{at}{now}")
        self.phase = phase
        self.side = side
        self.cause = cause
        self.guest_state = guest_state
        self.aborted = aborted


class MigrationInDoubt(OperationFailed):
    """The destination was told to start the guest and its answer was lost (L5).

    The source keeps its copy paused. Ask the destination before doing anything with it.
    """

    opening = ""

    def __init__(self, guest: str, destination: str, cause: str) -> None:
        super().__init__(
            f"{guest} was handed to {destination}, whose answer was lost ({cause}); the source "
            f"keeps its copy paused: see whether {guest} runs at {destination} before resuming it"
        )
        self.guest = guest
        self.destination = destination
