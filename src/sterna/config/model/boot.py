"""<os>: firmware and boot; <clock> and its timers."""

from __future__ import annotations

from dataclasses import dataclass

from sterna.config.codec import Kept, at, child, children, kept, texts
from sterna.config.model.disk import DiskSource
from sterna.config.values import INT, NAT, YES_NO, one_of


@dataclass(slots=True)
class BootDev:
    dev: str | None = at("@dev", one_of("fd", "hd", "cdrom", "network"), required=True)


@dataclass(slots=True)
class FirmwareFeature:
    enabled: bool | None = at("@enabled", YES_NO)
    name: str | None = at("@name")


@dataclass(slots=True)
class Loader:
    """The firmware image. type pflash is UEFI, rom is a BIOS."""

    readonly: bool | None = at("@readonly", YES_NO)
    secure: bool | None = at("@secure", YES_NO)
    type: str | None = at("@type", one_of("rom", "pflash"))
    stateless: bool | None = at("@stateless", YES_NO)
    format: str | None = at("@format")
    path: str | None = at(".")


@dataclass(slots=True)
class NvramStore:
    """UEFI's variables: this guest's own copy, made from the template at first start."""

    type: str | None = at("@type", one_of("file", "block", "network", "dir", "volume"))
    template: str | None = at("@template")
    format: str | None = at("@format")
    path: str | None = at(".")
    source: DiskSource | None = child("source", DiskSource)


@dataclass(slots=True)
class Os:
    """What is booted and how."""

    firmware: str | None = at("@firmware", one_of("bios", "efi"))
    arch: str | None = at("type@arch")
    machine: str | None = at("type@machine")
    type: str | None = at("type")
    firmware_features: list[FirmwareFeature] = children("firmware/feature", FirmwareFeature)
    init: str | None = at("init")
    initargs: list[str] = texts("initarg")
    loader: Loader | None = child("loader", Loader)
    nvram: NvramStore | None = child("nvram", NvramStore)
    kernel: str | None = at("kernel")
    initrd: str | None = at("initrd")
    cmdline: str | None = at("cmdline")
    dtb: str | None = at("dtb")
    root: str | None = at("root")
    acpi: Kept | None = kept("acpi")
    boot: list[BootDev] = children("boot", BootDev)
    bootmenu: bool | None = at("bootmenu@enable", YES_NO)
    bootmenu_timeout: int | None = at("bootmenu@timeout", NAT)
    bios_useserial: bool | None = at("bios@useserial", YES_NO)
    bios_reboot_timeout: int | None = at("bios@rebootTimeout", INT)
    smbios: str | None = at("smbios@mode", one_of("none", "emulate", "host", "sysinfo"))


@dataclass(slots=True)
class TimerCatchup:
    threshold: int | None = at("@threshold", NAT)
    slew: int | None = at("@slew", NAT)
    limit: int | None = at("@limit", NAT)


@dataclass(slots=True)
class Timer:
    name: str | None = at(
        "@name",
        one_of("platform", "pit", "rtc", "hpet", "tsc", "kvmclock", "hypervclock", "armvtimer"),
    )
    present: bool | None = at("@present", YES_NO)
    tickpolicy: str | None = at("@tickpolicy", one_of("delay", "catchup", "merge", "discard"))
    track: str | None = at("@track", one_of("boot", "guest", "wall", "realtime"))
    frequency: int | None = at("@frequency", NAT)
    mode: str | None = at(
        "@mode", one_of("auto", "native", "emulate", "paravirt", "smpsafe", "network")
    )
    catchup: TimerCatchup | None = child("catchup", TimerCatchup)


@dataclass(slots=True)
class Clock:
    """Guest's real-time clock. `adjustment` in seconds (or the word reset), variable offset."""

    offset: str | None = at(
        "@offset",
        one_of(
            "utc",
            "localtime",
            "variable",
            "timezone",
            "absolute",
            unknown="unknown clock offset '{}'",
        ),
    )
    adjustment: str | None = at("@adjustment")
    basis: str | None = at("@basis", one_of("utc", "localtime"))
    timezone: str | None = at("@timezone")
    start: int | None = at("@start", NAT)
    timers: list[Timer] = children("timer", Timer)
