"""What this daemon has none of: networks, node devices, secrets, interfaces, filters.

Clients ask for all of them at start (virt-manager, virt-install) and take "there are none" well;
they take an error badly. So lists are empty, and a lookup fails with the code and the words of the
thing it looked for. Everything that would make one is answered as not supported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sterna.errors import (
    InternalError,
    InvalidArg,
    NoDomainBackup,
    NoDomainCheckpoint,
    NoDomainSnapshot,
    NoInterface,
    NoNetwork,
    NoNodeDevice,
    NoNwfilter,
    NoNwfilterBinding,
    NoSecret,
    SternaError,
)
from sterna.rpc.calls import procedure
from sterna.rpc.msg_block import DomainGetBlockJobInfoArgs, DomainGetBlockJobInfoRet
from sterna.rpc.msg_snapshot import DomainCheckpointLookupByNameArgs
from sterna.server.dispatch import check_flags, handles
from sterna.server.objects import find
from sterna.server.session import Session

BLOCK_JOB_INFO_BANDWIDTH_BYTES = 1

_COUNTED = (
    "CONNECT_LIST_ALL_NETWORKS",
    "CONNECT_LIST_ALL_INTERFACES",
    "CONNECT_LIST_ALL_NODE_DEVICES",
    "CONNECT_LIST_ALL_NWFILTERS",
    "CONNECT_LIST_ALL_NWFILTER_BINDINGS",
    "CONNECT_LIST_ALL_SECRETS",
)
_NAMES = (
    "CONNECT_LIST_NETWORKS",
    "CONNECT_LIST_DEFINED_NETWORKS",
    "CONNECT_LIST_INTERFACES",
    "CONNECT_LIST_DEFINED_INTERFACES",
    "CONNECT_LIST_SECRETS",
    "CONNECT_LIST_NWFILTERS",
    "NODE_LIST_DEVICES",
)
_NUMBERS = (
    "CONNECT_NUM_OF_NETWORKS",
    "CONNECT_NUM_OF_DEFINED_NETWORKS",
    "CONNECT_NUM_OF_INTERFACES",
    "CONNECT_NUM_OF_DEFINED_INTERFACES",
    "CONNECT_NUM_OF_SECRETS",
    "CONNECT_NUM_OF_NWFILTERS",
    "NODE_NUM_OF_DEVICES",
)


def _answered_with(name: str, *values: Any) -> Callable[[Session, Any], Any]:
    def answer(session: Session, args: Any) -> Any:
        ret = procedure(name).ret
        assert ret is not None  # noqa: S101 - a row of the procedure table, checked by a test
        return ret(*values)

    return answer


for _name in _COUNTED:
    handles(_name)(_answered_with(_name, (), 0))
for _name in _NAMES:
    handles(_name)(_answered_with(_name, ()))
for _name in _NUMBERS:
    handles(_name)(_answered_with(_name, 0))


_GUESTS_NOTHINGS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("DOMAIN_SNAPSHOT_NUM", (0,)),
    ("DOMAIN_SNAPSHOT_LIST_NAMES", ((),)),
    ("DOMAIN_HAS_CURRENT_SNAPSHOT", (0,)),
    ("DOMAIN_LIST_ALL_SNAPSHOTS", ((), 0)),
    ("DOMAIN_LIST_ALL_CHECKPOINTS", ((), 0)),
    ("DOMAIN_GET_LAUNCH_SECURITY_INFO", ((),)),
)
"""What no guest has here, with the values that say so."""


def _answered_for_guest(name: str, *values: Any) -> Callable[[Session, Any], Any]:
    def answer(session: Session, args: Any) -> Any:
        find(session, args.dom)
        ret = procedure(name).ret
        assert ret is not None  # noqa: S101 - a row of the procedure table, checked by a test
        return ret(*values)

    return answer


for _name, _values in _GUESTS_NOTHINGS:
    handles(_name)(_answered_for_guest(_name, *_values))


@handles("DOMAIN_SNAPSHOT_LOOKUP_BY_NAME", "DOMAIN_CHECKPOINT_LOOKUP_BY_NAME")
def snapshot_lookup(session: Session, args: Any) -> None:
    find(session, args.dom)
    if isinstance(args, DomainCheckpointLookupByNameArgs):
        raise NoDomainCheckpoint(f"no domain checkpoint with matching name '{args.name}'")
    raise NoDomainSnapshot(f"no domain snapshot with matching name '{args.name}'")


_NOT_FOUND: dict[str, Callable[[Any], SternaError]] = {
    # The words are libvirt 9.0's (observed): tools and people search for them.
    "NETWORK_LOOKUP_BY_NAME": lambda a: NoNetwork(f"no network with matching name '{a.name}'"),
    "NETWORK_LOOKUP_BY_UUID": lambda a: NoNetwork(
        f"no network with matching uuid '{UUID(bytes=a.uuid)}'"
    ),
    "NODE_DEVICE_LOOKUP_BY_NAME": lambda a: NoNodeDevice(
        f"no node device with matching name '{a.name}'"
    ),
    "NODE_DEVICE_GET_XML_DESC": lambda a: NoNodeDevice(
        f"no node device with matching name '{a.name}'"
    ),
    "INTERFACE_LOOKUP_BY_NAME": lambda a: NoInterface(f"couldn't find interface named '{a.name}'"),
    "INTERFACE_LOOKUP_BY_MAC_STRING": lambda a: NoInterface(
        f"couldn't find interface with MAC address '{a.mac}'"
    ),
    "SECRET_LOOKUP_BY_UUID": lambda a: NoSecret(
        f"no secret with matching uuid '{UUID(bytes=a.uuid)}'"
    ),
    "SECRET_LOOKUP_BY_USAGE": lambda a: NoSecret(f"no secret with matching usage '{a.usageID}'"),
    "NWFILTER_LOOKUP_BY_NAME": lambda a: NoNwfilter(f"no nwfilter with matching name '{a.name}'"),
    "NWFILTER_LOOKUP_BY_UUID": lambda a: NoNwfilter(
        f"no nwfilter with matching uuid '{UUID(bytes=a.uuid)}'"
    ),
    "DOMAIN_SNAPSHOT_CURRENT": lambda a: NoDomainSnapshot(
        "the domain does not have a current snapshot"
    ),
    "DOMAIN_BACKUP_GET_XML_DESC": lambda a: NoDomainBackup("no domain backup job present"),
    "NWFILTER_BINDING_LOOKUP_BY_PORT_DEV": lambda a: NoNwfilterBinding(
        f"no nwfilter binding for port dev '{a.name}'"
    ),
}


def _not_found(name: str) -> Callable[[Session, Any], None]:
    def answer(session: Session, args: Any) -> None:
        if name.startswith("DOMAIN_"):
            find(session, args.dom)
        raise _NOT_FOUND[name](args)

    return answer


for _name in _NOT_FOUND:
    handles(_name)(_not_found(_name))


@handles("DOMAIN_GET_BLOCK_JOB_INFO")
def domain_get_block_job_info(
    session: Session, args: DomainGetBlockJobInfoArgs
) -> DomainGetBlockJobInfoRet:
    """No block job is ever under way; programs ask for one before they do anything to a disk."""
    check_flags(args.flags, BLOCK_JOB_INFO_BANDWIDTH_BYTES, "qemuDomainGetBlockJobInfo")
    disks = find(session, args.dom).live_or_refuse().definition.devices.disks
    if all(args.path not in (disk.target, disk.path) for disk in disks):
        raise InvalidArg(f"disk '{args.path}' not found in domain")
    return DomainGetBlockJobInfoRet(found=0, type=0, bandwidth=0, cur=0, end=0)


# Events of these objects never come, but clients insist on listening for them.


@handles(
    "CONNECT_NETWORK_EVENT_REGISTER_ANY",
    "CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY",
    "CONNECT_NODE_DEVICE_EVENT_REGISTER_ANY",
    "CONNECT_SECRET_EVENT_REGISTER_ANY",
    whole_call=True,
)
def register_quiet_event(session: Session, call: Any) -> None:
    if call.args.eventID not in (0, 1):
        raise InternalError(f"unsupported event ID {call.args.eventID}")
    ret = call.procedure.ret
    session.connection.reply(call, ret(callbackID=session.add_callback(None)))


@handles(
    "CONNECT_NETWORK_EVENT_DEREGISTER_ANY",
    "CONNECT_STORAGE_POOL_EVENT_DEREGISTER_ANY",
    "CONNECT_NODE_DEVICE_EVENT_DEREGISTER_ANY",
    "CONNECT_SECRET_EVENT_DEREGISTER_ANY",
)
def deregister_quiet_event(session: Session, args: Any) -> None:
    if session.callbacks.pop(args.callbackID, session) is session:
        raise InternalError(f"event callback {args.callbackID} not registered")
