"""Commands that stay: `sterna console` and `sterna events`."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from sterna.cli.command import Argument, Command, Context, guest_argument
from sterna.cli.exits import Exit
from sterna.cli.output import print_json_line
from sterna.client.console import Console
from sterna.client.types import GuestEvent

ESCAPE = b"\x1d"  # Ctrl-], as with telnet and virsh
READ_BYTES = 4096


async def run_console(context: Context) -> int:
    """Joins standard input and output to the guest's console."""
    args = context.args
    guest = context.host.guest(args.guest)
    async with guest.console(args.device, force=args.force) as console:
        if sys.stdin.isatty():
            sys.stderr.write(f"Connected to {args.guest}; Ctrl-] leaves.\r\n")
        with raw_terminal():
            await join(console)
    return Exit.OK


async def join(console: Console) -> None:
    """Copies both ways until the guest's console ends or the user leaves."""
    typed = typed_input()
    writer = asyncio.ensure_future(_send(console, typed))  # ended below
    reader = asyncio.ensure_future(_show(console))  # ended below
    try:
        await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (writer, reader):
            task.cancel()


async def _show(console: Console) -> None:
    while data := await console.read():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


async def _send(console: Console, typed: asyncio.Queue[bytes]) -> None:
    while True:
        data = await typed.get()
        before, escape, _ = data.partition(ESCAPE)
        if before:
            await console.write(before)
        if escape:
            return


def typed_input() -> asyncio.Queue[bytes]:
    """What the user types, as it comes. The end of a piped input leaves the console open: the
    guest's answer is still to come."""
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    stdin = sys.stdin.fileno()

    def readable() -> None:
        data = os.read(stdin, READ_BYTES)
        if data:
            queue.put_nowait(data)
        else:
            loop.remove_reader(stdin)

    try:
        loop.add_reader(stdin, readable)
    except PermissionError:
        # A regular file cannot be waited for (epoll): it is all there already.
        queue.put_nowait(sys.stdin.buffer.read())
    return queue


@contextmanager
def raw_terminal() -> Iterator[None]:
    """Keys go to the guest as they are; the terminal is put back whatever happens."""
    if not sys.stdin.isatty():
        yield
        return
    saved = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, saved)


async def run_events(context: Context) -> int:
    """Prints events until Ctrl-C, or until the asked number has come."""
    args = context.args
    left = args.count
    async with context.host.events() as events:
        # On the other channel, so that a pipe gets events alone and a script knows when to act.
        sys.stderr.write(f"sterna: listening at {context.host.uri}; Ctrl-C leaves\n")
        async for event in events:
            if args.guest and args.guest not in (event.guest, str(event.uuid)):
                continue
            show_event(event, as_json=context.json)
            if left:
                left -= 1
                if not left:
                    return Exit.OK
    return Exit.OK


def show_event(event: GuestEvent, *, as_json: bool) -> None:
    """One event on one line."""
    if as_json:
        print_json_line(
            {
                "at": event.at.isoformat(timespec="milliseconds"),
                "kind": event.kind,
                "guest": event.guest,
                "uuid": str(event.uuid),
                **({"event": event.event, "detail": event.detail} if event.event else {}),
                **event.data,
            }
        )
        return
    at = event.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    what = f"{event.event} ({event.detail})" if event.event else event.kind
    data = "" if event.event else " ".join(f"{name}={value}" for name, value in event.data.items())
    sys.stdout.write(f"{at}  {event.guest}  {what}  {data}".rstrip() + "\n")
    sys.stdout.flush()


CONSOLE = Command(
    "console",
    "join a guest's serial console",
    "Joins the terminal to a guest's serial console; Ctrl-] leaves.",
    run_console,
    (
        guest_argument(),
        Argument(("--device",), "alias of the device (default: the first)", {"metavar": "ALIAS"}),
        Argument(("--force",), "end another session on it", {"action": "store_true"}),
    ),
    example="sterna console web1",
)
EVENTS = Command(
    "events",
    "print what happens to guests",
    "Prints events as they happen, until Ctrl-C.",
    run_events,
    (
        Argument(
            ("guest",), "only this guest's", {"metavar": "GUEST", "nargs": "?"}, completes="guest"
        ),
        Argument(
            ("--count",),
            "leave after this many (default: stay)",
            {"metavar": "N", "type": int, "default": 0},
        ),
    ),
    example="sterna events --json",
)
