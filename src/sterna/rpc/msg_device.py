"""Messages about a domain's devices, consoles, screen, input and metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from sterna.rpc.msg_common import Dom
from sterna.xdr.message import Message
from sterna.xdr.wire import I32, I64, U32, Max, Str


class DomainAttachDeviceArgs(Message):
    dom: Dom
    xml: Str


class DomainDetachDeviceArgs(Message):
    dom: Dom
    xml: Str


class DomainInterfaceStatsArgs(Message):
    dom: Dom
    device: Str


class DomainInterfaceStatsRet(Message):
    rx_bytes: I64
    rx_packets: I64
    rx_errs: I64
    rx_drop: I64
    tx_bytes: I64
    tx_packets: I64
    tx_errs: I64
    tx_drop: I64


class DomainAttachDeviceFlagsArgs(Message):
    dom: Dom
    xml: Str
    flags: U32


class DomainDetachDeviceFlagsArgs(Message):
    dom: Dom
    xml: Str
    flags: U32


class DomainUpdateDeviceFlagsArgs(Message):
    dom: Dom
    xml: Str
    flags: U32


class DomainOpenConsoleArgs(Message):
    dom: Dom
    dev_name: Str | None
    flags: U32


class DomainScreenshotArgs(Message):
    dom: Dom
    screen: U32
    flags: U32


class DomainScreenshotRet(Message):
    mime: Str | None


class DomainSendKeyArgs(Message):
    dom: Dom
    codeset: U32
    holdtime: U32
    keycodes: Annotated[Sequence[U32], Max(16)]
    flags: U32


class DomainOpenGraphicsArgs(Message):
    dom: Dom
    idx: U32
    flags: U32


class DomainSetMetadataArgs(Message):
    dom: Dom
    type: I32
    metadata: Str | None
    key: Str | None
    uri: Str | None
    flags: U32


class DomainGetMetadataArgs(Message):
    dom: Dom
    type: I32
    uri: Str | None
    flags: U32


class DomainGetMetadataRet(Message):
    metadata: Str


class DomainOpenChannelArgs(Message):
    dom: Dom
    name: Str | None
    flags: U32


class DomainOpenGraphicsFdArgs(Message):
    dom: Dom
    idx: U32
    flags: U32


class DomainDetachDeviceAliasArgs(Message):
    dom: Dom
    alias: Str
    flags: U32


class DomainFdAssociateArgs(Message):
    dom: Dom
    name: Str
    flags: U32


class DomainGraphicsReloadArgs(Message):
    dom: Dom
    type: U32
    flags: U32
