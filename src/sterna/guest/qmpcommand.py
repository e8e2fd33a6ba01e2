"""A person talks to a guest's QEMU directly. What they break is theirs; it is logged."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from sterna.errors import InternalError
from sterna.guest.jobs import Call
from sterna.qemu.qmp_errors import QmpError

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

log = logging.getLogger("sterna.guest.qmpcommand")

HMP: Final = 1
"""Flag: the command is in the human monitor's language."""

COMMAND_S: Final = 30.0
_number = count(1)


async def run(
    guest: Guest, command: str, flags: int = 0, api: str = "qemuDispatchDomainMonitorCommand"
) -> str:
    """Run a monitor command and return QEMU's answer, errors included, as text.

    Raises: OperationInvalid (55), InternalError (1) if the command is no JSON object.
    """

    async def work() -> str:
        qemu = guest.live_or_refuse().qemu
        log.info("guest.monitor_command guest=%s command=%r", guest.name, command[:200])
        if flags & HMP:
            line = {"command-line": command}
            return str(await qemu.execute("human-monitor-command", line, timeout_s=COMMAND_S))
        name, arguments, ident = _parsed(command)
        try:
            answer = await qemu.execute(name, arguments, timeout_s=COMMAND_S)
        except QmpError as exc:
            return json.dumps({"id": ident, "error": {"class": exc.cls, "desc": exc.desc}})
        return json.dumps({"return": answer, "id": ident})

    guest.live_or_refuse()
    return await guest.do(Call.QUERY, api, work)


def _parsed(command: str) -> tuple[str, Mapping[str, Any], object]:
    try:
        said = json.loads(command)
        name, arguments = said["execute"], said.get("arguments", {})
    except (ValueError, KeyError, TypeError) as exc:
        raise InternalError(f"cannot parse json {command[:200]}: {exc}") from exc
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise InternalError(f"cannot parse json {command[:200]}: not a command")
    return name, arguments, said.get("id", f"sterna-{next(_number)}")
