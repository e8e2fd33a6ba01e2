"""A definition turned into QEMU's command line: the machine that libvirt 9.0 would start.

Both ends of a migration must build the same machine, and one of them may be libvirtd. So every
device, its order, id and bus come out as libvirt's; that was compared argument by argument with
what libvirt 9.0 gave QEMU 7.2 (tests/data/argv). What cannot be given is refused by name, never
left out.

The definition must be complete: defaults, addresses, aliases, ports chosen, host-model CPU
replaced. Nothing here reads the clock, the disk or the host: that came in `LaunchSpec`.
"""

from __future__ import annotations

from sterna.config.model import DomainDef
from sterna.qemu import (
    argv_chardev,
    argv_controllers,
    argv_cpu,
    argv_disks,
    argv_display,
    argv_machine,
    argv_memory,
    argv_misc,
    argv_network,
)
from sterna.qemu.argv_boot import BootOrder
from sterna.qemu.argv_build import Argv, Build, LaunchSpec, QmpCall, TapFds
from sterna.qemu.argv_disks import assign_node_indexes
from sterna.qemu.caps import QemuCaps

__all__ = ["Argv", "LaunchSpec", "QmpCall", "TapFds", "assign_node_indexes", "build_argv"]


def build_argv(d: DomainDef, caps: QemuCaps, launch: LaunchSpec) -> Argv:
    """How to start a guest.

    Args:
        d: the definition as it shall run.
        caps: what the QEMU binary can do.
        launch: what belongs to this one start.

    Raises:
        ConfigUnsupported: it asks for what cannot be given; says what.
        InternalError: the definition was not completed.
    """
    build = Build(d, caps, launch)
    argv_misc.refuse_unknown(build)
    _machine(build)
    _devices(build)
    build.opt("-msg", "timestamp=on")
    argv_misc.balloon_target(build)
    return Argv(
        args=tuple(build.args),
        pass_fds=tuple(build.fds),
        environment=build.environment,
        setup=tuple(build.setup),
        directories=frozenset(build.directories),
    )


def _machine(build: Build) -> None:
    argv_machine.head(build)
    argv_machine.pflash(build)
    argv_machine.machine(build)
    argv_machine.accelerator(build)
    argv_cpu.cpu(build)
    argv_machine.firmware(build)
    argv_memory.memory(build)
    argv_machine.overcommit(build)
    argv_cpu.smp(build)
    argv_machine.iothreads(build)
    argv_memory.numa(build)
    argv_machine.identity(build)
    argv_machine.display_none(build)
    argv_machine.monitor(build)
    argv_machine.clock(build)
    argv_machine.power(build)
    argv_machine.boot(build)


def _devices(build: Build) -> None:
    order = BootOrder(build.d)
    argv_controllers.iommu(build)
    argv_controllers.controllers(build)
    argv_memory.memory_devices(build)
    argv_controllers.hubs(build)
    argv_disks.disks(build, order)
    argv_misc.filesystems(build)
    argv_network.interfaces(build, order)
    argv_chardev.smartcards(build)
    argv_chardev.serials(build)
    argv_chardev.parallels(build)
    argv_chardev.channels(build)
    argv_chardev.consoles(build)
    argv_display.inputs(build)
    argv_display.audio_backends(build)
    argv_display.graphics(build)
    argv_display.videos(build)
    argv_display.sounds(build)
    argv_misc.watchdogs(build)
    argv_chardev.redirdevs(build, order)
    argv_misc.hostdevs(build, order)
    argv_misc.balloon(build)
    argv_misc.rngs(build)
    argv_misc.vmcoreinfo(build)
    argv_machine.incoming(build)
    _passthrough(build)
    argv_machine.sandbox(build)
    argv_misc.panics(build)
    argv_misc.shmems(build)
    argv_misc.vsock(build)


def _passthrough(build: Build) -> None:
    """What the definition hands to QEMU word for word."""
    extra = build.d.qemu_commandline
    if extra is not None:
        for argument in extra.args:
            build.args.append(argument.value or "")
        for variable in extra.envs:
            build.environment[variable.name or ""] = variable.value or ""
