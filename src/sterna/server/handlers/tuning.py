"""Where a guest's threads may run, and what follows when it powers off, reboots or crashes."""

from __future__ import annotations

from sterna.errors import BadArgument, ErrorDomain, InvalidArg
from sterna.guest import modify, pinning
from sterna.guest.flags import Affect
from sterna.rpc.msg_domain import DomainSetLifecycleActionArgs
from sterna.rpc.msg_tuning import (
    DomainPinEmulatorArgs,
    DomainPinVcpuArgs,
    DomainPinVcpuFlagsArgs,
)
from sterna.server.dispatch import check_flags, handles
from sterna.server.objects import find
from sterna.server.session import Session

AFFECT = int(Affect.LIVE | Affect.CONFIG)
LIFECYCLE_TYPES = ("poweroff", "reboot", "crash")
LIFECYCLE_ACTIONS = (
    "destroy",
    "restart",
    "rename-restart",
    "preserve",
    "coredump-destroy",
    "coredump-restart",
)
CRASH_ONLY = 4
"""From this one on an action is for a crash only."""


def cpus_of(cpumap: bytes) -> set[int]:
    """The CPUs of a client's map, one bit each, the lowest first."""
    return {8 * at + bit for at, byte in enumerate(cpumap) for bit in range(8) if byte >> bit & 1}


@handles("DOMAIN_PIN_VCPU")
async def domain_pin_vcpu(session: Session, args: DomainPinVcpuArgs) -> None:
    await pinning.set_vcpu_pin(
        find(session, args.dom),
        args.vcpu,
        cpus_of(args.cpumap),
        Affect.LIVE,
        "remoteDispatchDomainPinVcpu",
    )


@handles("DOMAIN_PIN_VCPU_FLAGS")
async def domain_pin_vcpu_flags(session: Session, args: DomainPinVcpuFlagsArgs) -> None:
    check_flags(args.flags, AFFECT, "qemuDomainPinVcpuFlags")
    await pinning.set_vcpu_pin(
        find(session, args.dom), args.vcpu, cpus_of(args.cpumap), Affect(args.flags)
    )


@handles("DOMAIN_PIN_EMULATOR")
async def domain_pin_emulator(session: Session, args: DomainPinEmulatorArgs) -> None:
    check_flags(args.flags, AFFECT, "qemuDomainPinEmulator")
    await pinning.set_emulator_pin(
        find(session, args.dom), cpus_of(args.cpumap), Affect(args.flags)
    )


@handles("DOMAIN_SET_LIFECYCLE_ACTION")
async def domain_set_lifecycle_action(session: Session, args: DomainSetLifecycleActionArgs) -> None:
    check_flags(args.flags, AFFECT, "qemuDomainSetLifecycleAction")
    guest = find(session, args.dom)
    if args.type >= len(LIFECYCLE_TYPES):
        raise InvalidArg(f"invalid lifecycle type '{args.type}'", domain=ErrorDomain.DOMAIN)
    if args.action >= len(LIFECYCLE_ACTIONS):
        raise InvalidArg(f"invalid lifecycle action '{args.action}'", domain=ErrorDomain.DOMAIN)
    kind, action = LIFECYCLE_TYPES[args.type], LIFECYCLE_ACTIONS[args.action]
    if args.action >= CRASH_ONLY and kind != "crash":
        raise BadArgument(
            f"lifecycle action '{action}' is not valid for lifecycle type '{kind}'",
            domain=ErrorDomain.DOMAIN,
        )
    await modify.set_lifecycle_action(guest, kind, action, Affect(args.flags))
