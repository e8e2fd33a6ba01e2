"""A sample of the fault matrix; `make faults` runs all of it, for half an hour."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from faults import cases as c
from faults.cases import Case, all_cases
from faults.world import alone_argv

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(300)]

SAMPLE = (
    Case("prepare", c.SOURCE, c.KILL),
    Case("copying", c.DESTINATION, c.KILL),
    Case("copying", c.DATA, c.RESET, round=1),
    Case("performed", c.CLIENT, c.KILL),
    Case("performed", c.BOTH, c.KILL, c.PERSISTENT, 2),
    Case("performed", c.SOURCE_QEMU, c.KILL, c.PERSISTENT, 2),
    Case("performed", c.TO_DESTINATION, c.DROP, round=1),
    Case("finished", c.TO_DESTINATION, c.CLOSE, round=1),
    Case("finished", c.SOURCE, c.FULL, c.PERSISTENT, 2),
    Case("confirm", c.CLIENT, c.KILL, round=1),
    Case("confirm", c.SOURCE, c.RESTART, c.PERSISTENT, 3),
    Case("moment", c.SOURCE, c.KILL, c.PERSISTENT, moment=24),
    Case("moment", c.DESTINATION, c.KILL, c.PLAIN, moment=20),
    Case("moment", c.DESTINATION, c.KILL, c.LEFT, moment=14),
    Case("performed", c.TO_DESTINATION, c.CLOSE, road=c.P2P, round=1),
    Case("finished", c.TO_DESTINATION, c.RESET, road=c.P2P, round=1),
    Case("copying", c.SOURCE, c.KILL, road=c.TUNNELLED),
    Case("copying", c.TO_DESTINATION, c.DROP, road=c.TUNNELLED),
    Case("finish", c.DESTINATION, c.KILL, road=c.TUNNELLED),
)


def test_a_sample_of_the_matrix() -> None:
    """One guest, one history, nothing left over, after each of them. (L1–L4)"""
    alone = alone_argv()
    argv = [*alone, sys.executable, "-m", "faults.worker", *(["--alone"] if alone else [])]
    repository = Path(__file__).parents[2]
    ran = subprocess.run(
        argv,
        input="".join(json.dumps(asdict(case)) + "\n" for case in SAMPLE),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=repository,
        env={**os.environ, "PYTHONPATH": f"{repository / 'tests'}:{repository}"},
    )
    results = {result["id"]: result for result in map(json.loads, ran.stdout.splitlines())}
    assert ran.returncode == 0, ran.stderr
    assert set(results) == {case.id for case in SAMPLE}
    problems = {id: result["problems"] for id, result in results.items() if result["problems"]}
    assert not problems
    reached = [result for result in results.values() if result["outcome"] != "not reached"]
    assert len(reached) >= len(SAMPLE) - 2
    assert {"source", "destination"} <= {result["outcome"] for result in reached}


def test_there_are_a_thousand_cases_and_each_has_a_name() -> None:
    every = all_cases(4)
    assert len(every) >= 1000
    assert len({case.id for case in every}) == len(every)
    assert {case.party for case in every} >= {c.CLIENT, c.GUARDIAN, c.QUESTION, c.BOTH}
    assert {case.id for case in SAMPLE} <= {case.id for case in every}
