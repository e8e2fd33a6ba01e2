"""`sternad` that kills itself at one moment of a migration, when it is told which.

Run as a file before the daemon's own command, as `support.dying_daemon` is. Below its root the file
`die` says where: ``Outgoing 12``, the twelfth moment of the source's side. A moment is right after
an effect of the core was started, and right before an event reaches the core. The file goes before
the daemon does, so that the next one lives.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from sterna.migration.driver import Driver
from sterna.server.main import main

FILE = "die"


class Deadline:
    """Counts the moments of one side."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._side = ""
        self._left = 0

    def begin(self, side: str) -> None:
        """A migration begins; is it the one?"""
        self._left = 0  # an earlier one may have ended before its moment came
        words = self._path.read_text().split() if self._path.exists() else []
        if words and words[0] == side:
            self._side, self._left = side, int(words[1])

    def passed(self, side: object) -> None:
        """One more moment. As `kill -9` would, if it is the last."""
        if self._left and type(side).__name__ == self._side:
            self._left -= 1
            if not self._left and self._path.exists():
                self._path.unlink()
                os.kill(os.getpid(), signal.SIGKILL)


def arm(deadline: Deadline) -> None:
    """Put it into every driver."""
    begin, apply, step = Driver.begin, Driver._apply, Driver._log

    def beginning(self: Any, state: Any, effects: Any) -> None:
        deadline.begin(type(self).__name__)
        begin(self, state, effects)

    def applying(self: Any, effects: Any) -> None:
        for effect in effects:
            apply(self, (effect,))
            deadline.passed(self)

    def stepping(self: Any, before: Any, event: Any, effects: Any) -> None:
        step(self, before, event, effects)
        deadline.passed(self)

    Driver.begin = beginning  # type: ignore[method-assign]  # the fault to be injected
    Driver._apply = applying  # type: ignore[method-assign]  # the fault to be injected
    Driver._log = stepping  # type: ignore[method-assign]  # the fault to be injected


if __name__ == "__main__":
    _python, _dash_m, _module, *arguments = sys.argv[1:]
    arm(Deadline(Path(arguments[arguments.index("--root") + 1]) / FILE))
    sys.exit(main(arguments))
