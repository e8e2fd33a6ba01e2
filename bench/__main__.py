"""`python -m bench [NAME…]`: measure, print the table, write it into the docs."""

from __future__ import annotations

import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from bench import contenders, measures, report
from support import tick_guest

PAGE = Path("docs/reference/benchmarks.md")


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def say_of(name: str, text: str) -> None:
    say(f"{name}: {text}")


def main(chosen: list[str]) -> None:
    """All contenders, or those named; only a whole run is written into the docs."""
    directory = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    directory.chmod(0o755)
    try:
        elf = tick_guest.build(directory)
        results = {report.FLOOR: measures.floor(elf, directory, say)}
        for name, opener in contenders.contenders().items():
            if chosen and name not in chosen:
                continue
            say(f"{name}: starting")
            with opener(directory) as pair:
                results[name] = measures.measure(elf, directory, pair, partial(say_of, name))
        print(report.table(results))
        if not chosen:
            PAGE.parent.mkdir(parents=True, exist_ok=True)
            PAGE.write_text(report.page(results))
    finally:
        shutil.rmtree(directory)


main(sys.argv[1:])
