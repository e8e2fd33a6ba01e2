"""What a definition may ask of the host beside QEMU, and isn't built: refused, never left out.

Shares, quotas and limits need control groups, static labels a security driver.
"""

from __future__ import annotations

from sterna.config.model import DomainDef
from sterna.config.model.tuning import Cputune, Memtune
from sterna.errors import ConfigUnsupported, NoNetwork

_NEED_CONTROL_GROUPS = (
    *("shares", "period", "quota", "global_period", "global_quota", "emulator_period"),
    *("emulator_quota", "iothread_period", "iothread_quota"),
)
_NOT_BUILT = {
    "emulatorsched": "emulatorsched",
    "vcpuscheds": "vcpusched",
    "iothreadscheds": "iothreadsched",
    "iothreadpins": "iothreadpin",
    "cachetunes": "cachetune",
    "memorytunes": "memorytune",
}


def refuse_unbuilt(definition: DomainDef) -> None:
    """Refuse what is understood in XML and not done around QEMU here.

    Raises:
        ConfigUnsupported: names the element.
        NoNetwork: an interface is of a network, and none is managed here.
    """
    for interface in definition.devices.interfaces:
        if interface.type == "network" and interface.source is not None:
            raise NoNetwork(f"no network with matching name '{interface.source.network}'")
    tune = definition.cputune or Cputune()
    asked = [f"<{name}>" for name in _NEED_CONTROL_GROUPS if getattr(tune, name) is not None]
    asked += [f"<{name}>" for field, name in _NOT_BUILT.items() if getattr(tune, field)]
    if definition.memtune not in (None, Memtune()):
        asked.append("<memtune>")
    if definition.blkiotune is not None and definition.blkiotune.elements:
        asked.append("<blkiotune>")
    if any(label.type == "static" for label in definition.seclabels):
        asked.append("<seclabel type='static'>")
    if asked:
        raise ConfigUnsupported(f"{asked[0]} is not supported")
