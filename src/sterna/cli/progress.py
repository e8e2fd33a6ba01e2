"""The live display of a migration: a panel at a terminal, plain lines in a pipe, JSON lines."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sterna.cli.output import format_bytes, format_ms, print_json_line
from sterna.client.types import MigrationResult, Progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

# A pipe gets a line at most this often; a terminal is redrawn at every sample.
PLAIN_INTERVAL_MS = 1000
BAR_WIDTH = 60


class PlainDisplay:
    """One line a second on standard error, so that a pipe gets only the result."""

    def __init__(self) -> None:
        self._next_ms = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def update(self, progress: Progress) -> None:
        """Takes the newest figures."""
        if progress.elapsed_ms < self._next_ms:
            return
        self._next_ms = progress.elapsed_ms + PLAIN_INTERVAL_MS
        sys.stderr.write(describe(progress) + "\n")

    def note(self, text: str) -> None:
        """A line of its own."""
        sys.stderr.write(f"sterna: {text}\n")


class JsonDisplay:
    """One JSON object a sample on standard output."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def update(self, progress: Progress) -> None:
        """Takes the newest figures."""
        print_json_line({"progress": progress_fields(progress)})

    def note(self, text: str) -> None:
        """Beside the JSON, not in it."""
        sys.stderr.write(f"sterna: {text}\n")


class LiveDisplay:
    """A bar and a line of figures, redrawn in place."""

    def __init__(self, guest: str, destination: str) -> None:
        self._title = f"{guest} → {destination}"
        self._live: Live | None = None
        self._last: Progress | None = None
        self._note = ""

    def __enter__(self) -> Self:
        # rich costs 80 ms: only who looks at a terminal pays for it.
        from rich.live import Live

        self._live = Live(refresh_per_second=10, transient=True)
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def update(self, progress: Progress) -> None:
        """Takes the newest figures."""
        self._last = progress
        if self._live is not None:
            self._live.update(self._draw(progress))

    def note(self, text: str) -> None:
        """Shows a line below the figures."""
        self._note = text
        if self._last is not None:
            self.update(self._last)

    def _draw(self, progress: Progress) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        moved = max(progress.total - progress.remaining, 0)
        figures = Table.grid(padding=(0, 3))
        figures.add_row(
            f"moved {format_bytes(progress.processed)}",
            f"rate {format_bytes(progress.rate)}/s",
            f"dirty {format_bytes(progress.dirty_rate)}/s",
        )
        figures.add_row(
            f"remaining {format_bytes(progress.remaining)}",
            f"pass {progress.iteration}",
            f"ETA {eta_text(progress)}",
        )
        lines = Table.grid()
        for line in (
            Text(f"{self._title}   {format_ms(progress.elapsed_ms)}", style="bold"),
            ProgressBar(total=max(progress.total, 1), completed=moved, width=BAR_WIDTH),
            figures,
            Text(self._note),
        ):
            lines.add_row(line)
        return lines


def eta_text(progress: Progress) -> str:
    """The end in sight, or that there is none."""
    if not progress.remaining:
        return "now"
    if not progress.rate:
        return "not known yet"
    if progress.eta_ms is None:
        return "none: the guest rewrites memory as fast as it is sent"
    return format_ms(progress.eta_ms)


def describe(progress: Progress) -> str:
    """One plain line of figures."""
    percent = 100 * (1 - progress.remaining / progress.total) if progress.total else 0
    return (
        f"{percent:3.0f} %  moved {format_bytes(progress.processed)}  "
        f"rate {format_bytes(progress.rate)}/s  dirty {format_bytes(progress.dirty_rate)}/s  "
        f"remaining {format_bytes(progress.remaining)}  pass {progress.iteration}  "
        f"ETA {eta_text(progress)}"
    )


def progress_fields(progress: Progress) -> dict[str, int | None]:
    """The figures under the names that `--json` prints."""
    return {
        "elapsed_ms": progress.elapsed_ms,
        "total_bytes": progress.total,
        "processed_bytes": progress.processed,
        "remaining_bytes": progress.remaining,
        "rate_bytes_per_s": progress.rate,
        "dirty_bytes_per_s": progress.dirty_rate,
        "iteration": progress.iteration,
        "expected_downtime_ms": progress.downtime_ms,
        "throttle_percent": progress.throttle,
        "eta_ms": progress.eta_ms,
    }


def result_sentence(result: MigrationResult) -> str:
    """What happened, in one plain sentence."""
    if result.offline:
        return (
            f"{result.guest} does not run: its definition moved to {result.destination}, where it"
            " is kept."
        )
    silence = "" if result.downtime_ms is None else f", {format_ms(result.downtime_ms)} of silence"
    return (
        f"{result.guest} moved to {result.destination} in {format_ms(result.total_ms)}"
        f"{silence}, {format_bytes(result.transferred)} sent."
    )


def result_fields(result: MigrationResult) -> dict[str, object]:
    """The result under the names that `--json` prints."""
    return {
        "guest": result.guest,
        "destination": result.destination,
        "total_ms": result.total_ms,
        "downtime_ms": result.downtime_ms,
        "transferred_bytes": result.transferred,
        "memory_total_bytes": result.memory_total,
        "iterations": result.iterations,
        "offline": result.offline,
        "warnings": list(result.warnings),
    }
