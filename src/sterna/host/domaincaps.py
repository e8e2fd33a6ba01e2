"""CONNECT_GET_DOMAIN_CAPABILITIES: what a guest's definition may ask for here.

The lists say what Sterna builds, not all that QEMU could: a client that picks from them gets a
guest that starts. Structure and error texts are libvirt's (9.0, observed).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from sterna.errors import ConfigUnsupported, ErrorDomain, InvalidArg, SystemCallError
from sterna.host.cpu import guest_cpu, is_model_name, vendor_of
from sterna.host.firmware import Firmware
from sterna.host.support import CpuDefinition, GuestSupport, MachineSupport
from sterna.host.xmltext import XmlText

_GUEST_KINDS = "qemu kvm xen lxc uml openvz test vmware hyperv vbox phyp parallels bhyve vz hvf"
VIRT_TYPES = frozenset(_GUEST_KINDS.split())
"""Every kind of guest that the protocol has a name for; we run the first two."""

_PROCESSORS = """
alpha armv6l armv7l armv7b aarch64 cris i686 ia64 lm32 m68k microblaze microblazeel mips mipsel
mips64 mips64el openrisc parisc parisc64 ppc ppcle ppc64 ppc64le ppcemb riscv32 riscv64 s390 s390x
sh4 sh4eb sparc sparc64 unicore32 x86_64 xtensa xtensaeb
"""
ARCHITECTURES = frozenset(_PROCESSORS.split())
"""Every architecture that the protocol has a name for."""

_DISK_DEVICES = ("disk", "cdrom", "floppy", "lun")
_DISK_BUSES = ("ide", "fdc", "scsi", "virtio", "usb", "sata")
_VIRTIO_MODELS = ("virtio", "virtio-transitional", "virtio-non-transitional")
_VIDEO_DEVICES = {
    "vga": "VGA",
    "cirrus": "cirrus-vga",
    "vmvga": "vmware-svga",
    "qxl": "qxl-vga",
    "virtio": "virtio-gpu-pci",
    "none": None,
    "bochs": "bochs-display",
    "ramfb": "ramfb",
}
_RNG_BACKENDS = {"random": "rng-random", "egd": "rng-egd", "builtin": "rng-builtin"}


def _refused(detail: str) -> InvalidArg:
    return InvalidArg(detail, domain=ErrorDomain.QEMU)


def choose(
    supports: Sequence[GuestSupport],
    *,
    emulator: str | None = None,
    arch: str | None = None,
    machine: str | None = None,
    virt_type: str | None = None,
) -> tuple[GuestSupport, MachineSupport, str]:
    """Return the emulator, machine type and virt type that a client's four arguments mean.

    What is not given is chosen: the host's architecture, its emulator, that one's default machine,
    KVM where it works. The first of `supports` is the host's own architecture.

    Raises:
        InvalidArg: an unknown name, or a combination that can't be.
        ConfigUnsupported: no emulator for that architecture.
        SystemCallError: the emulator's binary isn't there.
    """
    if virt_type is not None and virt_type not in VIRT_TYPES:
        raise _refused(f"unknown virttype: {virt_type}")
    if arch is not None and arch not in ARCHITECTURES:
        raise _refused(f"unknown architecture: {arch}")
    support = _choose_emulator(supports, emulator, arch)
    chosen = support.default_machine if machine is None else support.machine(machine)
    if virt_type is None:
        virt_type = "kvm" if "kvm" in support.virt_types else "qemu"
    if virt_type not in support.virt_types:
        raise _refused(f"Emulator '{support.emulator}' does not support virt type '{virt_type}'")
    if chosen is None:
        raise _refused(f"the machine '{machine}' is not supported by emulator '{support.emulator}'")
    return support, chosen, virt_type


def _choose_emulator(
    supports: Sequence[GuestSupport], emulator: str | None, arch: str | None
) -> GuestSupport:
    if emulator is None:
        wanted = arch or (supports[0].arch if supports else "x86_64")
        for support in supports:
            if support.arch == wanted:
                return support
        raise ConfigUnsupported(f"unable to find any emulator to serve '{wanted}' architecture")
    for support in supports:
        if os.path.realpath(support.emulator) == os.path.realpath(emulator):
            if arch not in (None, support.arch):
                raise _refused(
                    f"architecture from emulator '{support.arch}' "
                    f"doesn't match given architecture '{arch}'"
                )
            return support
    try:
        os.stat(emulator)
    except OSError as missing:
        what = f"Cannot check QEMU binary {emulator}"
        raise SystemCallError(what, errno=missing.errno or 0) from missing
    raise _refused(f"'{emulator}' is none of this host's emulators")


def max_vcpus(support: GuestSupport, virt_type: str | None = None) -> int:
    """Return how many vCPUs a guest of the default machine type may have.

    Raises:
        InvalidArg: guests of that type don't run here.
    """
    wanted = (virt_type or "qemu").lower()
    if wanted not in support.virt_types:
        raise _refused(f"unknown type '{virt_type}'")
    return support.default_machine.cpus_max


def domain_capabilities_xml(
    support: GuestSupport,
    machine: MachineSupport,
    virt_type: str,
    firmware: Sequence[Firmware] = (),
) -> str:
    """Return the `<domainCapabilities>` document for what `choose` returned.

    Args:
        firmware: what is installed on this host (`installed_firmware`).
    """
    xml = XmlText()
    with xml.element("domainCapabilities"):
        xml.leaf("path", support.emulator)
        xml.leaf("domain", virt_type)
        xml.leaf("machine", machine.name)
        xml.leaf("arch", support.arch)
        xml.leaf("vcpu", max=machine.cpus_max)
        _supported(xml, "iothreads", "iothread" in support.objects)
        _os(xml, [build for build in firmware if build.serves(support.arch, machine.name)])
        _cpu(xml, support, virt_type)
        with xml.element("memoryBacking", supported="yes"):
            memfd = "memory-backend-memfd" in support.objects
            _enum(xml, "sourceType", ("file", "anonymous", "memfd") if memfd else ("anonymous",))
        _devices(xml, support, machine)
        _features(xml, support)
    return str(xml)


def _supported(xml: XmlText, name: str, yes: bool) -> None:
    xml.leaf(name, supported="yes" if yes else "no")


def _enum(xml: XmlText, name: str, values: Iterable[str]) -> None:
    listed = list(values)
    if not listed:
        xml.leaf("enum", name=name)
        return
    with xml.element("enum", name=name):
        for value in listed:
            xml.leaf("value", value)


def _os(xml: XmlText, firmware: list[Firmware]) -> None:
    uefi = [build for build in firmware if "uefi" in build.interfaces]
    with xml.element("os", supported="yes"):
        _enum(xml, "firmware", ["efi"] if uefi else [])
        with xml.element("loader", supported="yes"):
            for path in dict.fromkeys(build.executable for build in uefi):
                xml.leaf("value", path)
            _enum(xml, "type", ("rom", "pflash"))
            _enum(xml, "readonly", ("yes", "no"))
            secure = any(build.secure for build in uefi)
            _enum(xml, "secure", ("yes", "no") if secure else ("no",))


def _cpu(xml: XmlText, support: GuestSupport, virt_type: str) -> None:
    with xml.element("cpu"):
        if virt_type == "kvm":
            with xml.element("mode", name="host-passthrough", supported="yes"):
                _enum(xml, "hostPassthroughMigratable", ("on", "off"))
        else:
            xml.leaf("mode", name="host-passthrough", supported="no")
        with xml.element("mode", name="maximum", supported="yes"):
            _enum(xml, "maximumMigratable", ("on", "off"))
        best = guest_cpu(support, virt_type)
        if best is None:
            xml.leaf("mode", name="host-model", supported="no")
        else:
            with xml.element("mode", name="host-model", supported="yes"):
                xml.leaf("model", best.model.name, fallback="forbid")
                if best.vendor:
                    xml.leaf("vendor", best.vendor)
                for name in best.require:
                    xml.leaf("feature", policy="require", name=name)
                for name in best.disable:
                    xml.leaf("feature", policy="disable", name=name)
        with xml.element("mode", name="custom", supported="yes"):
            for definition in support.cpu_definitions.get(virt_type, ()):
                if is_model_name(definition.name):
                    vendor = vendor_of(support, definition.name) or "unknown"
                    xml.leaf("model", definition.name, usable=_usable(definition), vendor=vendor)


def _usable(definition: CpuDefinition) -> str:
    if definition.unavailable is None:
        return "unknown"
    return "no" if definition.unavailable else "yes"


def _devices(xml: XmlText, support: GuestSupport, machine: MachineSupport) -> None:
    devices = support.devices
    with xml.element("devices"):
        with xml.element("disk", supported="yes"):
            _enum(xml, "diskDevice", _DISK_DEVICES)
            # Only the i440fx machine types bring an IDE controller of their own.
            has_ide = machine.name.startswith("pc-i440fx")
            _enum(xml, "bus", (bus for bus in _DISK_BUSES if bus != "ide" or has_ide))
            _enum(xml, "model", _VIRTIO_MODELS)
        with xml.element("graphics", supported="yes"):
            kinds = ("vnc", "spice", "egl-headless")
            _enum(xml, "type", (kind for kind in kinds if kind in support.displays))
        with xml.element("video", supported="yes"):
            models = _VIDEO_DEVICES.items()
            _enum(xml, "modelType", (m for m, device in models if not device or device in devices))
        _supported(xml, "hostdev", False)
        with xml.element("rng", supported="yes"):
            _enum(xml, "model", _VIRTIO_MODELS)
            backends = _RNG_BACKENDS.items()
            _enum(xml, "backendModel", (name for name, obj in backends if obj in support.objects))
        with xml.element("filesystem", supported="yes"):
            _enum(xml, "driverType", ("path",))
        _supported(xml, "tpm", False)
        with xml.element("redirdev", supported="yes"):
            _enum(xml, "bus", ("usb",) if "usb-redir" in devices else ())
        with xml.element("channel", supported="yes"):
            spice = ("spicevmc",) if "spice" in support.displays else ()
            _enum(xml, "type", ("pty", "unix", *spice))


def _features(xml: XmlText, support: GuestSupport) -> None:
    with xml.element("features"):
        _supported(xml, "gic", False)
        _supported(xml, "vmcoreinfo", "vmcoreinfo" in support.devices)
        _supported(xml, "genid", "vmgenid" in support.devices)
        _supported(xml, "backingStoreInput", True)
        for absent in ("backup", "sev", "sgx"):
            _supported(xml, absent, False)
        with xml.element("hyperv", supported="yes"):
            _enum(xml, "features", ("spinlocks", "vendor_id"))
