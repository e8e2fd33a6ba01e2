"""What one call of a migration asks for, whichever form of the call it came in.

The form with typed parameters carries everything; the plain one five fields. Both become a
`Request`. Names, types and refusals are those of libvirt 9.0 (observed).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from sterna.errors import ArgumentUnsupported, InvalidArg, OperationUnsupported, Overflow
from sterna.migration import tuning
from sterna.migration.flags import COPIES_STORAGE, checked
from sterna.rpc.enums import MigrateFlag
from sterna.rpc.msg_common import TypedParam
from sterna.rpc.typed_params import ParamType

PORT_MAX: Final = 65535
BANDWIDTH_MIB_MAX: Final = (1 << 63) // tuning.MIB - 1
"""Largest speed libvirt 9.0 takes, and its word for "no limit"."""

TYPES: Final[dict[str, ParamType]] = {
    "migrate_uri": ParamType.STRING,
    "destination_name": ParamType.STRING,
    "destination_xml": ParamType.STRING,
    "persistent_xml": ParamType.STRING,
    "bandwidth": ParamType.ULLONG,
    "bandwidth.postcopy": ParamType.ULLONG,
    "graphics_uri": ParamType.STRING,
    "listen_address": ParamType.STRING,
    "migrate_disks": ParamType.STRING,
    "disks_port": ParamType.INT,
    "disks_uri": ParamType.STRING,
    "tls.destination": ParamType.STRING,
    **tuning.TYPES,
}
_REPEATED: Final = frozenset({"migrate_disks", "compression"})


@dataclass(frozen=True, slots=True)
class Request:
    """What a call asks for.

    Attributes:
        xml: the guest as the destination shall build it (destination_xml).
        persistent_xml: what the destination shall write down as its definition.
        tls_destination: the name that the destination's certificate has, if not its host's.
        bandwidth_mib: MiB/s; 0 keeps the speed set before.
        compression: methods, of `tuning.METHODS`.
        disks: targets of the disks that are copied, where not all are.
        disks_port, disks_uri: where the destination receives them.
        tuning: QEMU's migration parameters by name, with whether the destination gets them.
        params: all of it as it came, for a source that passes it on.
    """

    flags: MigrateFlag
    migrate_uri: str | None = None
    name: str | None = None
    xml: str | None = None
    persistent_xml: str | None = None
    bandwidth_mib: int = 0
    listen_address: str | None = None
    tls_destination: str | None = None
    compression: frozenset[str] = frozenset()
    disks: frozenset[str] = frozenset()
    disks_port: int = 0
    disks_uri: str | None = None
    tuning: tuning.Tuning = field(default_factory=dict)
    params: tuple[TypedParam, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if self.bandwidth_mib > BANDWIDTH_MIB_MAX:
            limit = BANDWIDTH_MIB_MAX + 1
            raise Overflow(f"bandwidth must be less than {limit}")

    def capabilities(self, *, destination: bool) -> frozenset[str]:
        """QEMU's migration capabilities that this asks for at that side."""
        return tuning.capabilities(self.flags, self.compression, destination=destination)

    def qemu_parameters(self, *, destination: bool) -> dict[str, int | str]:
        """What `migrate-set-parameters` is given beside the bandwidth."""
        return {n: v for n, (v, both) in self.tuning.items() if both or not destination}


def from_plain(
    *,
    flags: int,
    dname: str | None,
    resource: int,
    uri: str | None = None,
    xml: str | None = None,
    function: str,
) -> Request:
    """A request in the plain form (procedures 213 to 218). Raises: as `flags.checked`; Overflow."""
    bits = checked(flags, function)
    if uri:
        _refuse_in_tunnel(bits, ("migrate_uri",))
    speed = (TypedParam("bandwidth", int(ParamType.ULLONG), resource),) if resource else ()
    return Request(
        bits,
        params=speed,
        migrate_uri=uri or None,
        name=dname or None,
        xml=xml or None,
        bandwidth_mib=resource,
        compression=tuning.compression(bits, ()),
    )


def from_typed(
    params: Iterable[TypedParam], *, flags: int, function: str, at_source: bool = True
) -> Request:
    """A request in the form with typed parameters (302 to 307).

    Clients send all parameters to both sides, but not the flags that only the source needs, so
    `at_source` says whether those may be missed.

    Raises: InvalidArg (8) for a parameter that is unknown, wrongly typed or doubled; as
    `flags.checked`; OperationUnsupported (84) for ways of migrating that Sterna does not have.
    """
    bits = checked(flags, function)
    params = tuple(params)
    single: dict[str, Any] = {}
    repeated: dict[str, list[Any]] = {name: [] for name in _REPEATED}
    for param in params:
        _check_type(param)
        if param.field in _REPEATED:
            repeated[param.field].append(param.value)
        elif param.field in single:
            raise InvalidArg(f"parameter '{param.field}' occurs multiple times")
        else:
            single[param.field] = param.value
    _refuse_in_tunnel(bits, single)
    if repeated["migrate_disks"] and not bits & COPIES_STORAGE:
        raise OperationUnsupported("disks were named, but no storage is to be copied")
    compression = tuning.compression(bits, repeated["compression"])
    return Request(
        bits,
        params=params,
        migrate_uri=single.get("migrate_uri") or None,
        name=single.get("destination_name") or None,
        xml=single.get("destination_xml") or None,
        persistent_xml=single.get("persistent_xml") or None,
        bandwidth_mib=single.get("bandwidth", 0),
        listen_address=single.get("listen_address") or None,
        tls_destination=single.get("tls.destination") or None,
        compression=compression,
        disks=frozenset(repeated["migrate_disks"]),
        disks_port=_port(single.get("disks_port", 0)),
        disks_uri=single.get("disks_uri") or None,
        tuning=tuning.tuning(bits, compression, single, at_source=at_source),
    )


def _port(number: int) -> int:
    if not 0 <= number <= PORT_MAX:
        raise InvalidArg(f"port {number} is out of range")
    return number


_NOT_IN_TUNNEL: Final = {
    "migrate_uri": "migration URI",
    "listen_address": "listen address",
    "disks_port": "disk port address",
}


def _refuse_in_tunnel(flags: MigrateFlag, given: Iterable[str]) -> None:
    """Nothing listens anywhere for a tunnelled migration. Raises: ArgumentUnsupported (74)."""
    if MigrateFlag.TUNNELLED in flags:
        for name in given:
            if name in _NOT_IN_TUNNEL:
                text = f"{_NOT_IN_TUNNEL[name]} is not supported by tunnelled migration"
                raise ArgumentUnsupported(text)


def _check_type(param: TypedParam) -> None:
    wanted = TYPES.get(param.field)
    if wanted is None:
        raise InvalidArg(f"parameter '{param.field}' not supported")
    if param.type != wanted:
        names = {1: "int", 2: "uint", 3: "llong", 4: "ullong", 5: "double", 6: "boolean"}
        given = names.get(param.type, "string")
        expected = names.get(int(wanted), "string")
        raise InvalidArg(
            f"invalid type '{given}' for parameter '{param.field}', expected '{expected}'"
        )
