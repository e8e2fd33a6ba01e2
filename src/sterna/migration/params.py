"""What one call of a migration asks for, whichever form of the call it came in.

The form with typed parameters carries everything; the plain one five fields. Both become a
`Request`. Names, types and refusals are those of libvirt 9.0 (observed).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from sterna.errors import InvalidArg, OperationUnsupported, Overflow
from sterna.migration.flags import checked
from sterna.rpc.enums import MigrateFlag
from sterna.rpc.msg_common import TypedParam
from sterna.rpc.typed_params import ParamType

MIB: Final = 1024 * 1024
BANDWIDTH_MIB_MAX: Final = (1 << 63) // MIB - 1
"""Largest speed libvirt 9.0 takes, and its word for "no limit"."""

_TYPES: Final[dict[str, ParamType]] = {
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
    "compression": ParamType.STRING,
    "compression.mt.level": ParamType.INT,
    "compression.mt.threads": ParamType.INT,
    "compression.mt.dthreads": ParamType.INT,
    "compression.xbzrle.cache": ParamType.ULLONG,
    "auto_converge.initial": ParamType.INT,
    "auto_converge.increment": ParamType.INT,
    "parallel.connections": ParamType.INT,
    "tls.destination": ParamType.STRING,
}
_REPEATED: Final = frozenset({"migrate_disks", "compression"})

# Typed parameter → QEMU's `migrate-set-parameters` name; and whether both sides are given it.
_TUNING: Final = {
    "compression.mt.level": ("compress-level", True),
    "compression.mt.threads": ("compress-threads", True),
    "compression.mt.dthreads": ("decompress-threads", True),
    "compression.xbzrle.cache": ("xbzrle-cache-size", True),
    "auto_converge.initial": ("cpu-throttle-initial", False),
    "auto_converge.increment": ("cpu-throttle-increment", False),
    "bandwidth.postcopy": ("max-postcopy-bandwidth", True),
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a call asks for.

    Attributes:
        xml: the guest as the destination shall build it (destination_xml).
        persistent_xml: what the destination shall write down as its definition.
        bandwidth_mib: MiB/s; 0 keeps the speed set before.
        compression: methods, "xbzrle" or "mt".
        tuning: QEMU's migration parameters by name, with whether the destination gets them.
    """

    flags: MigrateFlag
    migrate_uri: str | None = None
    name: str | None = None
    xml: str | None = None
    persistent_xml: str | None = None
    bandwidth_mib: int = 0
    listen_address: str | None = None
    compression: frozenset[str] = frozenset()
    tuning: dict[str, tuple[int, bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.bandwidth_mib > BANDWIDTH_MIB_MAX:
            limit = BANDWIDTH_MIB_MAX + 1
            raise Overflow(f"bandwidth must be less than {limit}")

    @property
    def capabilities(self) -> frozenset[str]:
        """QEMU's migration capabilities that flags and compression ask for on both sides."""
        names = {"xbzrle": "xbzrle", "mt": "compress"}
        postcopy = {"postcopy-ram"} if MigrateFlag.POSTCOPY in self.flags else set()
        return frozenset(names[method] for method in self.compression) | postcopy

    def qemu_parameters(self, *, destination: bool) -> dict[str, int]:
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
    return Request(
        bits,
        migrate_uri=uri or None,
        name=dname or None,
        xml=xml or None,
        bandwidth_mib=resource,
        compression=_compression(bits, ()),
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
    if repeated["migrate_disks"] or single.get("disks_port") or single.get("disks_uri"):
        raise OperationUnsupported(
            "migration with non-shared storage is not supported by this host"
        )
    if "parallel.connections" in single:
        raise InvalidArg("Turn parallel migration on to tune it")
    compression = _compression(bits, repeated["compression"])
    return Request(
        bits,
        migrate_uri=single.get("migrate_uri") or None,
        name=single.get("destination_name") or None,
        xml=single.get("destination_xml") or None,
        persistent_xml=single.get("persistent_xml") or None,
        bandwidth_mib=single.get("bandwidth", 0),
        listen_address=single.get("listen_address") or None,
        compression=compression,
        tuning=_tuning(bits, compression, single, at_source=at_source),
    )


def _check_type(param: TypedParam) -> None:
    wanted = _TYPES.get(param.field)
    if wanted is None:
        raise InvalidArg(f"parameter '{param.field}' not supported")
    if param.type != wanted:
        names = {1: "int", 2: "uint", 3: "llong", 4: "ullong", 5: "double", 6: "boolean"}
        given = names.get(param.type, "string")
        expected = names.get(int(wanted), "string")
        raise InvalidArg(
            f"invalid type '{given}' for parameter '{param.field}', expected '{expected}'"
        )


def _compression(flags: MigrateFlag, methods: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    for method in methods:
        if method not in ("xbzrle", "mt"):
            raise InvalidArg(f"Unsupported compression method '{method}'")
        if method in found:
            raise InvalidArg(f"Compression method '{method}' is specified twice")
        found.add(method)
    if MigrateFlag.COMPRESSED in flags and not found:
        found.add("xbzrle")
    return frozenset(found)


def _tuning(
    flags: MigrateFlag, compression: frozenset[str], values: dict[str, Any], *, at_source: bool
) -> dict[str, tuple[int, bool]]:
    found: dict[str, tuple[int, bool]] = {}
    for name, (qemu_name, both) in _TUNING.items():
        if name not in values:
            continue
        if name.startswith("compression.mt.") and "mt" not in compression:
            raise InvalidArg("Turn multithread compression on to tune it")
        if name.startswith("compression.xbzrle.") and "xbzrle" not in compression:
            raise InvalidArg("Turn xbzrle compression on to tune it")
        converges = MigrateFlag.AUTO_CONVERGE in flags or not at_source
        if name.startswith("auto_converge.") and not converges:
            raise InvalidArg("Turn auto convergence on to tune it")
        scale = MIB if name == "bandwidth.postcopy" else 1
        found[qemu_name] = (values[name] * scale, both)
    return found
