"""What this host can run: capabilities, domain capabilities, versions, CPU models."""

from __future__ import annotations

import asyncio

from sterna.errors import ErrorDomain, InvalidArg
from sterna.guest.support import guest_support
from sterna.host.capabilities import capabilities_xml
from sterna.host.cpu import is_model_name
from sterna.host.domaincaps import ARCHITECTURES, choose, domain_capabilities_xml, max_vcpus
from sterna.host.firmware import installed_firmware
from sterna.host.kvm import tsc_counter
from sterna.host.sysinfo import sysinfo_xml
from sterna.rpc.msg_connect import (
    ConnectGetCapabilitiesRet,
    ConnectGetCpuModelNamesArgs,
    ConnectGetCpuModelNamesRet,
    ConnectGetDomainCapabilitiesArgs,
    ConnectGetDomainCapabilitiesRet,
    ConnectGetMaxVcpusArgs,
    ConnectGetMaxVcpusRet,
    ConnectGetSysinfoArgs,
    ConnectGetSysinfoRet,
    ConnectGetVersionRet,
)
from sterna.server.dispatch import check_flags, handles
from sterna.server.emulators import ARCHES, host_supports
from sterna.server.session import Session


@handles("CONNECT_GET_VERSION")
async def connect_get_version(session: Session, args: None) -> ConnectGetVersionRet:
    """The version of QEMU, as the host's own emulator says it."""
    major, minor, micro = (await session.context.emulators.caps()).version
    return ConnectGetVersionRet(hv_ver=major * 1_000_000 + minor * 1_000 + micro)


@handles("CONNECT_GET_CAPABILITIES")
async def connect_get_capabilities(session: Session, args: None) -> ConnectGetCapabilitiesRet:
    context = session.context
    supports = await host_supports(context.emulators)
    return ConnectGetCapabilitiesRet(
        capabilities=await asyncio.to_thread(
            lambda: capabilities_xml(
                context.host_uuid, supports, guest_ids=context.guest_ids, tsc=tsc_counter()
            )
        )
    )


@handles("CONNECT_GET_SYSINFO")
async def connect_get_sysinfo(
    session: Session, args: ConnectGetSysinfoArgs
) -> ConnectGetSysinfoRet:
    check_flags(args.flags, 0, "qemuConnectGetSysinfo")
    return ConnectGetSysinfoRet(sysinfo=await asyncio.to_thread(sysinfo_xml))


@handles("CONNECT_GET_DOMAIN_CAPABILITIES")
async def connect_get_domain_capabilities(
    session: Session, args: ConnectGetDomainCapabilitiesArgs
) -> ConnectGetDomainCapabilitiesRet:
    check_flags(args.flags, 0, "qemuConnectGetDomainCapabilities")
    supports = await host_supports(session.context.emulators)

    def make() -> str:
        support, machine, virt_type = choose(
            supports,
            emulator=args.emulatorbin,
            arch=args.arch,
            machine=args.machine,
            virt_type=args.virttype,
        )
        return domain_capabilities_xml(support, machine, virt_type, installed_firmware())

    return ConnectGetDomainCapabilitiesRet(capabilities=await asyncio.to_thread(make))


@handles("CONNECT_GET_CPU_MODEL_NAMES")
async def connect_get_cpu_model_names(
    session: Session, args: ConnectGetCpuModelNamesArgs
) -> ConnectGetCpuModelNamesRet:
    """The models this host's emulator builds, by the names XML has for them.

    For an architecture that isn't run here the list is empty: any name will do (libvirt 9.0,
    observed).
    """
    check_flags(args.flags, 0, "qemuConnectGetCPUModelNames")
    if args.arch not in ARCHITECTURES:
        raise InvalidArg(f"cannot find architecture {args.arch}", domain=ErrorDomain.QEMU)
    if args.arch not in ARCHES:
        return ConnectGetCpuModelNamesRet(models=(), ret=0)
    support = guest_support(await session.context.emulators.caps(None, args.arch))
    names = [d.name for d in support.cpu_definitions.get("qemu", ()) if is_model_name(d.name)]
    return ConnectGetCpuModelNamesRet(models=names if args.need_results else (), ret=len(names))


@handles("CONNECT_GET_MAX_VCPUS")
async def connect_get_max_vcpus(
    session: Session, args: ConnectGetMaxVcpusArgs
) -> ConnectGetMaxVcpusRet:
    support = guest_support(await session.context.emulators.caps())
    return ConnectGetMaxVcpusRet(max_vcpus=max_vcpus(support, args.type))
