"""A guest's display through a descriptor: for viewers that shall not need a port or a password."""

from __future__ import annotations

import os
import socket
from typing import Any

from sterna.errors import ConfigUnsupported, InternalError, InvalidArg
from sterna.guest.actor import Guest
from sterna.guest.jobs import Call as Job
from sterna.rpc.asyncio_shell import Call
from sterna.rpc.sockets import close_fds
from sterna.server.dispatch import check_flags, handles
from sterna.server.objects import find
from sterna.server.session import Session

SKIP_AUTHENTICATION = 1
FD_NAME = "sterna-graphics"
MONITOR_S = 10.0


@handles("DOMAIN_OPEN_GRAPHICS", whole_call=True)
async def domain_open_graphics(session: Session, call: Call) -> None:
    """The client brings one end of a socket; QEMU serves the display there."""
    args: Any = call.args
    fds = call.take_fds()
    try:
        check_flags(args.flags, SKIP_AUTHENTICATION, "qemuDomainOpenGraphics")
        if not fds:
            raise InternalError("No FD available at slot 0")
        await give(find(session, args.dom), args.idx, fds[0], args.flags)
    finally:
        close_fds(fds)
    session.connection.reply(call)


@handles("DOMAIN_OPEN_GRAPHICS_FD", whole_call=True)
async def domain_open_graphics_fd(session: Session, call: Call) -> None:
    """We make the socket, and the client gets the other end."""
    args: Any = call.args
    check_flags(args.flags, SKIP_AUTHENTICATION, "qemuDomainOpenGraphicsFD")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        await give(find(session, args.dom), args.idx, theirs.fileno(), args.flags)
        session.connection.reply(call, fds=(ours.fileno(),))


async def give(guest: Guest, index: int, fd: int, flags: int) -> None:
    """Have QEMU serve a display on a descriptor. The caller keeps its own.

    Raises:
        InternalError: there is no such display.
        InvalidArg: the descriptor is not a socket.
        ConfigUnsupported: it is of a kind that cannot be opened so.
    """

    guest.live_or_refuse()
    # A descriptor of our own: the work goes on when its client hangs up, and the caller closes his.
    # Should it never begin, the object's end closes it.
    number = os.dup(fd)
    try:
        copy = socket.socket(fileno=number)
    except OSError as error:
        os.close(number)
        raise InvalidArg("a display is served on sockets only") from error

    async def work() -> None:
        with copy:
            await serve(copy.fileno())

    async def serve(number: int) -> None:
        running = guest.live_or_refuse()
        displays = running.definition.devices.graphics
        if index >= len(displays):
            raise InternalError(f"No graphics backend with index {index}")
        protocol = displays[index].type
        if protocol not in ("vnc", "spice"):
            raise ConfigUnsupported(f"Can only open VNC or SPICE graphics backends, not {protocol}")
        await running.qemu.execute("getfd", {"fdname": FD_NAME}, timeout_s=MONITOR_S, fds=(number,))
        arguments = {
            "protocol": protocol,
            "fdname": FD_NAME,
            "skipauth": bool(flags & SKIP_AUTHENTICATION),
        }
        await running.qemu.execute("add_client", arguments, timeout_s=MONITOR_S)

    await guest.do(Job.MODIFY, "remoteDispatchDomainOpenGraphics", work)
