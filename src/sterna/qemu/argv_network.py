"""Network cards and what they are plugged into."""

from __future__ import annotations

from typing import Any

from sterna.config.model import Interface, InterfaceDriver, InterfaceSource
from sterna.errors import ConfigUnsupported
from sterna.qemu.argv_boot import BootOrder
from sterna.qemu.argv_build import (
    Build,
    dumps,
    escape,
    refuse,
    virtio_driver,
    virtio_options,
    without_none,
)

TAP_TYPES = ("bridge", "ethernet", "network", "direct")
"""Kinds of interface whose other end is a tap that the launcher opens."""

_SOCKETS = {"server": "listen", "client": "connect", "mcast": "mcast", "udp": "udp"}


def interfaces(build: Build, order: BootOrder) -> None:
    for interface in build.d.devices.interfaces:
        _refuse(interface)
        alias = build.alias(interface)
        build.opt("-netdev", dumps(_netdev(build, interface)))
        build.device(_card(build, interface, order))
        if interface.link_state == "down":
            build.qmp("set_link", name=alias, up=False)


def _refuse(interface: Interface) -> None:
    unsupported = {
        "<filterref>": interface.filterref,
        "<vlan>": interface.vlan,
        "<virtualport>": interface.virtualport,
        "<script>": interface.script,
        "<downscript>": interface.downscript,
        "<backend>": interface.backend,
        "<backenddomain>": interface.backenddomain,
        "<route>": interface.routes,
        "<teaming>": interface.teaming_type,
        "<port isolated='yes'>": interface.isolated,
        "<bandwidth>": interface.bandwidth,
        "<guest>": interface.guest_dev,
    }
    for what, present in unsupported.items():
        if present:
            raise refuse(f"{what} of interface '{interface.alias}'")
    if interface.ips and interface.type != "user":
        raise refuse(f"<ip> of interface type '{interface.type}'")


def host_id(alias: str) -> str:
    """Id of the netdev behind a card: "hostnet0" of "net0"; chosen names get it in front."""
    return f"host{alias}"


def _queues(interface: Interface) -> int:
    return interface.driver.queues or 1 if interface.driver is not None else 1


def _netdev(build: Build, interface: Interface) -> dict[str, Any]:
    alias = build.alias(interface)
    if interface.type == "user":
        node = _user(interface)
    elif interface.type in TAP_TYPES:
        node = _tap(build, interface)
    elif interface.type in _SOCKETS:
        node = _socket(interface)
    elif interface.type == "vhostuser":
        node = _vhostuser(build, interface)
    else:
        raise refuse(f"interface type '{interface.type}'")
    return node | {"id": host_id(alias)}


def _user(interface: Interface) -> dict[str, Any]:
    node: dict[str, Any] = {"type": "user"}
    for ip in interface.ips:
        if ip.family == "ipv6":
            node["ipv6-prefix"] = ip.address
            if ip.prefix is not None:
                node["ipv6-prefixlen"] = ip.prefix
        else:
            node["net"] = f"{ip.address}/{ip.prefix}" if ip.prefix is not None else ip.address
    return node


def _tap(build: Build, interface: Interface) -> dict[str, Any]:
    tap = build.launch.taps.get(build.alias(interface))
    if tap is None or len(tap.fds) != _queues(interface):
        raise refuse(
            f"interface '{interface.alias}' of type '{interface.type}': "
            f"it has no tap of {_queues(interface)} queues, so it"
        )
    fds = [str(build.pass_fd(fd)) for fd in tap.fds]
    node: dict[str, Any] = {"type": "tap"}
    node |= {"fd": fds[0]} if len(fds) == 1 else {"fds": ":".join(fds)}
    if tap.vhost_fds:
        vhosts = [str(build.pass_fd(fd)) for fd in tap.vhost_fds]
        node["vhost"] = True
        node |= {"vhostfd": vhosts[0]} if len(vhosts) == 1 else {"vhostfds": ":".join(vhosts)}
    elif build.kvm and interface.driver is not None and interface.driver.name == "vhost":
        # Without KVM libvirt leaves vhost out silently, asked for or not (9.0, observed).
        raise ConfigUnsupported(f"vhost-net is not available for interface '{interface.alias}'")
    if interface.sndbuf is not None:
        node["sndbuf"] = interface.sndbuf
    return node


def _socket(interface: Interface) -> dict[str, Any]:
    source = interface.source or InterfaceSource()
    kind = _SOCKETS[interface.type]
    node = {"type": "socket", kind: f"{source.address or ''}:{source.port}"}
    if kind == "udp":
        node["localaddr"] = f"{source.local_address or ''}:{source.local_port}"
    return node


def _vhostuser(build: Build, interface: Interface) -> dict[str, Any]:
    source = interface.source
    if source is None or source.type != "unix" or source.path is None:
        raise refuse("an interface of type 'vhostuser' without a unix socket")
    chardev = f"char{build.alias(interface)}"
    text = f"socket,id={chardev},path={escape(source.path)}"
    if source.mode == "server":
        text += ",server=on"
    elif source.reconnect is not None and source.reconnect.enabled:
        text += f",reconnect={source.reconnect.timeout or 0}"
    build.opt("-chardev", text)
    node: dict[str, Any] = {"type": "vhost-user", "chardev": chardev}
    if _queues(interface) > 1:
        node["queues"] = _queues(interface)
    return node


def _is_virtio(interface: Interface) -> bool:
    return (interface.model or "").startswith("virtio")


def _card(build: Build, interface: Interface, order: BootOrder) -> dict[str, Any]:
    properties: dict[str, Any] = {"driver": interface.model or "rtl8139"}
    if _is_virtio(interface):
        properties = _virtio_net(interface)
    elif interface.driver is not None and interface.driver != InterfaceDriver(
        name=interface.driver.name
    ):
        raise refuse(f"<driver> of interface model '{interface.model}'")
    if not build.has_device(properties["driver"]):
        raise ConfigUnsupported(
            f"interface model '{interface.model}' is not supported by this QEMU binary"
        )
    if interface.mtu is not None and _is_virtio(interface):
        properties["host_mtu"] = interface.mtu
    properties["netdev"] = host_id(build.alias(interface))
    properties["id"] = build.alias(interface)
    properties["mac"] = interface.mac
    index = order.of(interface)
    if index is not None:
        properties["bootindex"] = index
    properties |= build.anywhere(interface)
    if interface.rom_enabled is False:
        properties["romfile"] = ""
        return properties
    if interface.rom_bar is not None:
        properties["rombar"] = int(interface.rom_bar)
    if interface.rom_file is not None:
        properties["romfile"] = interface.rom_file
    return properties


_HOST_OFFLOADS = {
    "csum": "csum",
    "gso": "gso",
    "tso4": "host_tso4",
    "tso6": "host_tso6",
    "ecn": "host_ecn",
    "ufo": "host_ufo",
    "mrg_rxbuf": "mrg_rxbuf",
}
_GUEST_OFFLOADS = {
    "csum": "guest_csum",
    "tso4": "guest_tso4",
    "tso6": "guest_tso6",
    "ecn": "guest_ecn",
    "ufo": "guest_ufo",
}


def _virtio_net(interface: Interface) -> dict[str, Any]:
    properties: dict[str, Any] = {"driver": virtio_driver("virtio-net", interface.model)}
    driver = interface.driver
    if driver is None:
        return properties
    properties |= virtio_options(driver)
    if driver.txmode is not None:
        properties["tx"] = {"iothread": "bh", "timer": "timer"}[driver.txmode]
    properties |= without_none(ioeventfd=driver.ioeventfd, event_idx=driver.event_idx)
    for offloads, names in ((driver.host, _HOST_OFFLOADS), (driver.guest, _GUEST_OFFLOADS)):
        for field, name in names.items():
            value = getattr(offloads, field) if offloads is not None else None
            if value is not None:
                properties[name] = value
    queues = driver.queues or 1
    if queues > 1:
        # Two vectors a queue pair, one for configuration, one for control.
        properties |= {"mq": True, "vectors": 2 * queues + 2}
    properties |= without_none(
        rx_queue_size=driver.rx_queue_size,
        tx_queue_size=driver.tx_queue_size,
        rss=driver.rss,
        hash=driver.rss_hash_report,
    )
    return properties
