"""Changing a guest's memory, vcpus and descriptions."""

from __future__ import annotations

from sterna.errors import BadArgument, ErrorDomain, InvalidArg
from sterna.guest import modify
from sterna.guest.flags import Affect
from sterna.rpc.msg_device import (
    DomainGetMetadataArgs,
    DomainGetMetadataRet,
    DomainSetMetadataArgs,
)
from sterna.rpc.msg_tuning import (
    DomainSetMaxMemoryArgs,
    DomainSetMemoryArgs,
    DomainSetMemoryFlagsArgs,
    DomainSetMemoryStatsPeriodArgs,
    DomainSetVcpusArgs,
    DomainSetVcpusFlagsArgs,
)
from sterna.server.dispatch import check_flags, handles
from sterna.server.handlers.info import no_guest_agent
from sterna.server.objects import find
from sterna.server.session import Session

AFFECT = int(Affect.LIVE | Affect.CONFIG)
MAXIMUM = 4
VCPU_GUEST, VCPU_HOTPLUGGABLE = 8, 16


def refuse_no_memory(kib: int, api: str) -> None:
    """libvirt's clients refuse it themselves, in these words; others may not."""
    if kib == 0:
        raise BadArgument(f"memory in {api} must not be zero", domain=ErrorDomain.DOMAIN)


@handles("DOMAIN_SET_MEMORY")
async def domain_set_memory(session: Session, args: DomainSetMemoryArgs) -> None:
    refuse_no_memory(args.memory, "virDomainSetMemory")
    await modify.set_memory(
        find(session, args.dom), args.memory, Affect.LIVE, api="remoteDispatchDomainSetMemory"
    )


@handles("DOMAIN_SET_MAX_MEMORY")
async def domain_set_max_memory(session: Session, args: DomainSetMaxMemoryArgs) -> None:
    refuse_no_memory(args.memory, "virDomainSetMaxMemory")
    await modify.set_memory(
        find(session, args.dom), args.memory, maximum=True, api="remoteDispatchDomainSetMaxMemory"
    )


@handles("DOMAIN_SET_MEMORY_FLAGS")
async def domain_set_memory_flags(session: Session, args: DomainSetMemoryFlagsArgs) -> None:
    check_flags(args.flags, AFFECT | MAXIMUM, "qemuDomainSetMemoryFlags")
    refuse_no_memory(args.memory, "virDomainSetMemoryFlags")
    await modify.set_memory(
        find(session, args.dom),
        args.memory,
        Affect(args.flags & AFFECT),
        maximum=bool(args.flags & MAXIMUM),
    )


@handles("DOMAIN_SET_VCPUS")
async def domain_set_vcpus(session: Session, args: DomainSetVcpusArgs) -> None:
    await modify.set_vcpus(
        find(session, args.dom), args.nvcpus, Affect.LIVE, api="remoteDispatchDomainSetVcpus"
    )


@handles("DOMAIN_SET_VCPUS_FLAGS")
async def domain_set_vcpus_flags(session: Session, args: DomainSetVcpusFlagsArgs) -> None:
    flags = args.flags
    check_flags(flags, AFFECT | MAXIMUM | VCPU_GUEST | VCPU_HOTPLUGGABLE, "qemuDomainSetVcpusFlags")
    guest = find(session, args.dom)
    if args.nvcpus == 0:
        raise BadArgument(
            "nvcpus in virDomainSetVcpusFlags must not be zero", domain=ErrorDomain.DOMAIN
        )
    if flags & MAXIMUM and not flags & Affect.CONFIG:
        raise BadArgument(
            "Flag 'VIR_DOMAIN_AFFECT_CONFIG' is required by flag 'VIR_DOMAIN_VCPU_MAXIMUM'",
            domain=ErrorDomain.DOMAIN,
        )
    if flags & VCPU_GUEST:
        raise no_guest_agent(guest)
    await modify.set_vcpus(
        guest, args.nvcpus, Affect(flags & AFFECT), maximum=bool(flags & MAXIMUM)
    )


@handles("DOMAIN_SET_MEMORY_STATS_PERIOD")
async def domain_set_memory_stats_period(
    session: Session, args: DomainSetMemoryStatsPeriodArgs
) -> None:
    check_flags(args.flags, AFFECT, "qemuDomainSetMemoryStatsPeriod")
    if args.period < 0:
        raise BadArgument(
            "period in virDomainSetMemoryStatsPeriod must be zero or greater",
            domain=ErrorDomain.DOMAIN,
        )
    guest = find(session, args.dom)
    await modify.set_memory_stats_period(guest, args.period, Affect(args.flags))


@handles("DOMAIN_GET_METADATA")
def domain_get_metadata(session: Session, args: DomainGetMetadataArgs) -> DomainGetMetadataRet:
    check_flags(args.flags, AFFECT, "qemuDomainGetMetadata")
    guest = find(session, args.dom)
    check_kind("virDomainGetMetadata", args.type, args.uri)
    return DomainGetMetadataRet(
        metadata=modify.get_metadata(guest, args.type, args.uri, Affect(args.flags))
    )


@handles("DOMAIN_SET_METADATA")
async def domain_set_metadata(session: Session, args: DomainSetMetadataArgs) -> None:
    check_flags(args.flags, AFFECT, "qemuDomainSetMetadata")
    guest = find(session, args.dom)
    check_kind("virDomainSetMetadata", args.type, args.uri)
    if args.type == modify.TITLE and args.metadata and "\n" in args.metadata:
        raise BadArgument("metadata title can't contain newlines", domain=ErrorDomain.DOMAIN)
    if args.type == modify.ELEMENT and args.metadata is not None and not args.key:
        raise BadArgument("key in virDomainSetMetadata must not be NULL", domain=ErrorDomain.DOMAIN)
    await modify.set_metadata(
        guest,
        args.type,
        args.metadata,
        key=args.key,
        uri=args.uri,
        affect=Affect(args.flags),
    )


def check_kind(api: str, kind: int, uri: str | None) -> None:
    """Refuse arguments that contradict each other, in libvirt 9.0's words (observed).

    Raises:
        BadArgument, InvalidArg.
    """
    if kind in (modify.TITLE, modify.DESCRIPTION):
        if uri is not None:
            raise BadArgument(f"uri in {api} must be NULL", domain=ErrorDomain.DOMAIN)
    elif kind == modify.ELEMENT:
        if uri is None:
            raise BadArgument(f"uri in {api} must not be NULL", domain=ErrorDomain.DOMAIN)
    else:
        raise InvalidArg(f"unknown metadata type '{kind}'", domain=ErrorDomain.DOMAIN)
