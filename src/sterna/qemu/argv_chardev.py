"""Character devices: host ends (-chardev), and serial, parallel, console and channel devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sterna.config.model import Chardev, CharSource, IsaAddress, Smartcard
from sterna.errors import ConfigUnsupported
from sterna.qemu.argv_boot import BootOrder
from sterna.qemu.argv_build import Build, dumps, escape, on_off, refuse


def chardev(
    build: Build,
    alias: str,
    kind: str,
    sources: Sequence[CharSource],
    *,
    protocol: str | None = None,
    log_file: str | None = None,
    log_append: bool | None = None,
    spice_name: str = "vdagent",
) -> str:
    """Append a -chardev for the device `alias`; returns its id.

    `spice_name` is what a spicevmc channel carries (vdagent, usbredir, smartcard).
    """
    ident = f"char{alias}"
    source = sources[0] if sources else CharSource()
    match kind:
        case "unix":
            parts = ["socket", f"id={ident}", *_unix(build, ident, source)]
        case "tcp":
            parts = ["socket", f"id={ident}", *_tcp(build, source, protocol)]
        case "udp":
            parts = ["udp", f"id={ident}", *_udp(sources)]
        case "file":
            parts = _file(build, ident, alias, source)
        case "spicevmc":
            parts = ["spicevmc", f"id={ident}", f"name={spice_name}"]
        case _:
            parts = _simple(ident, alias, kind, source)
    if log_file is not None:
        fd = build.launch.files.get(f"{ident}-log")
        path = log_file if fd is None else build.fdset(fd, f"{alias}-log")
        append = True if fd is not None else log_append
        parts.append(f"logfile={escape(path)}")
        if append is not None:
            parts.append(f"logappend={on_off(append)}")
    build.opt("-chardev", ",".join(parts))
    return ident


def _simple(ident: str, alias: str, kind: str, source: CharSource) -> list[str]:
    path = escape(source.path or "")
    match kind:
        case "null" | "pty" | "stdio" | "vc":
            return [kind, f"id={ident}"]
        case "dev":
            backend = "parallel" if alias.startswith("parallel") else "serial"
            return [backend, f"id={ident}", f"path={path}"]
        case "pipe":
            return ["pipe", f"id={ident}", f"path={path}"]
        case "spiceport":
            return ["spiceport", f"id={ident}", f"name={escape(source.channel or '')}"]
        case "qemu-vdagent":
            parts = ["qemu-vdagent", f"id={ident}", "name=vdagent"]
            if source.clipboard is not None:
                parts.append(f"clipboard={on_off(source.clipboard)}")
            if source.mouse is not None:
                parts.append(f"mouse={on_off(source.mouse == 'client')}")
            return parts
    raise refuse(f"character device type '{kind}'")


def _file(build: Build, ident: str, alias: str, source: CharSource) -> list[str]:
    fd = build.launch.files.get(ident)
    if fd is not None:
        # Opened by the daemon, who may write where QEMU's user may not; it truncated it or not.
        return ["file", f"id={ident}", f"path={build.fdset(fd, f'{alias}-source')}", "append=on"]
    parts = ["file", f"id={ident}", f"path={escape(source.path or '')}"]
    if source.append is not None:
        parts.append(f"append={on_off(source.append)}")
    return parts


def _reconnect(build: Build, source: CharSource) -> list[str]:
    reconnect = source.reconnect
    if reconnect is None or not reconnect.enabled:
        return []
    seconds = reconnect.timeout or 0
    if build.qemu_at_least(9, 2):
        return [f"reconnect-ms={seconds * 1000}"]
    return [f"reconnect={seconds}"]


def _unix(build: Build, ident: str, source: CharSource) -> list[str]:
    if source.path is None:
        raise refuse(f"a unix socket without a path for '{ident}'")
    if source.mode == "connect":
        return [f"path={escape(source.path)}", *_reconnect(build, source)]
    fd = build.launch.sockets.get(ident)
    place = f"path={escape(source.path)}" if fd is None else f"fd={build.pass_fd(fd)}"
    return [place, "server=on", "wait=off"]


def _tcp(build: Build, source: CharSource, protocol: str | None) -> list[str]:
    if source.tls or protocol in ("telnets", "tls"):
        raise refuse("TLS of a character device")
    parts = [f"host={escape(source.host or '')}", f"port={escape(source.service or '')}"]
    if protocol == "telnet":
        parts.append("telnet=on")
    if source.mode != "connect":
        return [*parts, "server=on", "wait=off"]
    return [*parts, *_reconnect(build, source)]


def _udp(sources: Sequence[CharSource]) -> list[str]:
    there = next((s for s in sources if s.mode == "connect"), CharSource())
    here = next((s for s in sources if s.mode == "bind"), None)
    parts = [f"host={escape(there.host or '')}", f"port={escape(there.service or '')}"]
    parts.append(f"localaddr={escape((here and here.host) or '')}")
    parts.append(f"localport={escape((here and here.service) or '0')}")
    return parts


def _host_end(build: Build, device: Chardev) -> str:
    return chardev(
        build,
        build.alias(device),
        device.type,
        device.sources,
        protocol=device.protocol,
        log_file=device.log_file,
        log_append=device.log_append,
    )


_SERIAL_DRIVERS = {
    "isa-serial": "isa-serial",
    "isa-serial/isa-serial": "isa-serial",
    "usb-serial": "usb-serial",
    "usb-serial/usb-serial": "usb-serial",
    "pci-serial": "pci-serial",
    "pci-serial/pci-serial": "pci-serial",
    "isa-debug/isa-debugcon": "isa-debugcon",
    "isa-debug": "isa-debugcon",
}


def serials(build: Build) -> None:
    for device in build.d.devices.serials:
        ident = _host_end(build, device)
        kind = device.target_type or "isa-serial"
        if device.target_model is not None:
            kind = f"{kind}/{device.target_model}"
        driver = _SERIAL_DRIVERS.get(kind)
        if driver is None:
            raise refuse(f"serial target '{kind}'")
        properties: dict[str, Any] = {
            "driver": driver,
            "chardev": ident,
            "id": build.alias(device),
        }
        if driver == "isa-serial":
            properties["index"] = device.port or 0
        if isinstance(device.address, IsaAddress):
            if device.address.iobase is not None:
                properties["iobase"] = device.address.iobase
            if device.address.irq is not None:
                properties["irq"] = device.address.irq
        else:
            properties |= build.anywhere(device)
        build.device(properties)


def parallels(build: Build) -> None:
    for device in build.d.devices.parallels:
        ident = _host_end(build, device)
        build.device({"driver": "isa-parallel", "chardev": ident, "id": build.alias(device)})


def consoles(build: Build) -> None:
    """Append virtio consoles. The first console of a serial target is serial 0 seen twice."""
    for number, device in enumerate(build.d.devices.consoles):
        match device.target_type:
            case "virtio":
                ident = _host_end(build, device)
                properties: dict[str, Any] = {"driver": "virtconsole"}
                properties |= build.virtio_serial(device)
                build.device(properties | {"chardev": ident, "id": build.alias(device)})
            case None | "serial" if number == 0 and build.d.devices.serials:
                continue
            case other:
                raise refuse(f"console target '{other}'")


def channels(build: Build) -> None:
    for device in build.d.devices.channels:
        match device.target_type:
            case "virtio":
                _virtio_channel(build, device)
            case "guestfwd":
                _guestfwd(build, device)
            case other:
                raise refuse(f"channel target '{other}'")


def _virtio_channel(build: Build, device: Chardev) -> None:
    if device.type == "spicevmc" and device.target_name not in (None, "com.redhat.spice.0"):
        raise ConfigUnsupported(f"Unsupported spicevmc target name '{device.target_name}'")
    ident = _host_end(build, device)
    properties: dict[str, Any] = {"driver": "virtserialport"}
    properties |= build.virtio_serial(device)
    properties |= {"chardev": ident, "id": build.alias(device)}
    if device.target_name is not None:
        properties["name"] = device.target_name
    build.device(properties)


def _guestfwd(build: Build, device: Chardev) -> None:
    ident = _host_end(build, device)
    place = f"tcp:{device.target_address}:{device.target_port}"
    build.opt(
        "-netdev",
        dumps(
            {
                "type": "user",
                "guestfwd": [{"str": f"{place}-chardev:{ident}"}],
                "id": build.alias(device),
            }
        ),
    )


def smartcards(build: Build) -> None:
    for device in build.d.devices.smartcards:
        build.device(_smartcard(build, device))


def _smartcard(build: Build, device: Smartcard) -> dict[str, Any]:
    alias = build.alias(device)
    match device.mode:
        case "host":
            properties: dict[str, Any] = {"driver": "ccid-card-emulated", "backend": "nss-emulated"}
        case "host-certificates":
            if len(device.certificates) != 3:
                raise ConfigUnsupported("a smartcard of certificates needs three of them")
            properties = {"driver": "ccid-card-emulated", "backend": "certificates"}
            for number, certificate in enumerate(device.certificates, 1):
                properties[f"cert{number}"] = certificate
            properties["db"] = device.database or "/etc/pki/nssdb"
        case _:
            ident = chardev(
                build,
                alias,
                device.type or "spicevmc",
                device.sources,
                protocol=device.protocol,
                spice_name="smartcard",
            )
            properties = {"driver": "ccid-card-passthru", "chardev": ident}
    return properties | {"id": alias} | build.ccid(device)


def redirdevs(build: Build, order: BootOrder) -> None:
    devices = build.d.devices
    if devices.redirfilter is not None and devices.redirdevs:
        raise refuse("<redirfilter>")
    for device in devices.redirdevs:
        alias = build.alias(device)
        ident = chardev(
            build,
            alias,
            device.type,
            device.sources,
            protocol=device.protocol,
            spice_name="usbredir",
        )
        properties: dict[str, Any] = {"driver": "usb-redir", "chardev": ident, "id": alias}
        index = order.of(device)
        if index is not None:
            properties["bootindex"] = index
        build.device(properties | build.usb(device))
