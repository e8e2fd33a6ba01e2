"""The way through to QEMU itself: monitor commands, keys; and what needs an agent in the guest."""

from __future__ import annotations

import itertools
import json
from typing import Any

from sterna.errors import BadArgument, ErrorDomain, InternalError
from sterna.guest.actor import Guest
from sterna.guest.jobs import Call as Job
from sterna.qemu.qmp_errors import QmpError
from sterna.rpc.msg_device import DomainSendKeyArgs
from sterna.rpc.msg_qemu import DomainMonitorCommandArgs, DomainMonitorCommandRet
from sterna.server.dispatch import check_flags, handles
from sterna.server.handlers.info import no_guest_agent
from sterna.server.keycodes import CODESETS, to_qnum
from sterna.server.objects import find
from sterna.server.session import Session

MONITOR_HMP = 1
COMMAND_S = 60.0
"""A person's own command may take longer than ours; for ever it may not."""
KEY_S = 10.0
HOLD_MS_MAX = 60_000

_ids = itertools.count(1)


@handles("DOMAIN_MONITOR_COMMAND")
async def domain_monitor_command(
    session: Session, args: DomainMonitorCommandArgs
) -> DomainMonitorCommandRet:
    check_flags(args.flags, MONITOR_HMP, "qemuDomainQemuMonitorCommandWithFiles")
    guest = find(session, args.dom)
    guest.live_or_refuse()
    if args.flags & MONITOR_HMP:
        command, arguments = "human-monitor-command", {"command-line": args.cmd}
        answer = await execute(guest, command, arguments)
        return DomainMonitorCommandRet(result=str(answer))
    command, arguments, refusal = parse_command(args.cmd)
    if refusal is not None:
        return DomainMonitorCommandRet(result=encode({"error": refusal}))
    identity = f"sterna-{next(_ids)}"
    try:
        answer = await execute(guest, command, arguments)
    except QmpError as error:
        said = {"class": error.cls, "desc": error.desc}
        return DomainMonitorCommandRet(result=encode({"id": identity, "error": said}))
    return DomainMonitorCommandRet(result=encode({"return": answer, "id": identity}))


async def execute(guest: Guest, command: str, arguments: dict[str, Any]) -> Any:
    """Run one command of a person's. It reads or does what it likes: a query's job is held."""

    async def work() -> Any:
        return await guest.live_or_refuse().qemu.execute(command, arguments, timeout_s=COMMAND_S)

    return await guest.do(Job.QUERY, "remoteDispatchDomainQemuMonitorCommand", work)


def encode(answer: dict[str, Any]) -> str:
    """As QEMU writes it on one line."""
    return json.dumps(answer, separators=(",", ":"))


def parse_command(text: str) -> tuple[str, dict[str, Any], dict[str, str] | None]:
    """A command's name and arguments, or what QEMU would answer to it.

    Raises:
        InternalError: it is not JSON, or names its own id.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InternalError(
            f"cannot parse json {text[:200]}: {error}", domain=ErrorDomain.NONE
        ) from error
    if not isinstance(given, dict):
        return "", {}, {"class": "GenericError", "desc": "QMP input must be a JSON object"}
    if "id" in given:
        raise InternalError("Unable to append command 'id' string")
    odd = next((key for key in given if key not in {"execute", "arguments"}), None)
    if odd is not None:
        desc = f"QMP input member '{odd}' is unexpected"
        return "", {}, {"class": "GenericError", "desc": desc}
    command, arguments = given.get("execute"), given.get("arguments", {})
    if not isinstance(command, str):
        desc = "QMP input lacks member 'execute'"
        return "", {}, {"class": "GenericError", "desc": desc}
    if not isinstance(arguments, dict):
        desc = "QMP input member 'arguments' must be an object"
        return "", {}, {"class": "GenericError", "desc": desc}
    return command, arguments, None


@handles("DOMAIN_SEND_KEY")
async def domain_send_key(session: Session, args: DomainSendKeyArgs) -> None:
    check_flags(args.flags, 0, "qemuDomainSendKey")
    guest = find(session, args.dom)
    if args.codeset >= len(CODESETS):
        raise BadArgument(f"Unsupported codeset '{args.codeset}'", domain=ErrorDomain.DOMAIN)
    keys = [{"type": "number", "data": to_qnum(args.codeset, code)} for code in args.keycodes]
    arguments: dict[str, Any] = {"keys": keys}
    if args.holdtime:
        arguments["hold-time"] = min(args.holdtime, HOLD_MS_MAX)

    async def work() -> None:
        await guest.live_or_refuse().qemu.execute("send-key", arguments, timeout_s=KEY_S)

    guest.live_or_refuse()
    await guest.do(Job.MODIFY, "remoteDispatchDomainSendKey", work)


@handles(
    "DOMAIN_AGENT_COMMAND",
    "DOMAIN_GET_HOSTNAME",
    "DOMAIN_GET_TIME",
    "DOMAIN_SET_TIME",
    "DOMAIN_GET_FSINFO",
    "DOMAIN_GET_GUEST_INFO",
    "DOMAIN_GET_GUEST_VCPUS",
    "DOMAIN_SET_GUEST_VCPUS",
    "DOMAIN_FSFREEZE",
    "DOMAIN_FSTHAW",
    "DOMAIN_FSTRIM",
    "DOMAIN_SET_USER_PASSWORD",
    "DOMAIN_PM_SUSPEND_FOR_DURATION",
    "DOMAIN_AUTHORIZED_SSH_KEYS_GET",
    "DOMAIN_AUTHORIZED_SSH_KEYS_SET",
)
def needs_agent(session: Session, args: Any) -> None:
    """The guest's agent is not spoken to; clients know this answer and show it well."""
    raise no_guest_agent(find(session, args.dom))
