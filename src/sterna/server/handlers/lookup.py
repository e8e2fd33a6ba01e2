"""Finding guests: by id, name, uuid, and lists with every filter. Nothing here waits (L6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from uuid import UUID

from sterna.errors import RpcError
from sterna.guest.actor import Guest
from sterna.guest.states import State
from sterna.rpc.msg_connect import (
    ConnectListAllDomainsArgs,
    ConnectListAllDomainsRet,
    ConnectListDefinedDomainsArgs,
    ConnectListDefinedDomainsRet,
    ConnectListDomainsArgs,
    ConnectListDomainsRet,
    ConnectNumOfDefinedDomainsRet,
    ConnectNumOfDomainsRet,
)
from sterna.rpc.msg_domain import (
    DomainLookupByIdArgs,
    DomainLookupByIdRet,
    DomainLookupByNameArgs,
    DomainLookupByNameRet,
    DomainLookupByUuidArgs,
    DomainLookupByUuidRet,
)
from sterna.server.dispatch import check_flags, handles
from sterna.server.objects import encode_guest
from sterna.server.session import Session

LIST_MAX = 16_384
"""Names, ids or guests in one answer."""

ACTIVE, INACTIVE, PERSISTENT, TRANSIENT = 1, 2, 4, 8
RUNNING, PAUSED, SHUTOFF, OTHER = 16, 32, 64, 128
MANAGED_SAVE, NO_MANAGED_SAVE, AUTOSTART, NO_AUTOSTART = 256, 512, 1024, 2048
HAS_SNAPSHOT, NO_SNAPSHOT, HAS_CHECKPOINT, NO_CHECKPOINT = 4096, 8192, 16_384, 32_768
ALL_FILTERS = 0xFFFF

_STATES = {State.RUNNING: RUNNING, State.PAUSED: PAUSED, State.SHUTOFF: SHUTOFF}

_GROUPS: tuple[tuple[int, Callable[[Guest], int]], ...] = (
    (ACTIVE | INACTIVE, lambda g: ACTIVE if g.active else INACTIVE),
    (PERSISTENT | TRANSIENT, lambda g: PERSISTENT if g.persistent else TRANSIENT),
    (RUNNING | PAUSED | SHUTOFF | OTHER, lambda g: _STATES.get(g.state, OTHER)),
    (
        MANAGED_SAVE | NO_MANAGED_SAVE,
        lambda g: MANAGED_SAVE if g.has_managed_save else NO_MANAGED_SAVE,
    ),
    (AUTOSTART | NO_AUTOSTART, lambda g: AUTOSTART if g.autostart else NO_AUTOSTART),
    # Neither snapshots nor checkpoints are kept here.
    (HAS_SNAPSHOT | NO_SNAPSHOT, lambda g: NO_SNAPSHOT),
    (HAS_CHECKPOINT | NO_CHECKPOINT, lambda g: NO_CHECKPOINT),
)


def filtered(guests: Iterable[Guest], flags: int) -> Iterator[Guest]:
    """Guests that match: every group must, one set bit of a group is enough, none asks nothing."""
    groups = [(flags & bits, what) for bits, what in _GROUPS if flags & bits]
    for guest in guests:
        if all(what(guest) & wanted for wanted, what in groups):
            yield guest


@handles("CONNECT_LIST_ALL_DOMAINS")
def connect_list_all_domains(
    session: Session, args: ConnectListAllDomainsArgs
) -> ConnectListAllDomainsRet:
    check_flags(args.flags, ALL_FILTERS, "qemuConnectListAllDomains")
    found = list(filtered(session.context.registry.all(), args.flags))
    if len(found) > LIST_MAX:
        raise RpcError(f"Too many domains '{len(found)}' for limit '{LIST_MAX}'")
    domains = [encode_guest(guest) for guest in found] if args.need_results else []
    return ConnectListAllDomainsRet(domains=domains, ret=len(found))


@handles("CONNECT_NUM_OF_DOMAINS")
def connect_num_of_domains(session: Session, args: None) -> ConnectNumOfDomainsRet:
    return ConnectNumOfDomainsRet(num=sum(g.active for g in session.context.registry.all()))


@handles("CONNECT_LIST_DOMAINS")
def connect_list_domains(session: Session, args: ConnectListDomainsArgs) -> ConnectListDomainsRet:
    check_count("maxids", args.maxids)
    ids = [g.id for g in session.context.registry.all() if g.active]
    return ConnectListDomainsRet(ids=ids[: args.maxids])


@handles("CONNECT_NUM_OF_DEFINED_DOMAINS")
def connect_num_of_defined_domains(session: Session, args: None) -> ConnectNumOfDefinedDomainsRet:
    return ConnectNumOfDefinedDomainsRet(
        num=sum(not g.active for g in session.context.registry.all())
    )


@handles("CONNECT_LIST_DEFINED_DOMAINS")
def connect_list_defined_domains(
    session: Session, args: ConnectListDefinedDomainsArgs
) -> ConnectListDefinedDomainsRet:
    check_count("maxnames", args.maxnames)
    names = [g.name for g in session.context.registry.all() if not g.active]
    return ConnectListDefinedDomainsRet(names=names[: args.maxnames])


def check_count(name: str, count: int) -> None:
    """Refuse a count no answer can have.

    Raises:
        RpcError: below zero or above the protocol's limit.
    """
    if not 0 <= count <= LIST_MAX:
        raise RpcError(f"{name} {count} is outside 0..{LIST_MAX}")


@handles("DOMAIN_LOOKUP_BY_ID")
def domain_lookup_by_id(session: Session, args: DomainLookupByIdArgs) -> DomainLookupByIdRet:
    return DomainLookupByIdRet(dom=encode_guest(session.context.registry.lookup_by_id(args.id)))


@handles("DOMAIN_LOOKUP_BY_NAME")
def domain_lookup_by_name(session: Session, args: DomainLookupByNameArgs) -> DomainLookupByNameRet:
    return DomainLookupByNameRet(
        dom=encode_guest(session.context.registry.lookup_by_name(args.name))
    )


@handles("DOMAIN_LOOKUP_BY_UUID")
def domain_lookup_by_uuid(session: Session, args: DomainLookupByUuidArgs) -> DomainLookupByUuidRet:
    guest = session.context.registry.lookup_by_uuid(UUID(bytes=args.uuid))
    return DomainLookupByUuidRet(dom=encode_guest(guest))
