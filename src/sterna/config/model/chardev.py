"""Character devices: serial, parallel, console, channel; and smartcard, redirdev, rng backends."""

from __future__ import annotations

from dataclasses import dataclass

from sterna.config.codec import at, child, children, live_only, status_only, texts
from sterna.config.model.address import BootDevice, Device
from sterna.config.model.disk import Reconnect, Seclabel
from sterna.config.values import NAT, ON_OFF, YES_NO, one_of
from sterna.errors import XmlError

CHARDEV_TYPES = one_of(
    "null", "vc", "pty", "dev", "file", "pipe", "stdio", "udp", "tcp", "unix", "spicevmc",
    "spiceport", "nmdm", "qemu-vdagent", "dbus",
    unknown="unknown type presented to host for character device: {}",
)  # fmt: skip


@dataclass(slots=True)
class CharSource:
    """The host's end. Which fields count depends on the device's `type`."""

    channel: str | None = at("@channel")
    mode: str | None = at("@mode", one_of("bind", "connect"))
    path: str | None = at("@path")
    host: str | None = at("@host")
    service: str | None = at("@service")
    tls: bool | None = at("@tls", YES_NO)
    append: bool | None = at("@append", ON_OFF)
    master: str | None = at("@master")
    slave: str | None = at("@slave")
    reconnect: Reconnect | None = child("reconnect", Reconnect)
    seclabels: list[Seclabel] = children("seclabel", Seclabel)
    # Set by the host's configuration, so not part of the definition.
    tls_from_host: bool | None = at("@tlsFromConfig", YES_NO, when=status_only)
    clipboard: bool | None = at("clipboard@copypaste", YES_NO)
    mouse: str | None = at("mouse@mode", one_of("server", "client"))


@dataclass(slots=True)
class Chardev(Device):
    """Serial, parallel, console or channel, told apart by the list it is in.

    `type` is what is behind it on the host; udp has two sources (bind and connect), others one.
    """

    type: str = at("@type", CHARDEV_TYPES, "pty")
    tty: str | None = at("@tty", when=live_only)
    sources: list[CharSource] = children("source", CharSource)
    protocol: str | None = at("protocol@type", one_of("raw", "telnet", "telnets", "tls"))
    log_file: str | None = at("log@file")
    log_append: bool | None = at("log@append", ON_OFF)
    target_type: str | None = at("target@type")
    target_name: str | None = at("target@name")
    target_state: str | None = at("target@state", when=live_only)
    target_address: str | None = at("target@address")
    target_port: str | None = at("target@port")
    target_model: str | None = at("target/model@name")

    @property
    def source(self) -> CharSource | None:
        return self.sources[0] if self.sources else None

    @property
    def path(self) -> str | None:
        return self.sources[0].path if self.sources else None

    @property
    def port(self) -> int | None:
        """The target's port as a number (guestfwd channels have other targets)."""
        if self.target_port is None:
            return None
        try:
            number: int = NAT.parse(self.target_port)
        except ValueError as why:
            raise XmlError(
                "Invalid value for attribute 'port' in element 'target': "
                f"'{self.target_port}'. {why}"
            ) from None
        return number

    @port.setter
    def port(self, number: int) -> None:
        self.target_port = str(number)


@dataclass(slots=True)
class Smartcard(Device):
    """A smartcard reader: host, host-certificates (three files) or passthrough of a chardev."""

    mode: str = at("@mode", one_of("host", "host-certificates", "passthrough"), "host")
    type: str | None = at("@type", CHARDEV_TYPES)
    certificates: list[str] = texts("certificate")
    database: str | None = at("database")
    sources: list[CharSource] = children("source", CharSource)
    protocol: str | None = at("protocol@type", one_of("raw", "telnet", "telnets", "tls"))


@dataclass(slots=True)
class Redirdev(BootDevice):
    """A USB device redirected from a client."""

    bus: str = at("@bus", one_of("usb"), "usb")
    type: str = at("@type", CHARDEV_TYPES, "")
    sources: list[CharSource] = children("source", CharSource)
    protocol: str | None = at("protocol@type", one_of("raw", "telnet", "telnets", "tls"))


@dataclass(slots=True)
class RedirFilterRule:
    usb_class: str | None = at("@class")
    vendor: str | None = at("@vendor")
    product: str | None = at("@product")
    version: str | None = at("@version")
    allow: bool = at("@allow", YES_NO, False)


@dataclass(slots=True)
class RedirFilter:
    rules: list[RedirFilterRule] = children("usbdev", RedirFilterRule)


@dataclass(slots=True)
class VirtioDriver:
    """Options every virtio device takes."""

    iommu: bool | None = at("@iommu", ON_OFF)
    ats: bool | None = at("@ats", ON_OFF)
    packed: bool | None = at("@packed", ON_OFF)
    page_per_vq: bool | None = at("@page_per_vq", ON_OFF)


@dataclass(slots=True)
class RngBackend:
    """`random` has a path as text, `egd` a chardev, `builtin` nothing."""

    model: str = at("@model", one_of("random", "egd", "builtin"), "")
    type: str | None = at("@type", CHARDEV_TYPES)
    path: str | None = at(".")
    sources: list[CharSource] = children("source", CharSource)
    protocol: str | None = at("protocol@type", one_of("raw", "telnet", "telnets", "tls"))


@dataclass(slots=True)
class Rng(Device):
    """A source of randomness for the guest; the rate is bytes in a period of ms."""

    model: str = at(
        "@model",
        one_of(
            "virtio",
            "virtio-transitional",
            "virtio-non-transitional",
            unknown="unknown RNG model '{}'",
        ),
        "",
    )
    rate_bytes: int | None = at("rate@bytes", NAT)
    rate_period: int | None = at("rate@period", NAT)
    backend: RngBackend | None = child("backend", RngBackend)
    driver: VirtioDriver | None = child("driver", VirtioDriver)
