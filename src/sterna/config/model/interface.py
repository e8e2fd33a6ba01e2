"""<interface>: network cards."""

from __future__ import annotations

from dataclasses import dataclass

from sterna.config.codec import Kept, Mode, at, child, children, kept
from sterna.config.model.address import BootDevice, HostPciAddress
from sterna.config.model.disk import Reconnect
from sterna.config.values import MAC, NAT, ON_OFF, YES_NO, one_of

GENERATED_TAPS = ("vnet", "macvtap", "macvlan")


def tap_shown(name: str, mode: Mode) -> bool:
    """Names given by the host belong to the running guest only (libvirt 9.0, observed)."""
    return not (mode.inactive and name.startswith(GENERATED_TAPS))


@dataclass(slots=True)
class BandwidthLimit:
    """KiB a second; burst in KiB."""

    average: int | None = at("@average", NAT)
    peak: int | None = at("@peak", NAT)
    floor: int | None = at("@floor", NAT)
    burst: int | None = at("@burst", NAT)


@dataclass(slots=True)
class Bandwidth:
    inbound: BandwidthLimit | None = child("inbound", BandwidthLimit)
    outbound: BandwidthLimit | None = child("outbound", BandwidthLimit)


@dataclass(slots=True)
class FilterParameter:
    name: str | None = at("@name")
    value: str | None = at("@value")


@dataclass(slots=True)
class Filterref:
    filter: str | None = at("@filter")
    parameters: list[FilterParameter] = children("parameter", FilterParameter)


@dataclass(slots=True)
class VlanTag:
    id: int | None = at("@id", NAT)
    native_mode: str | None = at("@nativeMode", one_of("tagged", "untagged"))


@dataclass(slots=True)
class Vlan:
    trunk: bool | None = at("@trunk", YES_NO)
    tags: list[VlanTag] = children("tag", VlanTag)


@dataclass(slots=True)
class InterfaceIp:
    address: str | None = at("@address")
    family: str | None = at("@family", one_of("ipv4", "ipv6"))
    prefix: int | None = at("@prefix", NAT)
    peer: str | None = at("@peer")


@dataclass(slots=True)
class InterfaceRoute:
    family: str | None = at("@family", one_of("ipv4", "ipv6"))
    address: str | None = at("@address")
    netmask: str | None = at("@netmask")
    prefix: int | None = at("@prefix", NAT)
    gateway: str | None = at("@gateway")
    metric: int | None = at("@metric", NAT)


@dataclass(slots=True)
class Virtualport:
    type: str | None = at("@type")
    managerid: str | None = at("parameters@managerid")
    typeid: str | None = at("parameters@typeid")
    typeidversion: str | None = at("parameters@typeidversion")
    instanceid: str | None = at("parameters@instanceid")
    interfaceid: str | None = at("parameters@interfaceid")
    profileid: str | None = at("parameters@profileid")


@dataclass(slots=True)
class InterfaceSource:
    network: str | None = at("@network")
    portid: str | None = at("@portid", when=lambda _v, mode: not mode.inactive)
    portgroup: str | None = at("@portgroup")
    bridge: str | None = at("@bridge")
    type: str | None = at("@type")
    path: str | None = at("@path")
    dev: str | None = at("@dev")
    mode: str | None = at("@mode")
    name: str | None = at("@name")
    switchid: str | None = at("@switchid")
    portgroupid: str | None = at("@portgroupid")
    connectionid: str | None = at("@connectionid")
    address: str | None = at("@address")
    port: int | None = at("@port", NAT)
    local_address: str | None = at("local@address")
    local_port: int | None = at("local@port", NAT)
    reconnect: Reconnect | None = child("reconnect", Reconnect)
    host_address: HostPciAddress | None = child("address", HostPciAddress)
    ips: list[InterfaceIp] = children("ip", InterfaceIp)
    routes: list[InterfaceRoute] = children("route", InterfaceRoute)


@dataclass(slots=True)
class HostOffloads:
    csum: bool | None = at("@csum", ON_OFF)
    gso: bool | None = at("@gso", ON_OFF)
    tso4: bool | None = at("@tso4", ON_OFF)
    tso6: bool | None = at("@tso6", ON_OFF)
    ecn: bool | None = at("@ecn", ON_OFF)
    ufo: bool | None = at("@ufo", ON_OFF)
    mrg_rxbuf: bool | None = at("@mrg_rxbuf", ON_OFF)


@dataclass(slots=True)
class GuestOffloads:
    csum: bool | None = at("@csum", ON_OFF)
    tso4: bool | None = at("@tso4", ON_OFF)
    tso6: bool | None = at("@tso6", ON_OFF)
    ecn: bool | None = at("@ecn", ON_OFF)
    ufo: bool | None = at("@ufo", ON_OFF)


@dataclass(slots=True)
class InterfaceDriver:
    name: str | None = at("@name", one_of("qemu", "vhost", "vfio"))
    txmode: str | None = at("@txmode", one_of("iothread", "timer"))
    ioeventfd: bool | None = at("@ioeventfd", ON_OFF)
    event_idx: bool | None = at("@event_idx", ON_OFF)
    queues: int | None = at("@queues", NAT)
    rx_queue_size: int | None = at("@rx_queue_size", NAT)
    tx_queue_size: int | None = at("@tx_queue_size", NAT)
    rss: bool | None = at("@rss", ON_OFF)
    rss_hash_report: bool | None = at("@rss_hash_report", ON_OFF)
    iommu: bool | None = at("@iommu", ON_OFF)
    ats: bool | None = at("@ats", ON_OFF)
    packed: bool | None = at("@packed", ON_OFF)
    page_per_vq: bool | None = at("@page_per_vq", ON_OFF)
    host: HostOffloads | None = child("host", HostOffloads)
    guest: GuestOffloads | None = child("guest", GuestOffloads)


@dataclass(slots=True)
class Interface(BootDevice):
    """A network card and what it is plugged into.

    `target` is the tap's name on the host; a name of the host's own making (vnet...) is forgotten
    in the inactive definition.
    """

    type: str = at(
        "@type",
        one_of(
            "user",
            "ethernet",
            "vhostuser",
            "server",
            "client",
            "mcast",
            "network",
            "bridge",
            "internal",
            "direct",
            "hostdev",
            "udp",
            "vdpa",
            "null",
            "vds",
        ),
        "user",
    )
    managed: bool | None = at("@managed", YES_NO)
    trust_guest_rx_filters: bool | None = at("@trustGuestRxFilters", YES_NO)
    mac: str | None = at("mac@address", MAC)
    mac_type: str | None = at("mac@type", one_of("generated", "static"))
    mac_check: bool | None = at("mac@check", YES_NO)
    source: InterfaceSource | None = child("source", InterfaceSource)
    isolated: bool | None = at("port@isolated", YES_NO)
    vlan: Vlan | None = child("vlan", Vlan)
    virtualport: Virtualport | None = child("virtualport", Virtualport)
    ips: list[InterfaceIp] = children("ip", InterfaceIp)
    routes: list[InterfaceRoute] = children("route", InterfaceRoute)
    bandwidth: Bandwidth | None = child("bandwidth", Bandwidth)
    script: str | None = at("script@path")
    downscript: str | None = at("downscript@path")
    backenddomain: Kept | None = kept("backenddomain")
    target: str | None = at("target@dev", when=tap_shown)
    target_managed: bool | None = at("target@managed", YES_NO)
    guest_dev: str | None = at("guest@dev")
    guest_actual: str | None = at("guest@actual")
    model: str | None = at("model@type")
    driver: InterfaceDriver | None = child("driver", InterfaceDriver)
    backend: Kept | None = kept("backend")
    filterref: Filterref | None = child("filterref", Filterref)
    sndbuf: int | None = at("tune/sndbuf", NAT)
    link_state: str | None = at("link@state", one_of("up", "down"))
    mtu: int | None = at("mtu@size", NAT)
    coalesce_rx_frames: int | None = at("coalesce/rx/frames@max", NAT)
    teaming_type: str | None = at("teaming@type", one_of("persistent", "transient"))
    teaming_persistent: str | None = at("teaming@persistent")
