"""Messages of the qemu program: monitor and agent pass-through."""

from __future__ import annotations

from sterna.rpc.msg_common import Dom
from sterna.xdr.message import Message
from sterna.xdr.wire import I32, I64, U32, Str


class DomainMonitorCommandArgs(Message):
    dom: Dom
    cmd: Str
    flags: U32


class DomainMonitorCommandRet(Message):
    result: Str


class DomainAttachArgs(Message):
    pid_value: U32
    flags: U32


class DomainAttachRet(Message):
    dom: Dom


class DomainAgentCommandArgs(Message):
    dom: Dom
    cmd: Str
    timeout: I32
    flags: U32


class DomainAgentCommandRet(Message):
    result: Str | None


class ConnectDomainMonitorEventRegisterArgs(Message):
    dom: Dom | None
    event: Str | None
    flags: U32


class ConnectDomainMonitorEventRegisterRet(Message):
    callbackID: I32


class ConnectDomainMonitorEventDeregisterArgs(Message):
    callbackID: I32


class DomainMonitorEventMsg(Message):
    callbackID: I32
    dom: Dom
    event: Str
    seconds: I64
    micros: U32
    details: Str | None


class DomainMonitorCommandWithFilesArgs(Message):
    dom: Dom
    cmd: Str
    flags: U32


class DomainMonitorCommandWithFilesRet(Message):
    result: Str
