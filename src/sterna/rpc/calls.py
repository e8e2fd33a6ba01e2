"""The one table of procedures. Server dispatch and client calls both read it.

The rows are text in `table_host` and `table_domain`, one procedure a line, under `[area]`::

    14 DOMAIN_GET_XML_DESC AR low flags&9

number, name, which of arguments (A) and reply (R) there are, priority, who may call:

    ro          everybody
    rw          only read-write connections
    flags&N     read-only ones too, unless one of the bits N is set in `flags`
    source=N    read-only ones too, unless `source` is N

then perhaps the stream it opens (up, down or bidi; `+sparse` where flag 1 allows holes) and
which packets carry file descriptors (fds:call, fds:reply, fds:both). Events say `event` instead.

Message classes live in `msg_<area>`, which is imported when its first message is needed.
They are named after the procedure: DOMAIN_GET_XML_DESC has DomainGetXmlDescArgs and ...Ret;
events end in Msg. "high" priority means: never waits for a hypervisor's monitor.
"""

from __future__ import annotations

from enum import IntEnum
from importlib import import_module
from typing import Literal, cast

from sterna.rpc import table_domain, table_host
from sterna.xdr.message import Message

REMOTE_PROGRAM = 0x20008086
QEMU_PROGRAM = 0x20008087
KEEPALIVE_PROGRAM = 0x6B656570
STERNA_PROGRAM = 0x53746572
"""Our own: "Ster". Other daemons refuse it as they refuse any program they do not know."""
PROTOCOL_VERSION = 1

QEMU_ROWS = """
[qemu]
1 DOMAIN_MONITOR_COMMAND AR low rw
2 DOMAIN_ATTACH AR low rw
3 DOMAIN_AGENT_COMMAND AR low rw
4 CONNECT_DOMAIN_MONITOR_EVENT_REGISTER AR high rw
5 CONNECT_DOMAIN_MONITOR_EVENT_DEREGISTER A- high ro
6 DOMAIN_MONITOR_EVENT event
7 DOMAIN_MONITOR_COMMAND_WITH_FILES AR low rw fds:both
"""

STERNA_ROWS = """
[decision]
1 MIGRATION_DECIDE AR high rw
2 GUEST_CLAIM AR high rw
6 MIGRATION_REJOIN AR high rw
[story]
3 GUEST_HISTORY AR high ro
4 GUEST_EVIDENCE AR low ro
5 GUEST_RECONCILE AR low rw
"""

_ACRONYMS = {
    "xml": "XML", "id": "ID", "uuid": "UUID", "os": "OS", "uri": "URI", "cpu": "CPU", "nmi": "NMI",
    "pm": "PM", "fsinfo": "FSInfo", "fsfreeze": "FSFreeze", "fsthaw": "FSThaw", "fstrim": "FSTrim",
    "fd": "FD", "iothread": "IOThread", "nwfilter": "NWFilter", "sev": "SEV", "ssh": "SSH",
    "dhcp": "DHCP", "mac": "MAC", "scsi": "SCSI", "wwn": "WWN", "io": "Io", "dettach": "Dettach",
    "tunnel3": "Tunnel3", "pmsuspend": "PMSuspend",
}  # fmt: skip


class Keepalive(IntEnum):
    """Procedures of the keepalive program."""

    PING = 1
    PONG = 2


Stream = Literal["up", "down", "bidi"]


class Procedure:
    """One row of the table; immutable. Compare by identity: there is one object per procedure."""

    __slots__ = (
        "_args", "_ret", "area", "denied_flags", "denied_source", "fds_in_call", "fds_in_reply",
        "has_args", "has_ret", "high_priority", "is_event", "name", "number", "program",
        "read_only", "sparse", "stream",
    )  # fmt: skip

    def __init__(self, program: int, area: str, row: str) -> None:
        number, name, shape, *rest = row.split()
        self.program = program
        self.area = area
        self.number = int(number)
        self.name = name
        self.is_event = shape == "event"
        self.has_args = self.is_event or "A" in shape
        self.has_ret = "R" in shape
        self._args: type[Message] | None = None
        self._ret: type[Message] | None = None
        self.high_priority = "high" in rest
        self.read_only = "rw" not in rest
        self.denied_flags = _number_after("flags&", rest)
        self.denied_source = _number_after("source=", rest)
        ways = [word.removesuffix("+sparse") for word in rest]
        self.stream = next((cast("Stream", w) for w in ways if w in ("up", "down", "bidi")), None)
        self.sparse = any(word.endswith("+sparse") for word in rest)
        self.fds_in_call = "fds:call" in rest or "fds:both" in rest
        self.fds_in_reply = "fds:reply" in rest or "fds:both" in rest

    @property
    def args(self) -> type[Message] | None:
        """Class of the arguments (of the payload, for an event). None where there are none."""
        if self._args is None and self.has_args:
            self._args = self._message("Msg" if self.is_event else "Args")
        return self._args

    @property
    def ret(self) -> type[Message] | None:
        """Class of the reply. None where it is empty."""
        if self._ret is None and self.has_ret:
            self._ret = self._message("Ret")
        return self._ret

    @property
    def api_name(self) -> str:
        """The public API's name for it, as error texts use it: virDomainGetXMLDesc."""
        name = self.name.replace("EVENT_CALLBACK_", "EVENT_")
        if self.program == QEMU_PROGRAM:
            name = name.replace("DOMAIN_", "DOMAIN_QEMU_")
        words = name.lower().split("_")
        return "vir" + "".join(_ACRONYMS.get(word, word.capitalize()) for word in words)

    def denied_read_only(self, args: Message | None) -> str | None:
        """Why a read-only connection may not make this call; None if it may.

        The text is the detail of an `OperationDenied` (wording: libvirt 9.0, observed).
        """
        if not self.read_only:
            return f"read only access prevents {self.api_name}"
        if self.denied_flags and getattr(args, "flags", 0) & self.denied_flags:
            return f"{self.api_name} with secure flag"
        if self.denied_source and getattr(args, "source", 0) == self.denied_source:
            return f"read only access prevents {self.api_name}"
        return None

    def _message(self, suffix: str) -> type[Message]:
        module = import_module(f"sterna.rpc.msg_{self.area}")
        words = "".join(word.capitalize() for word in self.name.split("_"))
        return cast("type[Message]", getattr(module, words + suffix))

    def __repr__(self) -> str:
        return f"<{self.name} {self.program:#x}/{self.number}>"


def _number_after(prefix: str, words: list[str]) -> int:
    found = next((word for word in words if word.startswith(prefix)), f"{prefix}0")
    return int(found.removeprefix(prefix))


def _read(program: int, rows: str) -> list[Procedure]:
    procedures = []
    area = ""
    for row in rows.strip().splitlines():
        if row.startswith("["):
            area = row.strip("[]")
        else:
            procedures.append(Procedure(program, area, row))
    return procedures


PROCEDURES = tuple(
    _read(REMOTE_PROGRAM, table_host.ROWS)
    + _read(REMOTE_PROGRAM, table_domain.ROWS)
    + _read(QEMU_PROGRAM, QEMU_ROWS)
    + _read(STERNA_PROGRAM, STERNA_ROWS)
)
PROGRAMS = frozenset({REMOTE_PROGRAM, QEMU_PROGRAM, STERNA_PROGRAM})
BY_NAME = {procedure.name: procedure for procedure in PROCEDURES}
BY_NUMBER = {(procedure.program, procedure.number): procedure for procedure in PROCEDURES}


def procedure(name: str) -> Procedure:
    """The procedure of that name. KeyError if there is none."""
    return BY_NAME[name]


def by_number(program: int, number: int) -> Procedure | None:
    """The procedure of that number, if it is known."""
    return BY_NUMBER.get((program, number))
