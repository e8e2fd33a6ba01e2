"""`python -m faults [WORD…]`: run the cases whose id holds every word, or all; then write the page.

What has a result for this source is not run again, so a run that was cut off goes on.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from faults import report
from faults.cases import Case, all_cases
from faults.world import alone_argv

DIRECTORY: Final = Path("build/faults")
PAGE: Final = Path("docs/reference/faults.md")
ROUNDS: Final = 4
WORKERS: Final = 3
"""More than processors: most of a case is waiting."""


def tried() -> str:
    """Names the code that is tried: the tree of `src`, whatever else has changed since."""

    def git(*words: str) -> str:
        ran = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
        return ran.stdout.strip()

    changed = "-changed" if git("status", "--porcelain", "src") else ""
    return (git("rev-parse", "--short=10", "HEAD:src") or "unknown") + changed


def known(path: Path) -> dict[str, dict[str, Any]]:
    """Results of earlier runs, by the case's id."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {result["id"]: result for result in map(json.loads, lines)}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Results:
    """Appends to the file, a line for each, and tells how far it is."""

    def __init__(self, path: Path, total: int) -> None:
        self._file = path.open("a")
        self._guard = threading.Lock()
        self._total, self._done, self._bad = total, 0, 0

    def add(self, result: dict[str, Any]) -> None:
        with self._guard:
            self._file.write(json.dumps(result) + "\n")
            self._file.flush()
            self._done += 1
            self._bad += bool(result["problems"])
            far = f"{self._done}/{self._total}, {self._bad} bad"
            say(f"  {far}: {result['id']}: {result['outcome']}")
            for problem in result["problems"]:
                say(f"    {problem}")


def start_worker() -> subprocess.Popen[str]:
    alone = alone_argv()
    argv = [*alone, sys.executable, "-m", "faults.worker", *(["--alone"] if alone else [])]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Workers:
    """The worker processes there are. `end` them, and no thread starts another one."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._alive: list[subprocess.Popen[str]] = []
        self._ended = False

    def start(self) -> subprocess.Popen[str] | None:
        """Another one; None once they shall end."""
        with self._guard:
            if self._ended:
                return None
            self._alive.append(made := start_worker())
            return made

    def end(self) -> None:
        with self._guard:
            self._ended = True
            for worker in self._alive:
                worker.terminate()


def work(todo: queue.SimpleQueue[Case], results: Results, workers: Workers) -> None:
    """Feed one worker, and another if it breaks."""
    worker: subprocess.Popen[str] | None = None
    while True:
        try:
            case = todo.get_nowait()
        except queue.Empty:
            break
        worker = worker or workers.start()
        if worker is None:
            return
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(json.dumps(asdict(case)) + "\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
        if line:
            results.add(json.loads(line))
            continue
        worker.communicate()
        if (worker := workers.start()) is None:
            return
        broken = {"outcome": "the test broke", "problems": ["its worker ended"]}
        results.add({"id": case.id, "case": asdict(case), **broken})
    if worker is not None:
        worker.communicate()


def run(cases: list[Case], path: Path) -> dict[str, dict[str, Any]]:
    """All of them, some at a time; every result there is."""
    have = known(path)
    missing = [case for case in cases if case.id not in have]
    path.parent.mkdir(parents=True, exist_ok=True)
    todo: queue.SimpleQueue[Case] = queue.SimpleQueue()
    for case in missing:
        todo.put(case)
    results, workers = Results(path, len(missing)), Workers()
    count = min(int(os.environ.get("WORKERS", WORKERS)), len(missing))
    threads = [threading.Thread(target=work, args=(todo, results, workers)) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        workers.end()
        raise
    have = known(path)
    return {case.id: have[case.id] for case in cases if case.id in have}


def weaknesses(path: Path) -> dict[str, dict[str, str]]:
    """What is seen of libvirt's at both, where we may make namespaces."""
    alone = alone_argv()
    if not alone:
        return {}
    if not path.exists():
        argv = [*alone, sys.executable, "-m", "faults.weaknesses", str(path)]
        subprocess.run(argv, check=True)
    seen: dict[str, dict[str, str]] = json.loads(path.read_text())
    return seen


def main(words: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    cases = [case for case in all_cases(ROUNDS) if all(word in case.id for word in words)]
    name = tried()
    results = run(cases, DIRECTORY / f"{name}.jsonl")
    print(report.summary(results))
    if not words:
        PAGE.write_text(report.page(results, weaknesses(DIRECTORY / f"{name}.json"), name))
    return 1 if report.broken(results) else 0


sys.exit(main(sys.argv[1:]))
