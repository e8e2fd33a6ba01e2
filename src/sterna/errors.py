"""Every error a caller can act on, one class for each code of the remote protocol.

The tree::

    SternaError                       code and domain as the wire carries them
    +-- InternalError (1)             our own bug, or QEMU said something we could not use
    +-- NoDomain (42), OperationInvalid (55), ...   one class per code
    +-- UnknownError                  a code from a peer that is newer than we are

Local mistakes and a peer's breach never share a class: a breach of the protocol is
`sterna.rpc.errors.ProtocolViolation`, which never reaches the wire.

The visible text of an error is its opening, a colon and the detail ("Domain not found: no domain
with matching name 'x'"). Tools match on that text, so openings are libvirt's (observed with
libvirt 9.0; the list is the protocol's).
"""

from __future__ import annotations

import os
from enum import IntEnum
from typing import ClassVar


class ErrorDomain(IntEnum):
    """Which part of a peer an error comes from. Cosmetic, but bindings expose it."""

    NONE = 0
    XML = 5
    DOM = 6
    RPC = 7
    CONF = 9
    QEMU = 10
    REMOTE = 13
    STORAGE = 18
    NETWORK = 19
    DOMAIN = 20
    NODEDEV = 22
    SECURITY = 24
    INTERFACE = 26
    SECRET = 30
    CPU = 31
    NWFILTER = 33
    STREAMS = 38
    SYSINFO = 37
    EVENT = 40
    LOCKING = 42
    CAPABILITIES = 44
    URI = 45
    AUTH = 46


class Code(IntEnum):
    """Error numbers of the remote protocol. Never reused or renumbered."""

    OK = 0
    INTERNAL_ERROR = 1
    NO_MEMORY = 2
    NO_SUPPORT = 3
    UNKNOWN_HOST = 4
    NO_CONNECT = 5
    INVALID_CONN = 6
    INVALID_DOMAIN = 7
    INVALID_ARG = 8
    OPERATION_FAILED = 9
    OS_TYPE = 16
    NO_SOURCE = 19
    NO_TARGET = 20
    NO_NAME = 21
    NO_DEVICE = 23
    XML_ERROR = 27
    DOM_EXIST = 28
    OPERATION_DENIED = 29
    OPEN_FAILED = 30
    READ_FAILED = 31
    PARSE_FAILED = 32
    CONF_SYNTAX = 33
    WRITE_FAILED = 34
    XML_DETAIL = 35
    SYSTEM_ERROR = 38
    RPC = 39
    NO_NETWORK = 43
    INVALID_MAC = 44
    AUTH_FAILED = 45
    NO_STORAGE_POOL = 49
    NO_STORAGE_VOL = 50
    NO_NODE_DEVICE = 53
    NO_DOMAIN = 42
    OPERATION_INVALID = 55
    NO_INTERFACE = 57
    NO_NWFILTER = 62
    NO_SECRET = 66
    CONFIG_UNSUPPORTED = 67
    OPERATION_TIMEOUT = 68
    MIGRATE_PERSIST_FAILED = 69
    HOOK_SCRIPT_FAILED = 70
    NO_DOMAIN_SNAPSHOT = 72
    INVALID_STREAM = 73
    ARGUMENT_UNSUPPORTED = 74
    OPERATION_ABORTED = 78
    AUTH_CANCELLED = 79
    NO_DOMAIN_METADATA = 80
    MIGRATE_UNSAFE = 81
    OVERFLOW = 82
    OPERATION_UNSUPPORTED = 84
    AGENT_UNRESPONSIVE = 86
    RESOURCE_BUSY = 87
    ACCESS_DENIED = 88
    STORAGE_VOL_EXIST = 90
    CPU_INCOMPATIBLE = 91
    XML_INVALID_SCHEMA = 92
    MIGRATE_FINISH_OK = 93
    AUTH_UNAVAILABLE = 94
    DEVICE_MISSING = 99
    NO_NWFILTER_BINDING = 101
    NO_DOMAIN_CHECKPOINT = 103
    NO_DOMAIN_BACKUP = 104


class SternaError(Exception):
    """Base of all errors a caller can act on. Anything else that escapes is our bug.

    Args:
        detail: what happened, for the person who asked; the class adds the opening.
        domain: which part failed, when it is not the class's usual one.

    `peer_message` is the text a peer sent, word for word, on errors that came over the wire.
    """

    code: ClassVar[Code] = Code.INTERNAL_ERROR
    opening: ClassVar[str] = "internal error"
    default_domain: ClassVar[ErrorDomain] = ErrorDomain.QEMU
    _by_code: ClassVar[dict[int, type[SternaError]]] = {}

    def __init_subclass__(cls) -> None:
        if "code" in cls.__dict__:
            SternaError._by_code.setdefault(int(cls.code), cls)

    def __init__(self, detail: str = "", *, domain: ErrorDomain | int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.peer_message: str | None = None
        self.domain = int(self.default_domain if domain is None else domain)

    @property
    def number(self) -> int:
        """The code as the wire carries it."""
        return int(self.code)

    @property
    def message(self) -> str:
        """The whole text a client shows."""
        if not self.opening:
            return self.detail
        return f"{self.opening}: {self.detail}" if self.detail else self.opening

    def __str__(self) -> str:
        return self.message if self.peer_message is None else self.peer_message


class InternalError(SternaError):
    code = Code.INTERNAL_ERROR
    opening = "internal error"


class NoSupport(SternaError):
    """The procedure is not served; `detail` is the API's name (virDomainFoo)."""

    code = Code.NO_SUPPORT
    opening = "this function is not supported by the connection driver"


class NoConnect(SternaError):
    """No driver for a URI; `detail` is the URI."""

    code = Code.NO_CONNECT
    opening = "no connection driver available for"
    default_domain = ErrorDomain.NONE

    @property
    def message(self) -> str:
        return f"{self.opening} {self.detail}" if self.detail else "no connection driver available"


class InvalidArg(SternaError):
    code = Code.INVALID_ARG
    opening = "invalid argument"


class BadArgument(InvalidArg):
    """An argument no caller should ever pass (unknown flags, a value out of range).

    Its text has no opening (observed with libvirt 9.0): "unsupported flags (0x63) in function F".
    """

    opening = ""


class OperationFailed(SternaError):
    code = Code.OPERATION_FAILED
    opening = "operation failed"


class OsTypeUnknown(SternaError):
    code = Code.OS_TYPE
    opening = "unknown OS type"
    default_domain = ErrorDomain.DOMAIN


class NoSource(SternaError):
    """A device without what is behind it; `detail` names the device."""

    code = Code.NO_SOURCE
    opening = "missing source information for device"
    default_domain = ErrorDomain.DOMAIN

    @property
    def message(self) -> str:
        return f"{self.opening} {self.detail}" if self.detail else self.opening


class NoTarget(NoSource):
    """A device without its name in the guest."""

    code = Code.NO_TARGET
    opening = "missing target information for device"


class NoName(SternaError):
    """A definition without a name."""

    code = Code.NO_NAME
    opening = "missing name information"
    default_domain = ErrorDomain.DOMAIN


class XmlError(SternaError):
    """A well-formed document that does not say what it must."""

    code = Code.XML_ERROR
    opening = "XML error"
    default_domain = ErrorDomain.DOMAIN


class DomainExists(SternaError):
    code = Code.DOM_EXIST
    opening = "domain"

    @property
    def message(self) -> str:
        return (
            f"domain {self.detail} exists already" if self.detail else "this domain exists already"
        )


class OperationDenied(SternaError):
    code = Code.OPERATION_DENIED
    opening = "operation forbidden"
    default_domain = ErrorDomain.DOMAIN


class ConfSyntax(SternaError):
    code = Code.CONF_SYNTAX
    opening = "configuration file syntax error"
    default_domain = ErrorDomain.CONF


class XmlDetail(SternaError):
    """A document that is not well-formed XML; the detail stands alone."""

    code = Code.XML_DETAIL
    opening = ""
    default_domain = ErrorDomain.DOMAIN


class SystemCallError(SternaError):
    """A system call failed. Carries errno for clients (int1 of the wire's error).

    Args:
        detail: what was attempted, for example "Unable to open /x".
        errno: the number; its text is appended.
    """

    code = Code.SYSTEM_ERROR
    opening = ""

    def __init__(
        self, detail: str = "", *, errno: int = 0, domain: ErrorDomain | int | None = None
    ) -> None:
        super().__init__(f"{detail}: {os.strerror(errno)}" if errno else detail, domain=domain)
        self.errno = errno


class RpcError(SternaError):
    code = Code.RPC
    opening = ""
    default_domain = ErrorDomain.RPC


class NoDomain(SternaError):
    code = Code.NO_DOMAIN
    opening = "Domain not found"


class NoNetwork(SternaError):
    code = Code.NO_NETWORK
    opening = "Network not found"
    default_domain = ErrorDomain.NETWORK


class AuthFailed(SternaError):
    code = Code.AUTH_FAILED
    opening = "authentication failed"
    default_domain = ErrorDomain.RPC


class NoStoragePool(SternaError):
    code = Code.NO_STORAGE_POOL
    opening = "Storage pool not found"
    default_domain = ErrorDomain.STORAGE


class NoStorageVol(SternaError):
    code = Code.NO_STORAGE_VOL
    opening = "Storage volume not found"
    default_domain = ErrorDomain.STORAGE


class NoNodeDevice(SternaError):
    code = Code.NO_NODE_DEVICE
    opening = "Node device not found"
    default_domain = ErrorDomain.NODEDEV


class OperationInvalid(SternaError):
    """The guest or the host is not in a state that allows this."""

    code = Code.OPERATION_INVALID
    opening = "Requested operation is not valid"


class NoInterface(SternaError):
    code = Code.NO_INTERFACE
    opening = "Interface not found"
    default_domain = ErrorDomain.INTERFACE


class NoNwfilter(SternaError):
    code = Code.NO_NWFILTER
    opening = "Network filter not found"
    default_domain = ErrorDomain.NWFILTER


class NoSecret(SternaError):
    code = Code.NO_SECRET
    opening = "Secret not found"
    default_domain = ErrorDomain.SECRET


class ConfigUnsupported(SternaError):
    """The XML asks for something that is not understood or cannot be given here."""

    code = Code.CONFIG_UNSUPPORTED
    opening = "unsupported configuration"


class OperationTimeout(SternaError):
    code = Code.OPERATION_TIMEOUT
    opening = "Timed out during operation"


class NoDomainSnapshot(SternaError):
    code = Code.NO_DOMAIN_SNAPSHOT
    opening = "Domain snapshot not found"


class StorageVolExists(SternaError):
    code = Code.STORAGE_VOL_EXIST
    opening = ""
    default_domain = ErrorDomain.STORAGE


class ArgumentUnsupported(SternaError):
    code = Code.ARGUMENT_UNSUPPORTED
    opening = "argument unsupported"


class OperationAborted(SternaError):
    code = Code.OPERATION_ABORTED
    opening = "operation aborted"


class NoDomainMetadata(SternaError):
    code = Code.NO_DOMAIN_METADATA
    opening = "metadata not found"
    default_domain = ErrorDomain.DOMAIN


class MigrateUnsafe(SternaError):
    code = Code.MIGRATE_UNSAFE
    opening = "Unsafe migration"


class Overflow(SternaError):
    code = Code.OVERFLOW
    opening = "numerical overflow"


class OperationUnsupported(SternaError):
    code = Code.OPERATION_UNSUPPORTED
    opening = "Operation not supported"


class AgentUnresponsive(SternaError):
    code = Code.AGENT_UNRESPONSIVE
    opening = "Guest agent is not responding"


class ResourceBusy(SternaError):
    code = Code.RESOURCE_BUSY
    opening = "resource busy"


class AccessDenied(SternaError):
    code = Code.ACCESS_DENIED
    opening = "access denied"


class CpuIncompatible(SternaError):
    code = Code.CPU_INCOMPATIBLE
    opening = "the CPU is incompatible with host CPU"
    default_domain = ErrorDomain.CPU


class XmlInvalidSchema(SternaError):
    code = Code.XML_INVALID_SCHEMA
    opening = "XML document failed to validate against schema"
    default_domain = ErrorDomain.DOMAIN


class MigrateFinishOk(SternaError):
    """The expected answer to a Finish that was told to cancel (code 93)."""

    code = Code.MIGRATE_FINISH_OK
    opening = "migration successfully aborted"


class DeviceMissing(SternaError):
    code = Code.DEVICE_MISSING
    opening = "device not found"


class NoNwfilterBinding(SternaError):
    code = Code.NO_NWFILTER_BINDING
    opening = "Network filter binding not found"
    default_domain = ErrorDomain.NWFILTER


class NoDomainCheckpoint(SternaError):
    code = Code.NO_DOMAIN_CHECKPOINT
    opening = "Domain checkpoint not found"


class NoDomainBackup(SternaError):
    code = Code.NO_DOMAIN_BACKUP
    opening = "Domain backup job id not found"


class UnknownError(SternaError):
    """An error from a peer whose code we have no class for; number and text are kept."""

    opening = ""

    def __init__(self, number: int, detail: str, *, domain: int = 0) -> None:
        super().__init__(detail, domain=domain)
        self._number = number

    @property
    def number(self) -> int:
        return self._number


def error_for(number: int, message: str, *, domain: int = 0) -> SternaError:
    """The error a peer sent, as the class we would have raised ourselves.

    The opening that the peer already put into `message` is not repeated.
    """
    cls = SternaError._by_code.get(number)
    if cls is None:
        return UnknownError(number, message, domain=domain)
    error = cls.__new__(cls)
    prefix = f"{cls.opening}: "
    detail = message[len(prefix) :] if cls.opening and message.startswith(prefix) else message
    SternaError.__init__(error, detail, domain=domain)
    if isinstance(error, SystemCallError):
        error.errno = 0
    error.peer_message = message
    return error
