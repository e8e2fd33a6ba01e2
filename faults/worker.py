"""`python -m faults.worker [--alone]`: reads cases, a line of JSON each; prints results, the same.

`--alone`: it has a network and a mount namespace of its own.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faults.cases import Case
from faults.flight import Flight, save
from faults.inject import Absent, Harm, inject
from faults.judge import judge
from faults.world import World

PAPERS = Path("build/faults/failed")


def run(world: World, case: Case) -> dict[str, Any]:
    """One case, from a fresh guest to nothing left."""
    result: dict[str, Any] = {"id": case.id, "case": asdict(case), "problems": []}
    world.reset()
    with Flight(world, case) as flight:
        began = time.monotonic()
        try:
            harm = _fly(flight)
        except Absent:
            return result | {"outcome": "not reached"}
        hurt = flight.hurt_at
        flight.gate.opened.set()
        time.sleep(max(0.0, hurt + harm.seconds - time.monotonic()))
        harm.heal()
        healed = time.monotonic()
        flight.hurry()
        judged = judge(flight)
        if judged.problems:
            save(flight, PAPERS / case.id.replace("/", "_"))
        told = flight.virsh.end()
    return result | {
        "outcome": judged.outcome,
        "problems": judged.problems,
        "settled_s": round(max(0.0, judged.settled_at - hurt), 3),
        "healed_s": round(healed - hurt, 3),
        "took_s": round(time.monotonic() - began, 1),
        "told": told,
    }


def _fly(flight: Flight) -> Harm:
    """Up to the fault, and do it."""
    if not flight.case.moment:
        flight.take_off()
        flight.hurt_at = time.monotonic()
        return inject(flight)
    died = flight.fly_to_death()
    if died is None:
        raise Absent
    flight.hurt_at = died
    host = flight.victim
    host.kill()  # it is dead: this only takes note of it
    return Harm(0.3, host.start)


def main(alone: bool) -> None:
    # However it is told to end, its hosts end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    world: World | None = None
    try:
        for line in sys.stdin:
            case = Case(**json.loads(line))
            try:
                world = world or World(alone=alone)
                result = run(world, case)
            except Exception:
                # One case that broke the world must not end the run; it counts as failed.
                result = {"id": case.id, "case": asdict(case), "outcome": "the test broke"}
                result["problems"] = [traceback.format_exc()]
            print(json.dumps(result), flush=True)
            if result["problems"] and world is not None:
                world.close()
                world = None
    finally:
        if world is not None:
            world.close()


if __name__ == "__main__":
    main("--alone" in sys.argv[1:])
