"""The machine itself: name, -machine, -accel, firmware, clock, boot, SMBIOS, sandbox."""

from __future__ import annotations

import datetime

from sterna.config.model import Os, Sysinfo, SysinfoBlock
from sterna.errors import ConfigUnsupported
from sterna.qemu.argv_build import Build, dumps, escape, on_off, refuse
from sterna.qemu.argv_memory import ram_id, uses_numa


def head(build: Build) -> None:
    """The program and its name. -S: nothing runs until it is told to."""
    build.args.append(build.d.devices.emulator or build.caps.binary)
    build.opt("-name", f"guest={escape(build.d.name)},debug-threads=on")
    build.opt("-S")


def _os(build: Build) -> Os:
    return build.d.os or Os()


def _flash_paths(build: Build) -> tuple[str, str | None] | None:
    """Code and variables of a pflash firmware, None for other firmware."""
    os = _os(build)
    loader = os.loader
    if loader is None or loader.path is None:
        if os.firmware == "efi":
            raise ConfigUnsupported("no firmware was chosen for firmware='efi'")
        return None
    if loader.type != "pflash":
        return None
    if loader.format not in (None, "raw") or (os.nvram and os.nvram.format not in (None, "raw")):
        raise refuse("firmware in a format other than raw")
    if loader.stateless:
        return loader.path, None
    nvram = os.nvram
    if nvram is not None and nvram.source is not None:
        if nvram.type not in (None, "file") or nvram.source.file is None:
            raise refuse(f"nvram of type '{nvram.type}'")
        return loader.path, nvram.source.file
    return loader.path, nvram.path if nvram is not None else None


def pflash(build: Build) -> None:
    """Append the block devices of a UEFI firmware and its variables."""
    paths = _flash_paths(build)
    for number, path in enumerate(paths or ()):
        if path is None:
            continue
        readonly = number == 0 and (_os(build).loader is None or _loader_readonly(build))
        build.opt(
            "-blockdev",
            _json_blockdev(path, f"libvirt-pflash{number}-storage"),
        )
        build.opt(
            "-blockdev",
            f'{{"node-name":"libvirt-pflash{number}-format","read-only":{str(readonly).lower()},'
            f'"driver":"raw","file":"libvirt-pflash{number}-storage"}}',
        )


def _loader_readonly(build: Build) -> bool:
    loader = _os(build).loader
    return loader is not None and loader.readonly is True


def _json_blockdev(path: str, node: str) -> str:
    return dumps(
        {
            "driver": "file",
            "filename": path,
            "node-name": node,
            "auto-read-only": True,
            "discard": "unmap",
        }
    )


def machine(build: Build) -> None:
    """Append -machine. Also what older QEMUs had as options of their own."""
    d = build.d
    features = d.features
    parts = [build.machine_type, "usb=off"]
    if features is not None:
        if features.vmport is not None:
            parts.append(f"vmport={on_off(features.vmport.state is not False)}")
        if features.smm is not None:
            if features.smm.tseg is not None:
                raise refuse("<tseg>")
            parts.append(f"smm={on_off(features.smm.state is not False)}")
        if features.ioapic is not None:
            parts.append(f"kernel_irqchip={'split' if features.ioapic == 'qemu' else 'on'}")
    parts.append(f"dump-guest-core={on_off(bool(d.memory_dump_core))}")
    if d.memory_backing is not None and d.memory_backing.nosharepages:
        parts.append("mem-merge=off")
    if any(module.model == "nvdimm" for module in d.devices.memories):
        parts.append("nvdimm=on")
    if not uses_numa(build):
        parts.append(f"memory-backend={ram_id(build)}")
    flash = _flash_paths(build)
    if flash is not None:
        parts.append("pflash0=libvirt-pflash0-format")
        if flash[1] is not None:
            parts.append("pflash1=libvirt-pflash1-format")
    if _os(build).bios_useserial:
        if not d.devices.serials:
            raise ConfigUnsupported("need at least one serial port to use SGA")
        parts.append("graphics=off")
    if build.qemu_at_least(9, 0):
        if not _acpi(build):
            parts.append("acpi=off")
        if _hpet(build) is False:
            parts.append("hpet=off")
    build.opt("-machine", ",".join(parts))


def accelerator(build: Build) -> None:
    features = build.d.features
    if build.kvm:
        text = "kvm"
        if features is not None and features.kvm is not None and features.kvm.dirty_ring:
            text += f",dirty-ring-size={features.kvm.dirty_ring_size or 4096}"
    else:
        text = "tcg"
        if features is not None and features.tcg is not None and features.tcg.tb_cache:
            text += f",tb-size={features.tcg.tb_cache // 1024}"
    build.opt("-accel", text)


def firmware(build: Build) -> None:
    """What of the firmware comes after the CPU."""
    loader = _os(build).loader
    if loader is None or loader.path is None:
        return
    if loader.type == "pflash":
        if loader.secure:
            build.opt("-global", "driver=cfi.pflash01,property=secure,value=on")
    else:
        build.opt("-bios", loader.path)


def overcommit(build: Build) -> None:
    locked = build.d.memory_backing is not None and build.d.memory_backing.locked
    build.opt("-overcommit", f"mem-lock={on_off(locked)}")


def iothreads(build: Build) -> None:
    d = build.d
    if d.default_iothread_min is not None or d.default_iothread_max is not None:
        raise refuse("<defaultiothread>")
    known = {item.id: item for item in d.iothread_ids if item.id is not None}
    ids = [item.id for item in d.iothread_ids if item.id is not None]
    free = (number for number in range(1, 1 << 16) if number not in known)
    while len(ids) < (d.iothreads or 0):
        ids.append(next(free))
    for number in ids:
        properties: dict[str, object] = {"qom-type": "iothread", "id": f"iothread{number}"}
        item = known.get(number)
        if item is not None and item.thread_pool_min is not None:
            properties["thread-pool-min"] = item.thread_pool_min
        if item is not None and item.thread_pool_max is not None:
            properties["thread-pool-max"] = item.thread_pool_max
        build.object(properties)


_SMBIOS: tuple[tuple[int, str, tuple[str, ...]], ...] = (
    (0, "bios", ("vendor", "version", "date", "release")),
    (1, "system", ("manufacturer", "product", "version", "serial", "uuid", "sku", "family")),
    (2, "base_boards", ("manufacturer", "product", "version", "serial", "asset", "location")),
    (3, "chassis", ("manufacturer", "version", "serial", "asset", "sku")),
)


def identity(build: Build) -> None:
    """-uuid, SMBIOS texts, firmware configuration blobs, generation id."""
    build.opt("-uuid", str(build.d.uuid))
    mode = _os(build).smbios
    if mode == "host":
        raise refuse("the host's SMBIOS information in a guest")
    for info in build.d.sysinfos:
        if info.type == "smbios" and mode == "sysinfo":
            _smbios(build, info)
        elif info.type == "fwcfg":
            _fwcfg(build, info)
    if build.d.genid is not None:
        build.device({"driver": "vmgenid", "guid": build.d.genid, "id": "vmgenid0"})


def _smbios(build: Build, info: Sysinfo) -> None:
    if info.processors or info.memory_devices:
        raise refuse("<processor> or <memory_device> in <sysinfo>")
    for number, field, names in _SMBIOS:
        value = getattr(info, field)
        blocks: list[SysinfoBlock] = value if isinstance(value, list) else [value] if value else []
        for block in blocks:
            texts = [f"{name}={escape(text)}" for name in names if (text := block.get(name))]
            unknown = {entry.name for entry in block.entries} - set(names)
            if unknown:
                raise refuse(f"sysinfo entry '{sorted(map(str, unknown))[0]}'")
            if texts:
                build.opt("-smbios", ",".join([f"type={number}", *texts]))
    if info.oem_strings is not None:
        texts = [f"value={escape(entry.value or '')}" for entry in info.oem_strings.entries]
        build.opt("-smbios", ",".join(["type=11", *texts]))


def _fwcfg(build: Build, info: Sysinfo) -> None:
    for entry in info.entries:
        if entry.file is not None:
            build.opt("-fw_cfg", f"name={escape(entry.name or '')},file={escape(entry.file)}")
        else:
            build.opt(
                "-fw_cfg", f"name={escape(entry.name or '')},string={escape(entry.value or '')}"
            )


def display_none(build: Build) -> None:
    """Without graphics there is no window system either."""
    if not build.d.devices.graphics:
        build.opt("-display", "none")
    build.opt("-no-user-config")
    build.opt("-nodefaults")


def monitor(build: Build) -> None:
    fd = build.pass_fd(build.launch.monitor_fd)
    build.opt("-chardev", f"socket,id=charmonitor,fd={fd},server=on,wait=off")
    build.opt("-mon", "chardev=charmonitor,id=monitor,mode=control")


def clock(build: Build) -> None:
    """-rtc and the other timers that are no part of the CPU."""
    clock_def = build.d.clock
    timers = {timer.name: timer for timer in clock_def.timers} if clock_def else {}
    text = _clock_base(build)
    rtc = timers.get("rtc")
    if rtc is not None:
        track = {None: None, "guest": "vm", "wall": "host", "realtime": "rt"}
        if rtc.track not in track:
            raise refuse(f"rtc timer track '{rtc.track}'")
        if rtc.track is not None:
            text += f",clock={track[rtc.track]}"
        if rtc.tickpolicy == "catchup":
            text += ",driftfix=slew"
        elif rtc.tickpolicy not in (None, "delay"):
            raise refuse(f"rtc timer tickpolicy '{rtc.tickpolicy}'")
    build.opt("-rtc", text)
    pit = timers.get("pit")
    if pit is not None and pit.tickpolicy in ("delay", "discard"):
        # kvm-pit exists under TCG as a type too, so this is accepted there, as libvirt does it.
        build.opt("-global", f"kvm-pit.lost_tick_policy={pit.tickpolicy}")
    elif pit is not None and pit.tickpolicy not in (None, "catchup"):
        raise refuse(f"pit timer tickpolicy '{pit.tickpolicy}'")
    if _hpet(build) is False and not build.qemu_at_least(9, 0):
        build.opt("-no-hpet")


def _hpet(build: Build) -> bool | None:
    for timer in build.d.clock.timers if build.d.clock else []:
        if timer.name == "hpet":
            return timer.present
    return None


def _clock_base(build: Build) -> str:
    clock_def = build.d.clock
    offset = clock_def.offset if clock_def else None
    if clock_def is None or offset in (None, "utc"):
        return "base=utc"
    now = build.launch.now
    if offset == "localtime":
        return "base=localtime"
    if offset == "timezone":
        build.environment["TZ"] = clock_def.timezone or ""
        return "base=localtime"
    if offset == "absolute":
        start = datetime.datetime.fromtimestamp(clock_def.start or 0, datetime.UTC)
        return f"base={start:%Y-%m-%dT%H:%M:%S}"
    if clock_def.basis == "localtime":
        raise refuse("a variable clock with basis 'localtime'")
    try:
        seconds = int(clock_def.adjustment or 0)
    except ValueError:
        raise refuse(f"clock adjustment '{clock_def.adjustment}'") from None
    moment = now.astimezone(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return f"base={moment:%Y-%m-%dT%H:%M:%S}"


def _acpi(build: Build) -> bool:
    return build.d.features is not None and build.d.features.acpi


def power(build: Build) -> None:
    """What shutdown, reset and sleep do. libvirt restarts by itself: QEMU never exits on one."""
    build.opt("-no-shutdown")
    if not _acpi(build) and not build.qemu_at_least(9, 0):
        build.opt("-no-acpi")
    pm = build.d.pm
    if pm is None:
        return
    driver = "ICH9-LPC" if build.is_q35 else "PIIX4_PM"
    if not (build.is_q35 or build.is_i440fx):
        raise refuse(f"<pm> on machine '{build.machine_type}'")
    if pm.suspend_to_mem is not None:
        build.opt("-global", f"{driver}.disable_s3={int(not pm.suspend_to_mem)}")
    if pm.suspend_to_disk is not None:
        build.opt("-global", f"{driver}.disable_s4={int(not pm.suspend_to_disk)}")


def boot(build: Build) -> None:
    os = _os(build)
    parts = []
    if os.bootmenu is not None:
        parts.append(f"menu={on_off(os.bootmenu)}")
    if os.bios_reboot_timeout is not None:
        parts.append(f"reboot-timeout={os.bios_reboot_timeout}")
    if os.bootmenu and os.bootmenu_timeout is not None:
        parts.append(f"splash-time={os.bootmenu_timeout}")
    build.opt("-boot", ",".join([*parts, "strict=on"]))
    for flag, value in (("-kernel", os.kernel), ("-initrd", os.initrd), ("-append", os.cmdline)):
        if value is not None:
            build.opt(flag, value)
    if os.dtb is not None:
        raise refuse("<dtb> on this machine")
    for table in os.acpi.elements if os.acpi is not None else []:
        if table.tag != "table" or table.attributes.get("type") != "slic" or not table.text:
            raise refuse(f"ACPI table of type '{table.attributes.get('type')}'")
        build.opt("-acpitable", f"sig=SLIC,file={escape(table.text.strip())}")


def incoming(build: Build) -> None:
    if build.launch.incoming:
        build.opt("-incoming", "defer")


def sandbox(build: Build) -> None:
    """Confine QEMU, where it was built with that: it may start no program, gain no rights."""
    if build.launch.sandbox and "sandbox" in build.caps.options:
        build.opt(
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        )
