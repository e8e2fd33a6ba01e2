"""What a guest is, from its last snapshot: states, sizes, texts. Nothing here waits (L6)."""

from __future__ import annotations

import os
import time

from sterna.config import DomainDef, format_domain
from sterna.errors import (
    ArgumentUnsupported,
    BadArgument,
    ErrorDomain,
    InvalidArg,
    OperationInvalid,
    SternaError,
)
from sterna.guest import silence, stats
from sterna.guest.actor import Guest
from sterna.guest.agent import agent_refusal
from sterna.guest.definitions import memory_max_kib, vcpus_max, vcpus_now
from sterna.guest.pinning import emulator_cpus, vcpu_cpus
from sterna.guest.states import State
from sterna.host.files import cpu_bitmap
from sterna.host.node import cpu_map
from sterna.migration import doubt
from sterna.rpc.msg_agent import DomainInterfaceAddressesArgs, DomainInterfaceAddressesRet
from sterna.rpc.msg_common import IoThread, SecLabel, VcpuInfo
from sterna.rpc.msg_domain import (
    DomainGetAutostartArgs,
    DomainGetAutostartRet,
    DomainGetControlInfoArgs,
    DomainGetControlInfoRet,
    DomainGetInfoArgs,
    DomainGetInfoRet,
    DomainGetMessagesArgs,
    DomainGetMessagesRet,
    DomainGetOsTypeArgs,
    DomainGetOsTypeRet,
    DomainGetSecurityLabelArgs,
    DomainGetSecurityLabelListArgs,
    DomainGetSecurityLabelListRet,
    DomainGetSecurityLabelRet,
    DomainGetStateArgs,
    DomainGetStateRet,
    DomainGetXmlDescArgs,
    DomainGetXmlDescRet,
    DomainHasManagedSaveImageArgs,
    DomainHasManagedSaveImageRet,
    DomainIsActiveArgs,
    DomainIsActiveRet,
    DomainIsPersistentArgs,
    DomainIsPersistentRet,
    DomainIsUpdatedArgs,
    DomainIsUpdatedRet,
)
from sterna.rpc.msg_tuning import (
    DomainGetEmulatorPinInfoArgs,
    DomainGetEmulatorPinInfoRet,
    DomainGetIothreadInfoArgs,
    DomainGetIothreadInfoRet,
    DomainGetMaxMemoryArgs,
    DomainGetMaxMemoryRet,
    DomainGetMaxVcpusArgs,
    DomainGetMaxVcpusRet,
    DomainGetVcpuPinInfoArgs,
    DomainGetVcpuPinInfoRet,
    DomainGetVcpusArgs,
    DomainGetVcpusFlagsArgs,
    DomainGetVcpusFlagsRet,
    DomainGetVcpusRet,
)
from sterna.server.dispatch import check_flags, handles
from sterna.server.objects import find
from sterna.server.session import Session

XML_SECURE, XML_INACTIVE, XML_UPDATE_CPU, XML_MIGRATABLE = 1, 2, 4, 8
AFFECT_LIVE, AFFECT_CONFIG = 1, 2
VCPU_MAXIMUM, VCPU_GUEST = 4, 8
MESSAGES_DEPRECATION, MESSAGES_TAINTING = 1, 2
CONTROL_OK, CONTROL_JOB, CONTROL_OCCUPIED = 0, 1, 2


@handles("DOMAIN_GET_STATE")
def domain_get_state(session: Session, args: DomainGetStateArgs) -> DomainGetStateRet:
    check_flags(args.flags, 0, "qemuDomainGetState")
    guest = find(session, args.dom)
    return DomainGetStateRet(state=int(guest.state), reason=int(guest.reason))


@handles("DOMAIN_GET_INFO")
def domain_get_info(session: Session, args: DomainGetInfoArgs) -> DomainGetInfoRet:
    found = stats.info(find(session, args.dom))
    return DomainGetInfoRet(
        state=found.state,
        maxMem=found.max_memory,
        memory=found.memory,
        nrVirtCpu=found.vcpus,
        cpuTime=found.cpu_time,
    )


def affected(guest: Guest, flags: int) -> DomainDef:
    """The definition that flags speak of: live, stored, or whichever is in force.

    Raises:
        BadArgument: both at once.
        OperationInvalid: it is not running, or it has no stored one.
    """
    if flags & AFFECT_LIVE and flags & AFFECT_CONFIG:
        raise BadArgument(
            "flags 'VIR_DOMAIN_AFFECT_LIVE' and 'VIR_DOMAIN_AFFECT_CONFIG' are mutually exclusive"
        )
    if flags & AFFECT_CONFIG:
        return guest.stored_or_refuse()
    if flags & AFFECT_LIVE and guest.live is None:
        raise OperationInvalid("domain is not running", domain=ErrorDomain.DOMAIN)
    return guest.current


def no_guest_agent(guest: Guest) -> SternaError:
    """What to answer to a call that the agent in the guest would have to carry out.

    Raises:
        OperationInvalid: the guest is not running at all.
    """
    return agent_refusal(guest.live_or_refuse().definition, running=guest.state is State.RUNNING)


@handles("DOMAIN_GET_XML_DESC")
def domain_get_xml_desc(session: Session, args: DomainGetXmlDescArgs) -> DomainGetXmlDescRet:
    flags = args.flags
    check_flags(
        flags, XML_SECURE | XML_INACTIVE | XML_UPDATE_CPU | XML_MIGRATABLE, "qemuDomainGetXMLDesc"
    )
    guest = find(session, args.dom)
    shown = guest.current
    if flags & XML_INACTIVE and guest.definition is not None:
        shown = guest.definition
    live = guest.running is not None and not flags & XML_INACTIVE
    return DomainGetXmlDescRet(
        xml=format_domain(
            shown,
            domain_id=guest.id if live else None,
            inactive=not live,
            secure=bool(flags & (XML_SECURE | XML_MIGRATABLE)),
            migratable=bool(flags & XML_MIGRATABLE),
        )
    )


@handles("DOMAIN_GET_OS_TYPE")
def domain_get_os_type(session: Session, args: DomainGetOsTypeArgs) -> DomainGetOsTypeRet:
    os_ = find(session, args.dom).current.os
    return DomainGetOsTypeRet(type=(os_.type if os_ is not None else None) or "hvm")


@handles("DOMAIN_IS_ACTIVE")
def domain_is_active(session: Session, args: DomainIsActiveArgs) -> DomainIsActiveRet:
    return DomainIsActiveRet(active=int(find(session, args.dom).active))


@handles("DOMAIN_IS_PERSISTENT")
def domain_is_persistent(session: Session, args: DomainIsPersistentArgs) -> DomainIsPersistentRet:
    return DomainIsPersistentRet(persistent=int(find(session, args.dom).persistent))


@handles("DOMAIN_IS_UPDATED")
def domain_is_updated(session: Session, args: DomainIsUpdatedArgs) -> DomainIsUpdatedRet:
    """Definitions are never changed behind a client's back. libvirt 9.0 says 0 as well."""
    find(session, args.dom)
    return DomainIsUpdatedRet(updated=0)


@handles("DOMAIN_GET_AUTOSTART")
def domain_get_autostart(session: Session, args: DomainGetAutostartArgs) -> DomainGetAutostartRet:
    return DomainGetAutostartRet(autostart=int(find(session, args.dom).autostart))


@handles("DOMAIN_HAS_MANAGED_SAVE_IMAGE")
def domain_has_managed_save_image(
    session: Session, args: DomainHasManagedSaveImageArgs
) -> DomainHasManagedSaveImageRet:
    check_flags(args.flags, 0, "qemuDomainHasManagedSaveImage")
    return DomainHasManagedSaveImageRet(result=int(find(session, args.dom).has_managed_save))


@handles("DOMAIN_GET_SECURITY_LABEL")
def domain_get_security_label(
    session: Session, args: DomainGetSecurityLabelArgs
) -> DomainGetSecurityLabelRet:
    find(session, args.dom)
    return DomainGetSecurityLabelRet(label=b"\0", enforcing=0)


@handles("DOMAIN_GET_SECURITY_LABEL_LIST")
def domain_get_security_label_list(
    session: Session, args: DomainGetSecurityLabelListArgs
) -> DomainGetSecurityLabelListRet:
    find(session, args.dom)
    labels: list[SecLabel] = []
    return DomainGetSecurityLabelListRet(labels=labels, ret=0)


@handles("DOMAIN_GET_MESSAGES")
def domain_get_messages(session: Session, args: DomainGetMessagesArgs) -> DomainGetMessagesRet:
    """What a person should know of a running guest, in libvirt 9.0's words (observed)."""
    check_flags(args.flags, MESSAGES_DEPRECATION | MESSAGES_TAINTING, "virDomainObjGetMessages")
    guest = find(session, args.dom)
    found = []
    tainting = not args.flags or args.flags & MESSAGES_TAINTING
    if tainting and guest.active and session.context.guest_ids is None and os.geteuid() == 0:
        found.append("tainted: running with undesirable elevated privileges")
    outgoing = session.context.migrations.doubtful(guest.uuid)
    if not args.flags and outgoing is not None and doubt.in_doubt(outgoing):
        found.append(doubt.in_words(outgoing))
    if not args.flags and guest.running is not None and (why := silence.in_words(guest.running)):
        found.append(why)
    return DomainGetMessagesRet(msgs=found)


@handles("DOMAIN_GET_CONTROL_INFO")
def domain_get_control_info(
    session: Session, args: DomainGetControlInfoArgs
) -> DomainGetControlInfoRet:
    check_flags(args.flags, 0, "qemuDomainGetControlInfo")
    guest = find(session, args.dom)
    running = guest.live_or_refuse()
    if silence.in_words(running):
        silent_ms = int(silence.silent_s(running) * 1000)
        return DomainGetControlInfoRet(state=CONTROL_OCCUPIED, details=0, stateTime=silent_ms)
    if guest.job is None:
        return DomainGetControlInfoRet(state=CONTROL_OK, details=0, stateTime=0)
    since_ms = int((time.monotonic() - guest.job.started) * 1000)
    return DomainGetControlInfoRet(state=CONTROL_JOB, details=0, stateTime=since_ms)


# -- vcpus and memory ------------------------------------------------------------------------------


@handles("DOMAIN_GET_MAX_MEMORY")
def domain_get_max_memory(session: Session, args: DomainGetMaxMemoryArgs) -> DomainGetMaxMemoryRet:
    return DomainGetMaxMemoryRet(memory=memory_max_kib(find(session, args.dom).current))


@handles("DOMAIN_GET_MAX_VCPUS")
def domain_get_max_vcpus(session: Session, args: DomainGetMaxVcpusArgs) -> DomainGetMaxVcpusRet:
    """The most a running guest may have: of one that isn't, libvirt says nothing (observed)."""
    return DomainGetMaxVcpusRet(num=vcpus_max(affected(find(session, args.dom), AFFECT_LIVE)))


@handles("DOMAIN_GET_VCPUS_FLAGS")
def domain_get_vcpus_flags(
    session: Session, args: DomainGetVcpusFlagsArgs
) -> DomainGetVcpusFlagsRet:
    check_flags(
        args.flags,
        AFFECT_LIVE | AFFECT_CONFIG | VCPU_MAXIMUM | VCPU_GUEST,
        "qemuDomainGetVcpusFlags",
    )
    guest = find(session, args.dom)
    if args.flags & VCPU_GUEST:
        raise no_guest_agent(guest)
    which = affected(guest, args.flags)
    count = vcpus_max(which) if args.flags & VCPU_MAXIMUM else vcpus_now(which)
    return DomainGetVcpusFlagsRet(num=count)


def cpu_row(maplen: int, pinned: set[int] | None) -> bytes:
    """The host's CPUs that may be used, in a row of a client's length; all where none is named.

    Raises:
        InvalidArg: a length no client needs.
    """
    if not 0 <= maplen <= 2048:
        raise InvalidArg(f"map length {maplen} is outside 0..2048")
    host = cpu_map()
    bitmap = host.bitmap if pinned is None else cpu_bitmap(pinned, host.present)
    return bitmap[:maplen].ljust(maplen, b"\0")


def vcpu_rows(definition: DomainDef, count: int, maplen: int) -> bytes:
    """One row for each of the first vCPUs."""
    return b"".join(cpu_row(maplen, vcpu_cpus(definition, vcpu)) for vcpu in range(count))


@handles("DOMAIN_GET_VCPUS")
def domain_get_vcpus(session: Session, args: DomainGetVcpusArgs) -> DomainGetVcpusRet:
    guest = find(session, args.dom)
    found = stats.vcpus(guest)[: max(0, args.maxinfo)]
    info = [VcpuInfo(v.number, v.state, v.cpu_time, v.cpu) for v in found]
    return DomainGetVcpusRet(
        info=info, cpumaps=vcpu_rows(affected(guest, 0), len(info), args.maplen)
    )


@handles("DOMAIN_GET_VCPU_PIN_INFO")
def domain_get_vcpu_pin_info(
    session: Session, args: DomainGetVcpuPinInfoArgs
) -> DomainGetVcpuPinInfoRet:
    check_flags(args.flags, AFFECT_LIVE | AFFECT_CONFIG, "qemuDomainGetVcpuPinInfo")
    which = affected(find(session, args.dom), args.flags)
    count = max(0, min(args.ncpumaps, vcpus_max(which)))
    return DomainGetVcpuPinInfoRet(cpumaps=vcpu_rows(which, count, args.maplen), num=count)


@handles("DOMAIN_GET_EMULATOR_PIN_INFO")
def domain_get_emulator_pin_info(
    session: Session, args: DomainGetEmulatorPinInfoArgs
) -> DomainGetEmulatorPinInfoRet:
    check_flags(args.flags, AFFECT_LIVE | AFFECT_CONFIG, "qemuDomainGetEmulatorPinInfo")
    which = affected(find(session, args.dom), args.flags)
    return DomainGetEmulatorPinInfoRet(cpumaps=cpu_row(args.maplen, emulator_cpus(which)), ret=1)


@handles("DOMAIN_GET_IOTHREAD_INFO")
def domain_get_iothread_info(
    session: Session, args: DomainGetIothreadInfoArgs
) -> DomainGetIothreadInfoRet:
    """The I/O threads by number. None is pinned."""
    check_flags(args.flags, AFFECT_LIVE | AFFECT_CONFIG, "qemuDomainGetIOThreadInfo")
    which = affected(find(session, args.dom), args.flags)
    every = cpu_map().bitmap
    found = [IoThread(number, every) for number in range(1, (which.iothreads or 0) + 1)]
    return DomainGetIothreadInfoRet(info=found, ret=len(found))


ADDRESSES_LEASE, ADDRESSES_AGENT, ADDRESSES_ARP = 0, 1, 2


@handles("DOMAIN_INTERFACE_ADDRESSES")
def domain_interface_addresses(
    session: Session, args: DomainInterfaceAddressesArgs
) -> DomainInterfaceAddressesRet:
    """Addresses are given by networks and agents, and neither is run here: nobody knows them."""
    check_flags(args.flags, 0, "qemuDomainInterfaceAddresses")
    guest = find(session, args.dom)
    guest.live_or_refuse()
    if args.source == ADDRESSES_AGENT:
        raise no_guest_agent(guest)
    if args.source not in (ADDRESSES_LEASE, ADDRESSES_ARP):
        raise ArgumentUnsupported(f"Unknown IP address data source {args.source}")
    return DomainInterfaceAddressesRet(ifaces=[])
