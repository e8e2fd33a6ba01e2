"""Our test machines and what libvirt 9.0 made of them (see oracle_domains.py)."""

from __future__ import annotations

import functools
import json
import re
import uuid as uuidlib
from pathlib import Path
from typing import Any

from sterna.config import EmulatorFacts, check, complete, parse_domain
from sterna.config.model import DomainDef

DATA = Path(__file__).resolve().parent.parent / "data" / "domains"
SOME_UUID = uuidlib.UUID("11111111-2222-4333-8444-555555555555")

MACHINES = {
    "pc": "pc-i440fx-7.2", "q35": "pc-q35-7.2", "pc-i440fx-7.2": "pc-i440fx-7.2",
    "pc-q35-7.2": "pc-q35-7.2", "pc-i440fx-5.2": "pc-i440fx-5.2", "pc-q35-7.1": "pc-q35-7.1",
}  # fmt: skip

FACTS = EmulatorFacts(
    binary="/usr/bin/qemu-system-x86_64",
    version=(7, 2, 22),
    machines=MACHINES,
    default_machine="pc",
    cpus_max={"pc-i440fx-7.2": 255, "pc-q35-7.2": 288},
)


def names(kind: str) -> list[str]:
    """Machines for which there is a recorded text of this kind."""
    return sorted(path.stem for path in (DATA / kind).iterdir())


def text(kind: str, name: str) -> str:
    suffix = "txt" if kind == "refused" else "xml"
    return (DATA / kind / f"{name}.{suffix}").read_text()


@functools.cache
def small() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((DATA / "small.json").read_text())
    return cases


def completed(xml: str, recorded: str = "", facts: EmulatorFacts = FACTS) -> DomainDef:
    """Read, complete and check as `define` does, with the random values libvirt drew."""
    d = parse_domain(xml)
    given = {nic.mac for nic in d.devices.interfaces if nic.mac is not None}
    drawn = iter([m for m in re.findall(r"<mac address='([^']+)'", recorded) if m not in given])
    uuids = re.search(r"<uuid>([^<]+)</uuid>", recorded)
    genid = re.search(r"<genid>([^<]+)</genid>", recorded)
    pool = [match[1] for match in (genid if d.uuid else uuids, genid) if match]
    values = iter(pool)
    complete(
        d,
        facts,
        new_uuid=lambda: uuidlib.UUID(next(values, str(SOME_UUID))),
        new_mac=lambda: next(drawn, "52:54:00:00:00:01"),
    )
    check(d, facts)
    return d
