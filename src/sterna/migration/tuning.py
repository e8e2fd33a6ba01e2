"""What flags and parameters of a call make QEMU do: its migration capabilities and parameters.

Names, types and refusals are those of libvirt 9.0 (observed), the zlib and zstd methods those of
libvirt's documentation (9.4); QEMU's names are its QMP reference's (7.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sterna.errors import ArgumentUnsupported, InvalidArg
from sterna.rpc.enums import MigrateFlag
from sterna.rpc.typed_params import ParamType

F = MigrateFlag
Tuning = dict[str, tuple[int | str, bool]]
"""QEMU's parameters by name: the value, and whether both sides are given it."""

TYPES: Final[dict[str, ParamType]] = {
    "compression": ParamType.STRING,
    "compression.mt.level": ParamType.INT,
    "compression.mt.threads": ParamType.INT,
    "compression.mt.dthreads": ParamType.INT,
    "compression.xbzrle.cache": ParamType.ULLONG,
    "compression.zlib.level": ParamType.INT,
    "compression.zstd.level": ParamType.INT,
    "auto_converge.initial": ParamType.INT,
    "auto_converge.increment": ParamType.INT,
    "parallel.connections": ParamType.INT,
    "bandwidth.postcopy": ParamType.ULLONG,
}

_QEMU_NAMES: Final = {
    "compression.mt.level": ("compress-level", True),
    "compression.mt.threads": ("compress-threads", True),
    "compression.mt.dthreads": ("decompress-threads", True),
    "compression.xbzrle.cache": ("xbzrle-cache-size", True),
    "compression.zlib.level": ("multifd-zlib-level", True),
    "compression.zstd.level": ("multifd-zstd-level", True),
    "auto_converge.initial": ("cpu-throttle-initial", False),
    "auto_converge.increment": ("cpu-throttle-increment", False),
    "parallel.connections": ("multifd-channels", True),
    "bandwidth.postcopy": ("max-postcopy-bandwidth", True),
}
MIB: Final = 1 << 20
_IN_WORDS: Final = {"mt": "multithread"}
_CAPABILITIES: Final = {"xbzrle": "xbzrle", "mt": "compress"}
_IN_CHANNELS: Final = frozenset({"zlib", "zstd"})
"""Methods that each channel of a parallel migration uses for itself; it can use only one."""
METHODS: Final = (*_CAPABILITIES, *sorted(_IN_CHANNELS))


def capabilities(
    flags: MigrateFlag, compression: Iterable[str], *, destination: bool
) -> frozenset[str]:
    """QEMU's migration capabilities that a call asks for at one side."""
    found = {_CAPABILITIES[method] for method in compression if method in _CAPABILITIES}
    for flag, name, both in (
        (F.PARALLEL, "multifd", True),
        (F.RDMA_PIN_ALL, "rdma-pin-all", True),
        (F.POSTCOPY, "postcopy-ram", True),
        (F.AUTO_CONVERGE, "auto-converge", False),
        (F.ZEROCOPY, "zero-copy-send", False),
    ):
        if flag in flags and (both or not destination):
            found.add(name)
    return frozenset(found)


def compression(flags: MigrateFlag, methods: Iterable[str]) -> frozenset[str]:
    """The methods a call asks for. Raises: InvalidArg (8)."""
    found: set[str] = set()
    for method in methods:
        if method not in METHODS:
            raise InvalidArg(f"Unsupported compression method '{method}'")
        if method in found:
            raise InvalidArg(f"Compression method '{method}' is specified twice")
        found.add(method)
    if F.COMPRESSED in flags and not found:
        found.add("xbzrle")
    for method in sorted(found & _IN_CHANNELS):
        if F.PARALLEL not in flags:
            text = f"Compression method '{method}' is only available for parallel migration"
            raise InvalidArg(text)
    if F.PARALLEL in flags and len(found) > 1:
        raise InvalidArg("Only one compression method can be used for parallel migration")
    if F.ZEROCOPY in flags and found:
        raise InvalidArg("zero-copy is not available for compressed migration")
    return frozenset(found)


def tuning(
    flags: MigrateFlag, methods: frozenset[str], values: Mapping[str, Any], *, at_source: bool
) -> Tuning:
    """What `migrate-set-parameters` shall be given. Raises: InvalidArg (8)."""
    found: Tuning = {}
    for name, (qemu_name, both) in _QEMU_NAMES.items():
        if name not in values:
            continue
        if refusal := _refusal(name, flags, methods, at_source=at_source):
            raise InvalidArg(refusal)
        scale = MIB if name == "bandwidth.postcopy" else 1
        found[qemu_name] = (values[name] * scale, both)
    for method in methods & _IN_CHANNELS:
        found["multifd-compression"] = (method, True)
    return found


def _refusal(
    name: str, flags: MigrateFlag, methods: frozenset[str], *, at_source: bool
) -> str | None:
    what, _, rest = name.partition(".")
    if what == "compression":
        method = rest.partition(".")[0]
        if method not in methods:
            return f"Turn {_IN_WORDS.get(method, method)} compression on to tune it"
    elif what == "auto_converge":
        # Clients send all parameters to both sides, but that flag only to the source.
        if at_source and F.AUTO_CONVERGE not in flags:
            return "Turn auto convergence on to tune it"
    elif what == "parallel" and F.PARALLEL not in flags:
        return "Turn parallel migration on to tune it"
    return None


def refuse_unsupported(wanted: Iterable[str], have: Iterable[str]) -> None:
    """Refuse, by its name, what this QEMU lacks: a capability or a parameter.

    Raises: ArgumentUnsupported (74).
    """
    for name in sorted(frozenset(wanted) - frozenset(have)):
        raise ArgumentUnsupported(f"Migration option '{name}' is not supported by QEMU binary")
