"""The smaller devices: balloon, watchdog, rng, panic, shared memory, 9p, vsock, host devices."""

from __future__ import annotations

from typing import Any

from sterna.config.model import Filesystem, Hostdev, HostdevSource, IsaAddress, Rng, VirtioDriver
from sterna.config.values import size_bytes
from sterna.qemu.argv_boot import BootOrder
from sterna.qemu.argv_build import (
    Build,
    escape,
    plain_word,
    refuse,
    virtio_driver,
    virtio_options,
    without_none,
)
from sterna.qemu.argv_chardev import chardev


def refuse_unknown(build: Build) -> None:
    """Name whole elements that are understood in XML but have no arguments here."""
    d = build.d
    os = d.os
    unsupported = {
        "<launchSecurity>": d.launch_security,
        "<keywrap>": d.keywrap,
        "<perf>": d.perf,
        "<bootloader>": d.bootloader,
        "<lease>": d.devices.leases,
        "<nvram> as a device": d.devices.nvram,
        "<crypto>": d.devices.cryptos,
        "<tpm>": d.devices.tpms,
        "<qemu:capabilities>": d.qemu_capabilities,
        "<qemu:deprecation>": d.qemu_deprecation,
        "<init>": os.init if os is not None else None,
    }
    features = d.features
    if features is not None:
        unsupported |= {
            f"feature <{name}>": getattr(features, field)
            for name, field in (
                ("hap", "hap"),
                ("viridian", "viridian"),
                ("privnet", "privnet"),
                ("xen", "xen"),
                ("gic", "gic"),
                ("capabilities", "capabilities"),
                ("hpt", "hpt"),
                ("htm", "htm"),
                ("nested-hv", "nested_hv"),
                ("msrs", "msrs_unknown"),
                ("ccf-assist", "ccf_assist"),
                ("cfpc", "cfpc"),
                ("sbbc", "sbbc"),
                ("ibs", "ibs"),
                ("async-teardown", "async_teardown"),
            )
        }
    for what, present in unsupported.items():
        if present:
            raise refuse(what)


def filesystems(build: Build) -> None:
    for device in build.d.devices.filesystems:
        _filesystem(build, device)


def _filesystem(build: Build, device: Filesystem) -> None:
    driver = device.driver.type if device.driver is not None else None
    if device.type != "mount" or driver not in (None, "path"):
        raise refuse(f"filesystem type '{device.type}' with driver '{driver}'")
    if device.source is None or device.source.dir is None or device.target is None:
        raise refuse("a filesystem without source or target")
    alias = build.alias(device)
    # "none" is QEMU's word for squash: as passthrough, but failures to change owners are ignored.
    model = {
        "passthrough": "passthrough",
        "mapped": "mapped",
        "squash": "none",
        None: "passthrough",
    }
    parts = ["local", f"security_model={model[device.accessmode]}"]
    if device.driver is not None and device.driver.wrpolicy == "immediate":
        parts.append("writeout=immediate")
    if device.multidevs not in (None, "default"):
        parts.append(f"multidevs={device.multidevs}")
    for name, mode in (("fmode", device.fmode), ("dmode", device.dmode)):
        if mode is not None:
            parts.append(f"{name}={plain_word(mode, name)}")
    parts += [f"id=fsdev-{alias}", f"path={escape(device.source.dir)}"]
    if device.readonly:
        parts.append("readonly")
    build.opt("-fsdev", ",".join(parts))
    properties: dict[str, Any] = {"driver": virtio_driver("virtio-9p", device.model)}
    properties |= virtio_options(device.driver)
    properties |= {"id": alias, "fsdev": f"fsdev-{alias}", "mount_tag": device.target}
    build.device(properties | build.pci(device))


def watchdogs(build: Build) -> None:
    """Append the watchdog, and what it does. A dump is ours to make: QEMU only pauses."""
    for device in build.d.devices.watchdogs:
        if device.model not in ("i6300esb", "ib700"):
            raise refuse(f"watchdog model '{device.model}'")
        properties: dict[str, Any] = {"driver": device.model, "id": build.alias(device)}
        if device.model == "i6300esb":
            properties |= build.pci(device)
        build.device(properties)
    actions = {device.action or "reset" for device in build.d.devices.watchdogs}
    if len(actions) > 1:
        raise refuse("several watchdogs with different actions")
    for action in actions:
        build.opt("-watchdog-action", "pause" if action == "dump" else action)


def hostdevs(build: Build, order: BootOrder) -> None:
    for device in build.d.devices.hostdevs:
        if device.mode != "subsystem":
            raise refuse(f"hostdev mode '{device.mode}'")
        build.device(_hostdev(build, device, order))


def _hostdev(build: Build, device: Hostdev, order: BootOrder) -> dict[str, Any]:
    source = device.source or HostdevSource()
    address = source.address
    if device.managed:
        raise refuse("a managed hostdev: give the device to vfio first; it")
    match device.type:
        case "pci" if address is not None and device.driver in (None, "vfio"):
            place = (
                f"{address.domain or 0:04x}:{address.bus_number:02x}:"
                f"{address.slot or 0:02x}.{address.function or 0:x}"
            )
            properties: dict[str, Any] = {"driver": "vfio-pci", "host": place}
            where = build.pci(device)
        case "usb" if address is not None and address.device is not None:
            path = f"/dev/bus/usb/{address.bus_number:03d}/{address.device:03d}"
            properties = {"driver": "usb-host", "hostdevice": path}
            where = build.usb(device)
        case _:
            raise refuse(f"hostdev type '{device.type}'")
    properties["id"] = build.alias(device)
    index = order.of(device)
    if index is not None:
        properties["bootindex"] = index
    properties |= where
    if device.rom_bar is not None:
        properties["rombar"] = int(device.rom_bar)
    if device.rom_file is not None:
        properties["romfile"] = device.rom_file
    return properties


def balloon(build: Build) -> None:
    device = build.d.devices.memballoon
    if device is None or device.model == "none":
        return
    properties: dict[str, Any] = {"driver": virtio_driver("virtio-balloon", device.model)}
    properties |= virtio_options(device.driver)
    properties["id"] = build.alias(device)
    properties |= build.pci(device)
    properties |= without_none(
        **{
            "deflate-on-oom": device.autodeflate,
            "free-page-reporting": device.free_page_reporting,
        }
    )
    build.device(properties)
    if device.stats_period:
        build.qmp(
            "qom-set",
            path=f"/machine/peripheral/{device.alias}",
            property="guest-stats-polling-interval",
            value=device.stats_period,
        )


def balloon_target(build: Build) -> None:
    """The guest starts with its current memory, not with all it may have."""
    d = build.d
    device = d.devices.memballoon
    if device is None or device.model == "none" or build.launch.incoming:
        return
    if d.current_memory is not None and d.memory is not None and d.current_memory < d.memory:
        build.qmp("balloon", value=d.current_memory * 1024)


def rngs(build: Build) -> None:
    for device in build.d.devices.rngs:
        _rng(build, device)


def _rng(build: Build, device: Rng) -> None:
    alias = build.alias(device)
    backend = device.backend
    ident = f"obj{alias}"
    if backend is None or backend.model == "random":
        path = (backend.path if backend is not None else None) or "/dev/urandom"
        build.object({"qom-type": "rng-random", "id": ident, "filename": path})
    elif backend.model == "builtin":
        build.object({"qom-type": "rng-builtin", "id": ident})
    else:
        char = chardev(
            build, alias, backend.type or "udp", backend.sources, protocol=backend.protocol
        )
        build.object({"qom-type": "rng-egd", "id": ident, "chardev": char})
    properties: dict[str, Any] = {"driver": virtio_driver("virtio-rng", device.model)}
    properties |= virtio_options(device.driver)
    properties |= {"rng": ident, "id": alias}
    if device.rate_bytes is not None:
        properties["max-bytes"] = device.rate_bytes
        properties["period"] = 1000 if device.rate_period is None else device.rate_period
    build.device(properties | build.pci(device))


def vmcoreinfo(build: Build) -> None:
    switch = build.d.features.vmcoreinfo if build.d.features else None
    if switch is not None and switch.state is not False:
        build.device({"driver": "vmcoreinfo"})


def panics(build: Build) -> None:
    """Append pvpanic. Hyper-V's way is a feature of the CPU."""
    for device in build.d.devices.panics:
        if device.model not in (None, "default", "isa", "hyperv"):
            raise refuse(f"panic device model '{device.model}'")
        if device.model == "hyperv":
            continue
        properties: dict[str, Any] = {"driver": "pvpanic"}
        if isinstance(device.address, IsaAddress) and device.address.iobase is not None:
            properties["ioport"] = device.address.iobase
        build.device(properties)


def shmems(build: Build) -> None:
    for device in build.d.devices.shmems:
        if device.model != "ivshmem-plain" or device.server is not None:
            raise refuse(f"shared memory model '{device.model}'")
        alias = build.alias(device)
        size = size_bytes(device.size_text or "4", device.size_unit, "M")
        build.object(
            {
                "qom-type": "memory-backend-file",
                "id": f"shmmem-{alias}",
                "mem-path": f"/dev/shm/{device.name}",  # noqa: S108 - libvirt's place, shared by name
                "size": size,
                "share": True,
            }
        )
        properties: dict[str, Any] = {
            "driver": "ivshmem-plain",
            "id": alias,
            "memdev": f"shmmem-{alias}",
        }
        if device.role == "master":
            properties["master"] = "on"
        build.device(properties | build.pci(device))


def vsock(build: Build) -> None:
    device = build.d.devices.vsock
    if device is None:
        return
    fd = build.launch.vhost_vsock_fd
    if fd is None or device.cid is None:
        raise refuse("<vsock> without vhost-vsock on this host")
    properties: dict[str, Any] = {"driver": virtio_driver("vhost-vsock", device.model)}
    properties |= virtio_options(device.driver or VirtioDriver())
    properties |= {
        "id": build.alias(device),
        "guest-cid": device.cid,
        "vhostfd": str(build.pass_fd(fd)),
    }
    build.device(properties | build.pci(device))
