"""Commands on one host's guests: list, show, define, undefine, start, stop, pause, resume."""

from __future__ import annotations

import sys
from pathlib import Path

from sterna.cli.command import Argument, Command, Context, guest_argument
from sterna.cli.exits import Exit
from sterna.cli.output import (
    format_bytes,
    format_ms,
    print_fields,
    print_json,
    print_table,
)
from sterna.client.guest import reason_label, state_label
from sterna.client.types import GuestInfo
from sterna.errors import InvalidArg, OperationTimeout

STOP_TIMEOUT_S = 60


def info_fields(info: GuestInfo) -> dict[str, object]:
    """A guest under the names that `--json` prints."""
    return {
        "name": info.name,
        "uuid": str(info.uuid),
        "id": info.id,
        "state": state_label(info.state),
        "reason": reason_label(info.state, info.reason),
        "persistent": info.persistent,
        "autostart": info.autostart,
        "vcpus": info.vcpus,
        "memory_kib": info.memory_kib,
        "max_memory_kib": info.max_memory_kib,
        "cpu_time_ns": info.cpu_time_ns,
    }


async def run_list(context: Context) -> int:
    """Guests by name; running ones only, unless `--all`."""
    if context.args.names:
        guests = await context.host.guests(inactive=context.args.all)
        sys.stdout.writelines(f"{guest.name}\n" for guest in sorted(guests, key=lambda g: g.name))
        return Exit.OK
    infos = await context.host.infos(inactive=context.args.all)
    infos = sorted(infos, key=lambda info: info.name)
    if context.json:
        print_json([info_fields(info) for info in infos])
        return Exit.OK
    rows = [
        [
            "-" if info.id is None else str(info.id),
            info.name,
            state_label(info.state),
            str(info.vcpus),
            format_bytes(info.memory_kib * 1024),
        ]
        for info in infos
    ]
    print_table(["ID", "NAME", "STATE", "VCPUS", "MEMORY"], rows, terminal=context.terminal)
    return Exit.OK


async def run_show(context: Context) -> int:
    """One guest in full, or its XML."""
    guest = context.host.guest(context.args.guest)
    if context.args.xml:
        sys.stdout.write(await guest.xml(inactive=context.args.inactive))
        return Exit.OK
    info = await guest.info()
    job, messages = await guest.job(), await guest.messages()
    if context.json:
        print_json({**info_fields(info), "job": job, "messages": messages})
        return Exit.OK
    print_fields(
        {
            "Name": info.name,
            "UUID": str(info.uuid),
            "State": f"{state_label(info.state)} ({reason_label(info.state, info.reason)})",
            "ID": "-" if info.id is None else str(info.id),
            "vCPUs": str(info.vcpus),
            "Memory": f"{format_bytes(info.memory_kib * 1024)}"
            f" of {format_bytes(info.max_memory_kib * 1024)}",
            "CPU time": format_ms(info.cpu_time_ns / 1e6),
            "Persistent": "yes" if info.persistent else "no",
            "Autostart": "yes" if info.autostart else "no",
            "Job": "none" if job is None else str(job["operation"]),
            **{"Note" if not n else f"Note {n + 1}": text for n, text in enumerate(messages)},
        }
    )
    return Exit.OK


def read_xml(path: str) -> str:
    """A domain XML file, or standard input for `-`.

    Raises:
        InvalidArg: it cannot be read or is not text.
    """
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidArg(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidArg(f"{path} is not UTF-8 text: {error.reason}") from error


async def run_define(context: Context) -> int:
    """Keeps a guest's definition; starts it as well if asked."""
    guest = await context.host.define(read_xml(context.args.file))
    if context.args.start:
        await guest.start()
    return await report(context, guest.name, "started" if context.args.start else "defined")


async def run_undefine(context: Context) -> int:
    """Forgets a guest's definition."""
    guest = context.host.guest(context.args.guest)
    await guest.undefine(nvram=context.args.nvram)
    if context.json:
        print_json({"name": guest.name, "undefined": True})
    else:
        sys.stdout.write(f"{guest.name} is undefined\n")
    return Exit.OK


async def run_start(context: Context) -> int:
    """Starts a defined guest."""
    await context.host.guest(context.args.guest).start(paused=context.args.paused)
    return await report(context, context.args.guest, "started")


async def run_stop(context: Context) -> int:
    """Asks the guest to shut down and waits; `--force` does not ask."""
    guest = context.host.guest(context.args.guest)
    if context.args.force:
        await guest.destroy()
    else:
        try:
            await guest.shutdown_and_wait(timeout_s=context.args.timeout)
        except TimeoutError:
            raise OperationTimeout(
                f"{context.args.guest} still runs {context.args.timeout} s after it was asked to "
                "shut down; it may not listen to its power button: sterna stop --force ends it"
            ) from None
    if context.json:
        print_json({"name": context.args.guest, "stopped": True})
    else:
        sys.stdout.write(f"{context.args.guest} is stopped\n")
    return Exit.OK


async def run_pause(context: Context) -> int:
    """Stops the guest's CPUs."""
    await context.host.guest(context.args.guest).suspend()
    return await report(context, context.args.guest, "paused")


async def run_resume(context: Context) -> int:
    """Lets the guest's CPUs run again."""
    await context.host.guest(context.args.guest).resume()
    return await report(context, context.args.guest, "resumed")


async def report(context: Context, name: str, done: str) -> int:
    """Says what was done and what the guest is now."""
    info = await context.host.guest(name).info()
    if context.json:
        print_json(info_fields(info))
    else:
        sys.stdout.write(f"{info.name} is {done}: {state_label(info.state)}\n")
    return Exit.OK


LIST = Command(
    "list",
    "list guests",
    "Lists the running guests of a host; with --all, those that are shut off too.",
    run_list,
    (
        Argument(("-a", "--all"), "shut-off guests too", {"action": "store_true"}),
        Argument(("--names",), "only names, one a line", {"action": "store_true"}),
    ),
    example="sterna list --all",
)
SHOW = Command(
    "show",
    "show one guest",
    "Shows a guest's state, memory and job, or its domain XML.",
    run_show,
    (
        guest_argument(),
        Argument(("--xml",), "print the domain XML", {"action": "store_true"}),
        Argument(
            ("--inactive",),
            "with --xml: the definition that the next start will use",
            {"action": "store_true"},
        ),
    ),
    example="sterna show web1 --xml",
)
DEFINE = Command(
    "define",
    "define a guest from domain XML",
    "Keeps a guest's definition, replacing an older one of the same name and UUID.",
    run_define,
    (
        Argument(("file",), "domain XML file, - for standard input", {"metavar": "FILE"}, "file"),
        Argument(("--start",), "start it as well", {"action": "store_true"}),
    ),
    example="sterna define web1.xml --start",
)
UNDEFINE = Command(
    "undefine",
    "forget a guest's definition",
    "Forgets a guest's definition. Its disks are not touched.",
    run_undefine,
    (
        guest_argument(),
        Argument(("--nvram",), "remove its UEFI variables too", {"action": "store_true"}),
    ),
    example="sterna undefine web1",
)
START = Command(
    "start",
    "start a guest",
    "Starts a defined guest.",
    run_start,
    (
        guest_argument(),
        Argument(("--paused",), "leave its CPUs stopped", {"action": "store_true"}),
    ),
    example="sterna start web1",
)
STOP = Command(
    "stop",
    "stop a guest",
    "Asks the guest to shut down and waits until it has; --force ends it at once.",
    run_stop,
    (
        guest_argument(),
        Argument(("-f", "--force"), "end it at once, as if unplugged", {"action": "store_true"}),
        Argument(
            ("--timeout",),
            f"how long to wait for it, in seconds (default {STOP_TIMEOUT_S})",
            {"type": float, "default": STOP_TIMEOUT_S, "metavar": "SECONDS"},
        ),
    ),
    example="sterna stop web1",
)
PAUSE = Command(
    "pause",
    "stop a guest's CPUs",
    "Stops a guest's CPUs; its memory stays.",
    run_pause,
    (guest_argument(),),
    example="sterna pause web1",
)
RESUME = Command(
    "resume",
    "let a paused guest run",
    "Lets a paused guest's CPUs run again.",
    run_resume,
    (guest_argument(),),
    example="sterna resume web1",
)
