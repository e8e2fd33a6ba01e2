"""The observed command lines of tests/data/argv, in a form that can be compared."""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sterna.config.alias import assign_aliases
from sterna.config.document import parse_domain
from sterna.config.model import DomainDef
from sterna.qemu.argv import LaunchSpec, TapFds
from sterna.qemu.caps import CpuModel, Machine, QemuCaps

DATA = Path(__file__).parents[1] / "data" / "argv"
NOW = datetime.datetime(2026, 11, 23, 12, 0, 0, tzinfo=datetime.UTC)


def plain_caps(**changes: Any) -> QemuCaps:
    """A QEMU 7.2 of which nothing is known to be missing."""
    fields: dict[str, Any] = {
        "binary": "/usr/bin/qemu-system-x86_64",
        "version": (7, 2, 22),
        "package": "",
        "arch": "x86_64",
        "machines": (
            _machine("pc-i440fx-7.2", "pc"),
            _machine("pc-q35-7.2", "q35"),
            *(_machine(name, None) for name in ("isapc", "pc-i440fx-2.8", "pc-q35-4.2")),
        ),
        "devices": frozenset(),
        "objects": frozenset(),
        "cpus_tcg": (),
        "cpus_kvm": (),
        "host_features_tcg": frozenset({"pclmulqdq"}),
        "host_features_kvm": frozenset(),
        "expansions_tcg": {},
        "expansions_kvm": {},
        "migration_capabilities": frozenset(),
        "commands": frozenset({"query-vnc"}),
        "options": frozenset({"sandbox", "spice"}),
        "chardevs": frozenset(),
        "tpm_models": frozenset(),
        "tpm_types": frozenset(),
        "kvm_present": False,
        "kvm_usable": False,
    }
    return QemuCaps(**(fields | changes))


def cpu_model(name: str) -> CpuModel:
    return CpuModel(name, f"{name}-x86_64-cpu", (), True, False, False, None)


def _machine(name: str, alias: str | None) -> Machine:
    return Machine(name, alias, alias == "pc", 255, True, False, False, None, "pc.ram", True)


@dataclass(frozen=True)
class Case:
    """One observed start. `started` is false where only `domxml-to-native` was asked: there paths
    stand where a start passes descriptors."""

    name: str
    xml: str
    args: tuple[str, ...]
    started: bool
    now: datetime.datetime

    @property
    def definition(self) -> DomainDef:
        """As it ran. What was only asked about has no aliases yet."""
        d = parse_domain(self.xml)
        if not self.started:
            assign_aliases(d)
        return d

    def launch(self, d: DomainDef) -> LaunchSpec:
        """What the start had: descriptors for everything that takes them."""
        taps = {}
        for interface in d.devices.interfaces:
            if interface.alias is not None and interface.type in ("bridge", "ethernet"):
                queues = (interface.driver.queues if interface.driver else None) or 1
                taps[interface.alias] = TapFds(tuple(range(50, 50 + queues)))
        idents = [f"char{device.alias}" for device in d.all_devices() if device.alias]
        return LaunchSpec(
            monitor_fd=9,
            state_dir="/state",
            now=self.now,
            taps=taps,
            sockets=dict.fromkeys(idents, 10) if self.started else {},
            files=dict.fromkeys(idents, 11) if self.started else {},
            vhost_vsock_fd=12,
        )


def load(name: str) -> Case:
    lines = (DATA / f"{name}.args").read_text(encoding="utf-8").split("\n")[:-1]
    head = lines[0]
    found = re.search(r"now=(\S+)", head)
    now = datetime.datetime.fromisoformat(found[1]).replace(tzinfo=datetime.UTC) if found else NOW
    xml = (DATA / f"{name}.xml").read_text(encoding="utf-8")
    return Case(name, xml, tuple(lines[1:]), head.startswith("# started"), now)


def given(name: str) -> str:
    """The domain as a person wrote it, before libvirt completed it."""
    return (DATA / f"{name}.given.xml").read_text(encoding="utf-8")


def names_given() -> list[str]:
    return sorted(path.name.removesuffix(".given.xml") for path in DATA.glob("*.given.xml"))


def names() -> list[str]:
    return sorted(path.stem for path in DATA.glob("*.args"))


def comparable(args: tuple[str, ...] | list[str]) -> list[Any]:
    """Options as pairs of flag and value, JSON parsed, descriptors made equal.

    The secret that libvirt gives every guest ("masterKey0") is left out: it encrypts passwords
    on the command line, and we put none there.
    """
    options: list[Any] = []
    index = 1
    while index < len(args):
        flag = args[index]
        has_value = index + 1 < len(args) and not args[index + 1].startswith("-")
        value: Any = args[index + 1] if has_value else None
        index += 2 if has_value else 1
        if value is not None and "masterKey0" in value:
            continue
        if value is not None and value.startswith("{"):
            value = _without_descriptors(json.loads(value))
        elif value is not None:
            value = re.sub(r"\bfd=\d+", "fd=N", value)
            value = re.sub(r"(id=charmonitor),path=[^,]*", r"\1,fd=N", value)
        options.append((flag, value))
    return options


def _without_descriptors(value: dict[str, Any]) -> dict[str, Any]:
    for name in ("fd", "fds", "vhostfd", "vhostfds"):
        if name in value:
            value[name] = re.sub(r"-?\d+", "N", value[name])
    return value
