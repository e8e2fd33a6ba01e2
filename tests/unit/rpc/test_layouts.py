"""Every message is laid out as the protocol says.

`vectors/layouts.txt` has one line a procedure. Its notation: `name:type`; i32, u64 and so on;
`str`, `uuid`, `bytes[N]`; `T?` may be absent; `T[N]` has at most N items, `T[=N]` exactly N;
the names of objects are those in OBJECTS.
"""

from __future__ import annotations

import keyword
from pathlib import Path
from typing import Any

import pytest

from sterna.rpc import msg_common, msg_story
from sterna.rpc.calls import (
    PROCEDURES,
    QEMU_PROGRAM,
    REMOTE_PROGRAM,
    STERNA_PROGRAM,
    by_number,
)
from sterna.xdr.compile import ListOf, Optional_, field_kinds
from sterna.xdr.message import Message
from sterna.xdr.wire import Chars, Fixed, Narrow, Opaque, Scalar, String
from support.wire import all_message_types

LINES = [
    line
    for line in (Path(__file__).parents[2] / "vectors/layouts.txt").read_text().splitlines()
    if not line.startswith("#")
]

OBJECTS = {
    "dom": "Dom", "net": "Net", "pool": "Pool", "nwfilter": "Nwfilter", "netport": "NetPort",
    "nwfbind": "NwfilterBinding", "iface": "Iface", "vol": "Vol", "nodedev": "NodeDev",
    "secret": "Secret", "snap": "Snap", "chkpt": "Checkpoint", "param": "TypedParam",
    "vcpuinfo": "VcpuInfo", "kv64": "KeyValue64", "diskerr": "DiskError",
    "memstat": "MemoryStat", "iothread": "IoThread", "seclabel": "SecLabel",
    "gfxaddr": "GraphicsAddress", "gfxident": "GraphicsIdentity", "lease": "DhcpLease",
    "statsrec": "StatsRecord", "fsinfo": "FsInfo", "domiface": "DomainInterface",
}  # fmt: skip

PROGRAM_NUMBERS = {"remote": REMOTE_PROGRAM, "qemu": QEMU_PROGRAM, "sterna": STERNA_PROGRAM}

KINDS: dict[str, Any] = {
    "i32": Scalar("i"), "u32": Scalar("I"), "i64": Scalar("q"), "u64": Scalar("Q"),
    "f64": Scalar("d"), "str": String(), "uuid": Fixed(16),
    "i8": Narrow(8, signed=True), "u8": Narrow(8, signed=False),
    "i16": Narrow(16, signed=True), "u16": Narrow(16, signed=False),
}  # fmt: skip


def kind_of(text: str) -> Any:
    """The field kind that a type's notation means."""
    if text.endswith("?"):
        return Optional_(kind_of(text[:-1]))
    if text.endswith("]"):
        base, count = text[:-1].split("[")
        size = int(count.removeprefix("="))
        if base == "bytes":
            return Opaque(size)
        if base == "i8":
            return Chars(size, exact=count.startswith("="))
        return ListOf(kind_of(base), size)
    if text == "happening":
        return msg_story.HistoryRecord
    return KINDS[text] if text in KINDS else getattr(msg_common, OBJECTS[text])


def check(cls: type[Message] | None, layout: str) -> None:
    if layout == "-":
        assert cls is None
        return
    assert cls is not None
    wanted = {}
    for field in layout.split():
        name, kind = field.split(":")
        wanted[name + "_" if keyword.iskeyword(name) else name] = kind_of(kind)
    found = field_kinds(cls)
    assert found == wanted
    assert list(found) == list(wanted)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split()[2])
def test_layout(line: str) -> None:
    program, number, name, layout = line.split(" ", 3)
    found = by_number(PROGRAM_NUMBERS[program], int(number))
    assert found is not None
    assert found.name == name
    if found.is_event:
        check(found.args, layout)
        assert found.ret is None
    else:
        args, ret = layout.split(" -> ")
        check(found.args, args)
        check(found.ret, ret)


def test_every_procedure_has_its_line() -> None:
    assert len(LINES) == len(PROCEDURES)


COMMON = {
    "Dom": "name:str uuid:uuid id:i32",
    "Net": "name:str uuid:uuid",
    "Pool": "name:str uuid:uuid",
    "Nwfilter": "name:str uuid:uuid",
    "NetPort": "net:net uuid:uuid",
    "NwfilterBinding": "portdev:str filtername:str",
    "Iface": "name:str mac:str",
    "Vol": "pool:str name:str key:str",
    "NodeDev": "name:str",
    "Secret": "uuid:uuid usageType:i32 usageID:str",
    "Snap": "name:str dom:dom",
    "Checkpoint": "name:str dom:dom",
    "VcpuInfo": "number:u32 state:i32 cpu_time:u64 cpu:i32",
    "KeyValue64": "field:str value:u64",
    "DiskError": "disk:str error:i32",
    "MemoryStat": "tag:i32 val:u64",
    "IoThread": "iothread_id:u32 cpumap:bytes[2048]",
    "SecLabel": "label:i8[4097] enforcing:i32",
    "GraphicsAddress": "family:i32 node:str service:str",
    "GraphicsIdentity": "type:str name:str",
    "DhcpLease": "iface:str expirytime:i64 type:i32 mac:str? iaid:str? ipaddr:str prefix:u32"
    " hostname:str? clientid:str?",
    "StatsRecord": "dom:dom params:param[262144]",
    "FsInfo": "mountpoint:str name:str fstype:str dev_aliases:str[256]",
    "IpAddress": "type:i32 addr:str prefix:u32",
    "ErrorBody": "code:i32 domain:i32 message:str? level:i32 dom:dom? str1:str? str2:str?"
    " str3:str? int1:i32 int2:i32 net:net?",
    "Hole": "length:i64 flags:u32",
}


@pytest.mark.parametrize("name", COMMON)
def test_common_layout(name: str) -> None:
    check(getattr(msg_common, name), COMMON[name])


def bounded(kind: Any) -> bool:
    """Whether a kind says how long its values may be."""
    match kind:
        case ListOf(item, items_max):
            return 0 < items_max <= 262_144 and bounded(item)
        case Optional_(inner):
            return bounded(inner)
        case String(bytes_max) | Opaque(bytes_max):
            return 0 < bytes_max <= 8 * 1024 * 1024
        case _:
            return True


def test_every_variable_field_has_a_bound() -> None:
    for cls in all_message_types():
        for name, kind in field_kinds(cls).items():
            assert bounded(kind), f"{cls.__name__}.{name}"
