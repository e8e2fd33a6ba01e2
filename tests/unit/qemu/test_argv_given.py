"""From what a person writes to QEMU's arguments: the machine libvirt 9.0 would have started."""

from __future__ import annotations

import uuid

import pytest

from sterna.config.alias import assign_aliases
from sterna.config.caps import EmulatorFacts
from sterna.config.complete import complete
from sterna.config.document import parse_domain
from sterna.config.model import DomainDef
from sterna.qemu.argv import assign_node_indexes, build_argv
from support import argv_cases

MACHINES = ("pc-i440fx-7.2", "pc-q35-7.2", "isapc", "pc-i440fx-2.8", "pc-q35-4.2")
FACTS = EmulatorFacts(
    binary="/usr/bin/qemu-system-x86_64",
    version=(7, 2, 0),
    machines={**{name: name for name in MACHINES}, "pc": MACHINES[0], "q35": MACHINES[1]},
    default_machine=MACHINES[0],
    cpus_max=dict.fromkeys(MACHINES, 255),
    kvm=True,
)
NEW_MAC = "52:54:00:00:00:00"


def as_launched(d: DomainDef, live: DomainDef) -> None:
    """Write into a completed definition what the observed launch decided by itself."""
    for ours, theirs in zip(d.devices.graphics, live.devices.graphics, strict=True):
        ours.port, ours.websocket = theirs.port, theirs.websocket
        ours.listens, ours.socket = theirs.listens, theirs.socket
    for disk, observed in zip(d.devices.disks, live.devices.disks, strict=True):
        disk.backing = observed.backing
    for card, seen in zip(d.devices.interfaces, live.devices.interfaces, strict=True):
        card.mac = seen.mac if card.mac == NEW_MAC else card.mac
    for channel, found in zip(d.devices.channels, live.devices.channels, strict=True):
        if channel.type == "unix" and not channel.path:
            channel.sources = found.sources
    if d.os is not None and (d.os.firmware or d.os.loader):
        d.os, d.features = live.os, live.features  # which firmware: sterna.qemu.firmware


@pytest.mark.parametrize("name", argv_cases.names_given())
def test_same_machine_as_libvirt(name: str) -> None:
    case = argv_cases.load(name)
    d = parse_domain(argv_cases.given(name))
    complete(d, FACTS, new_uuid=uuid.uuid4, new_mac=lambda: NEW_MAC)
    as_launched(d, case.definition)
    assign_aliases(d)
    assign_node_indexes(d)
    ours = build_argv(d, argv_cases.plain_caps(), case.launch(d))
    assert argv_cases.comparable(ours.args) == argv_cases.comparable(case.args)
