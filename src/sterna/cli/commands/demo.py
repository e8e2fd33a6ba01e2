"""`sterna demo`: tells the demo's story and prints what was measured."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from sterna.cli.command import Command, Context
from sterna.cli.exits import Exit
from sterna.cli.output import print_error, print_json, print_table
from sterna.cli.progress import LiveDisplay, PlainDisplay, result_sentence
from sterna.client.moving import OnProgress
from sterna.client.types import MigrationResult
from sterna.errors import SternaError

if TYPE_CHECKING:
    from sterna.demo.story import Outcome


class Teller:
    """Tells people how the demo goes."""

    def say(self, text: str) -> None:
        """Prints a line at once."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    @contextmanager
    def moving(self, what: str) -> Iterator[OnProgress | None]:
        """Shows how far a migration is."""
        at_terminal = sys.stdout.isatty()
        with LiveDisplay("ticker", what) if at_terminal else PlainDisplay() as display:
            yield display.update

    def moved(self, result: MigrationResult) -> None:
        """Says how it went."""
        self.say(f"  {result_sentence(result)}")


class Mute:
    """Says nothing: JSON is all that is printed."""

    def say(self, text: str) -> None:
        """Nothing."""

    @contextmanager
    def moving(self, what: str) -> Iterator[OnProgress | None]:
        """Nothing."""
        yield None

    def moved(self, result: MigrationResult) -> None:
        """Nothing."""


async def run_demo(context: Context) -> int:
    """Plays the demo; fails if a promise was broken or it could not be played."""
    # Only here: the demo brings along what no other command needs.
    from sterna.demo.hosts import DemoFailed
    from sterna.demo.linux_guest import LinuxGuestError
    from sterna.demo.story import STEP_TIMEOUT_S, play

    try:
        outcome = await play(Mute() if context.json else Teller())
    except (DemoFailed, LinuxGuestError, SternaError, TimeoutError) as error:
        why = str(error) or f"nothing happened for {STEP_TIMEOUT_S:.0f} s"
        print_error(f"the demo cannot go on: {why}")
        return Exit.FAILED
    if context.json:
        print_json(asdict(outcome))
    else:
        print_outcome(outcome)
    return Exit.FAILED if outcome.broken else Exit.OK


def print_outcome(outcome: Outcome) -> None:
    """The table of what was measured, and which promises were broken."""
    rows = []
    for move in outcome.moves:
        rows.append([f"{move.what}: total time", f"{move.total_ms:.0f} ms"])
        rows.append([f"{move.what}: the guest's silence", f"{move.silence_ms:.0f} ms"])
    if outcome.reap_ms is not None:
        rows.append(["orphan gone after the controller's SIGKILL", f"{outcome.reap_ms:.1f} ms"])
    sys.stdout.write("\n")
    print_table(["MEASURED", ""], rows, terminal=sys.stdout.isatty())
    sys.stdout.write("\n")
    for promise in outcome.broken:
        sys.stdout.write(f"BROKEN: {promise}\n")
    if not outcome.broken:
        sys.stdout.write("Every promise was kept: no tick lost, none doubled, no orphan.\n")


DEMO = Command(
    "demo",
    "see it work: two hosts on this machine, a guest that moves",
    "Starts two daemons in a temporary directory and a small Linux guest that ticks, moves the "
    "guest over and back while it runs, then kills the controller in the middle of a third "
    "migration. Ends with what was measured; fails if a promise was broken.",
    run_demo,
    needs_host=False,
    example="sterna demo",
)
