"""What messages are made of: objects by name and uuid, typed parameters, the error.

Servers look objects up by the uuid alone; name and id are hints. Objects in replies are complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.xdr.message import Message
from sterna.xdr.wire import (
    I32,
    I64,
    U32,
    U64,
    Boolean,
    Chars,
    Max,
    Opaque,
    Scalar,
    Str,
    String,
    Switch,
    Uuid,
)

COOKIE_BYTES_MAX = 4 * 1024 * 1024
Cookie = Annotated[bytes, Opaque(COOKIE_BYTES_MAX)]
"""A migration cookie: XML, and the NUL behind it counts. Opaque to clients."""

PeekedBytes = Annotated[bytes, Opaque(4 * 1024 * 1024)]
"""What was read from a guest's disk or memory."""

CpuMap = Annotated[bytes, Opaque(2048)]
"""Bit i of byte i/8 is CPU i."""

CpuMaps = Annotated[bytes, Opaque(8 * 1024 * 1024)]
"""One CpuMap after the other, each as long as the caller asked."""


class Dom(Message):
    """A domain; `id` is -1 while it is not running. The uuid is raw."""

    name: Str
    uuid: Uuid
    id: I32


class Net(Message):
    name: Str
    uuid: Uuid


class NetPort(Message):
    net: Net
    uuid: Uuid


class Pool(Message):
    name: Str
    uuid: Uuid


class Vol(Message):
    """A storage volume, found by pool and name; `key` only informs."""

    pool: Str
    name: Str
    key: Str


class Nwfilter(Message):
    name: Str
    uuid: Uuid


class NwfilterBinding(Message):
    portdev: Str
    filtername: Str


class Iface(Message):
    """An interface of the host."""

    name: Str
    mac: Str


class NodeDev(Message):
    name: Str


class Secret(Message):
    uuid: Uuid
    usageType: I32
    usageID: Str


class Snap(Message):
    name: Str
    dom: Dom


class Checkpoint(Message):
    name: Str
    dom: Dom


class TypedParam(Message):
    """A named value that carries its type; see `sterna.rpc.typed_params`."""

    field: Str
    type: I32
    value: Annotated[
        int | float | str | bool,
        Switch(
            "type",
            (
                (1, Scalar("i")),
                (2, Scalar("I")),
                (3, Scalar("q")),
                (4, Scalar("Q")),
                (5, Scalar("d")),
                (6, Boolean()),
                (7, String()),
            ),
        ),
    ]


class KeyValue64(Message):
    """A statistic of the host's processors or memory. Not a typed parameter."""

    field: Str
    value: U64


class VcpuInfo(Message):
    number: U32
    state: I32
    cpu_time: U64
    cpu: I32


class DiskError(Message):
    disk: Str
    error: I32


class MemoryStat(Message):
    tag: I32
    val: U64


class IoThread(Message):
    iothread_id: U32
    cpumap: CpuMap


class SecLabel(Message):
    """A security label; its text ends with a NUL."""

    label: Annotated[bytes, Chars(4097)]
    enforcing: I32


class GraphicsAddress(Message):
    family: I32
    node: Str
    service: Str


class GraphicsIdentity(Message):
    type: Str
    name: Str


class DhcpLease(Message):
    iface: Str
    expirytime: I64
    type: I32
    mac: Str | None
    iaid: Str | None
    ipaddr: Str
    prefix: U32
    hostname: Str | None
    clientid: Str | None


class StatsRecord(Message):
    dom: Dom
    params: Annotated[Sequence[TypedParam], Max(262_144)]


class FsInfo(Message):
    mountpoint: Str
    name: Str
    fstype: Str
    dev_aliases: Annotated[Sequence[Str], Max(256)]


class IpAddress(Message):
    type: I32
    addr: Str
    prefix: U32


class DomainInterface(Message):
    name: Str
    hwaddr: Str | None
    addrs: Annotated[Sequence[IpAddress], Max(2048)]


class ErrorBody(Message):
    """What an ERROR packet carries. Clients show `message`; bindings expose every field.

    `level` is always 2. `str1` is the format, `str2` the detail put into it, `int1` an errno for
    system errors and -1 otherwise (libvirt 9.0, observed).
    """

    code: I32
    domain: I32
    message: Str | None
    level: I32
    dom: Dom | None
    str1: Str | None
    str2: Str | None
    str3: Str | None
    int1: I32
    int2: I32
    net: Net | None


class Hole(Message):
    """A stretch of a sparse stream that holds nothing. `length` in bytes; `flags` is 0."""

    length: I64
    flags: U32
