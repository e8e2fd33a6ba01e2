"""The sheet on which QEMU's command line is written, and the words all its parts share."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sterna.config.model import (
    CcidAddress,
    Controller,
    Device,
    DomainDef,
    PciAddress,
    QemuProperty,
    UsbAddress,
    VirtioSerialAddress,
)
from sterna.errors import ConfigUnsupported, InternalError
from sterna.qemu.caps import Machine, QemuCaps


@dataclass(frozen=True, slots=True)
class TapFds:
    """Open taps of one interface, one a queue, and as many vhost descriptors, or none."""

    fds: tuple[int, ...]
    vhost_fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """What a start decides beyond the definition. Descriptors are numbers QEMU inherits.

    monitor_fd: a listening Unix socket.
    state_dir: this guest's own directory, for the sockets whose path nobody chose.
    now: the wall clock in UTC, for clocks with an offset.
    incoming: QEMU waits for a migration; `migrate-incoming` says later where from.
    taps: by interface alias.
    sockets: listening Unix sockets by chardev id ("charserial0"); without one QEMU binds the
        path itself.
    files: files open for appending by chardev id, and logs by "<chardev id>-log"; without one
        QEMU opens the path itself.
    vhost_vsock_fd: an open /dev/vhost-vsock whose CID was set.
    sandbox: whether -sandbox is given.
    """

    monitor_fd: int
    state_dir: str
    now: datetime.datetime
    incoming: bool = False
    taps: Mapping[str, TapFds] = field(default_factory=dict)
    sockets: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    vhost_vsock_fd: int | None = None
    sandbox: bool = True


@dataclass(frozen=True, slots=True)
class QmpCall:
    """A command to run over QMP."""

    command: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Argv:
    """A start, decided: the command line, and what belongs to it.

    args: the program and its arguments.
    pass_fds: descriptors it names.
    environment: what <qemu:env> and the clock's time zone ask for, beside the usual.
    setup: QMP commands to run once, in order, before the guest's CPUs start: what the command
        line cannot say (passwords, throttling, balloon, link state).
    directories: must exist, writable for QEMU, before it starts.
    """

    args: tuple[str, ...]
    pass_fds: tuple[int, ...]
    environment: Mapping[str, str]
    setup: tuple[QmpCall, ...]
    directories: frozenset[str]


_ALIASES = {"ahci": "ich9-ahci", "lsi": "lsi53c895a"}
"""Names -device takes that are not names of QEMU's types (QEMU 7.2, -device help)."""


def escape(value: str) -> str:
    """A value within a comma-separated option: commas are doubled (QEMU's QemuOpts)."""
    return value.replace(",", ",,")


_PLAIN = re.compile(r"[A-Za-z0-9_.:+-]+")


def plain_word(text: str, what: str) -> str:
    """A word that goes into an option as it is: it must not end it and begin another.

    Raises: ConfigUnsupported.
    """
    if not _PLAIN.fullmatch(text):
        raise ConfigUnsupported(f"invalid {what} '{text}'")
    return text


def on_off(value: bool) -> str:
    return "on" if value else "off"


def dumps(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def without_none(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def refuse(what: str) -> ConfigUnsupported:
    """The error for what is understood but cannot be given to QEMU (yet)."""
    return ConfigUnsupported(f"{what} is not supported")


class Build:
    """Collects one command line. The parts append to it in libvirt's order."""

    def __init__(self, d: DomainDef, caps: QemuCaps, launch: LaunchSpec) -> None:
        self.d = d
        self.caps = caps
        self.launch = launch
        self.args: list[str] = []
        self.fds: list[int] = []
        self.environment: dict[str, str] = {}
        self.setup: list[QmpCall] = []
        self.directories: set[str] = set()
        self.fdsets = 0
        if d.os is None or d.os.machine is None:
            raise InternalError("a definition without a machine type was not completed")
        self.machine_type: str = d.os.machine
        self.machine: Machine | None = caps.machines_by_name.get(self.machine_type)
        if self.machine is None and caps.machines:
            raise ConfigUnsupported(
                f"Emulator '{caps.binary}' does not support machine type '{self.machine_type}'"
            )
        self.overrides = _overrides(d)

    @property
    def kvm(self) -> bool:
        return self.d.type == "kvm"

    @property
    def is_q35(self) -> bool:
        return self.machine_type == "q35" or self.machine_type.startswith("pc-q35-")

    @property
    def is_i440fx(self) -> bool:
        return self.machine_type in ("pc", "pc-i440fx") or (
            self.machine_type.startswith(("pc-i440fx-", "pc-0.", "pc-1."))
        )

    def qemu_at_least(self, *version: int) -> bool:
        return self.caps.version >= version

    def opt(self, flag: str, value: str | None = None) -> None:
        self.args.append(flag)
        if value is not None:
            self.args.append(value)

    def device(self, properties: dict[str, Any]) -> None:
        """-device in JSON. What <qemu:override> sets for its alias wins."""
        for name, value in self.overrides.get(str(properties.get("id")), {}).items():
            if value is None:
                properties.pop(name, None)
            else:
                properties[name] = value
        self.opt("-device", dumps(properties))

    def object(self, properties: dict[str, Any]) -> None:
        self.opt("-object", dumps(properties))

    def pass_fd(self, fd: int) -> int:
        self.fds.append(fd)
        return fd

    def fdset(self, fd: int, purpose: str) -> str:
        """Hand over an open file; returns the path by which QEMU's options name it."""
        number = self.fdsets
        self.fdsets += 1
        self.opt("-add-fd", f"set={number},fd={self.pass_fd(fd)},opaque={purpose}")
        return f"/dev/fdset/{number}"

    def qmp(self, command: str, /, **arguments: Any) -> None:
        self.setup.append(QmpCall(command, arguments))

    def has_device(self, driver: str) -> bool:
        """Whether this QEMU has a device; true where its devices are unknown."""
        devices = self.caps.devices
        return not devices or driver in devices or _ALIASES.get(driver) in devices

    # -- where devices sit --------------------------------------------------------------------

    def controller(self, kind: str, index: int) -> Controller:
        for controller in self.d.devices.controllers:
            if controller.type == kind and (controller.index or 0) == index:
                return controller
        raise ConfigUnsupported(f"there is no {kind} controller with index {index}")

    def alias(self, device: Device) -> str:
        if device.alias is None:
            raise InternalError("a device without an alias: the definition was not prepared")
        return plain_word(device.alias, "device alias")

    def pci(self, device: Device) -> dict[str, Any]:
        """bus and addr of a device that must sit on PCI."""
        address = device.address
        if not isinstance(address, PciAddress):
            raise refuse(f"device '{device.alias}' without a PCI address")
        if address.domain:
            raise refuse("a PCI address in a domain other than 0")
        place = f"0x{address.slot:x}"
        if address.function:
            place += f".0x{address.function:x}"
        result: dict[str, Any] = {"bus": self._pci_bus(address.bus)}
        if address.multifunction is not None:
            result["multifunction"] = address.multifunction
        result["addr"] = place
        if device.acpi_index is not None:
            result["acpi-index"] = device.acpi_index
        return result

    def _pci_bus(self, index: int) -> str:
        if index == 0 and self.is_q35:
            return "pcie.0"
        if index == 0:
            return "pci.0"
        return self.alias(self.controller("pci", index))

    def usb(self, device: Device) -> dict[str, Any]:
        address = device.address
        if not isinstance(address, UsbAddress) or address.port is None:
            raise refuse(f"device '{device.alias}' without a USB address")
        bus = self.alias(self.controller("usb", address.bus))
        return {"bus": f"{bus}.0", "port": address.port}

    def virtio_serial(self, device: Device) -> dict[str, Any]:
        address = device.address
        if address is None:
            return {}
        if not isinstance(address, VirtioSerialAddress):
            raise refuse(f"device '{device.alias}' without a virtio-serial address")
        if not address.port:
            return {}
        bus = self.alias(self.controller("virtio-serial", address.controller))
        return {"bus": f"{bus}.{address.bus}", "nr": address.port}

    def ccid(self, device: Device) -> dict[str, Any]:
        address = device.address
        if not isinstance(address, CcidAddress):
            raise refuse(f"device '{device.alias}' without a ccid address")
        bus = self.alias(self.controller("ccid", address.controller))
        return {"bus": f"{bus}.0"}

    def anywhere(self, device: Device) -> dict[str, Any]:
        """Where a device sits, whatever kind of address it has; nothing if it has none."""
        if isinstance(device.address, PciAddress):
            return self.pci(device)
        if isinstance(device.address, UsbAddress):
            return self.usb(device)
        if device.address is not None:
            raise refuse(f"an address of type '{device.address.type}' for '{device.alias}'")
        return {}


def virtio_driver(base: str, model: str | None) -> str:
    """QEMU's PCI device of a virtio device: "virtio-net" + transitional and the like."""
    suffix = {
        None: "",
        "virtio": "",
        "virtio-transitional": "-transitional",
        "virtio-non-transitional": "-non-transitional",
    }.get(model)
    if suffix is None:
        raise refuse(f"model '{model}' of {base}")
    return f"{base}-pci{suffix}"


def virtio_options(driver: Any) -> dict[str, Any]:
    """The <driver> switches that every virtio device has."""
    if driver is None:
        return {}
    return without_none(
        iommu_platform=driver.iommu,
        ats=driver.ats,
        packed=driver.packed,
        **{"page-per-vq": driver.page_per_vq},
    )


def _overrides(d: DomainDef) -> dict[str, dict[str, Any]]:
    """Properties from <qemu:override> by alias; None removes one."""
    result: dict[str, dict[str, Any]] = {}
    for device in d.qemu_override.devices if d.qemu_override else []:
        properties = result.setdefault(device.alias or "", {})
        for item in device.properties:
            properties[item.name or ""] = _override_value(item)
    return result


def _override_value(item: QemuProperty) -> Any:
    value = item.value or ""
    try:
        match item.type:
            case "signed" | "unsigned":
                return int(value)
            case "bool":
                return {"true": True, "false": False}[value]
            case "remove":
                return None
            case _:
                return value
    except (ValueError, KeyError):
        raise ConfigUnsupported(
            f"invalid value '{value}' of overridden property '{item.name}'"
        ) from None
