"""The QMP work of a post-copy: beginning it, taking it back, and joining it together again.

Observed with QEMU 7.2. A source in `postcopy-active` refuses `cont`, and can be cancelled; then it
may run again, with its images. One in `postcopy-paused` can neither be cancelled nor run: a
`migrate_cancel` there leaves it in `cancelling` for ever. So it is joined to a destination first
that we play ourselves, by the few messages of the migration stream that it waits for; from
`postcopy-active` it can be cancelled. That is done only once nobody else can have the guest (L5).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from typing import Any, Final

from sterna.errors import OperationInvalid
from sterna.guest.ports import Monitor
from sterna.guest.surroundings import MONITOR_S
from sterna.migration import qmp
from sterna.qemu.qmp_errors import QmpError

FD_NAME: Final = "migrate-resume"
CHANGE_S: Final = 5.0
"""How long QEMU may take from one status to the next."""
POLL_S: Final = 0.02
_OVER: Final = ("", "none", "cancelled", "failed", "completed")

# The migration stream, as QEMU 7.2 speaks it: all numbers are big-endian.
_COMMAND: Final = 8
_RESUME, _RECV_BITMAP = 9, 10
_RP_RECV_BITMAP, _RP_RESUME_ACK = 5, 6
_BITMAP_END: Final = 0x0123456789ABCDEF
_RAM_BLOCK: Final = re.compile(r"\s*(\S+)\s+\d+ \w+\s+0x\w+\s+0x(\w+)\s+0x\w+")


async def start(qemu: Monitor) -> None:
    """Let the guest run at the destination from now on. Raises: QmpError, and the monitor's."""
    await qemu.execute("migrate-start-postcopy", timeout_s=MONITOR_S)


async def pause(qemu: Monitor) -> None:
    """Break the connection for pages. Raises: OperationInvalid (55): there is none."""
    try:
        await qemu.execute("migrate-pause", timeout_s=MONITOR_S)
    except QmpError as exc:
        text = "current job is not outgoing migration in post-copy mode"
        raise OperationInvalid(text) from exc


async def withdraw(qemu: Monitor) -> None:
    """Make a source's QEMU let go of its migration; `cont` works afterwards.

    Raises: TimeoutError, OSError, QmpError, and the monitor's.
    """
    async with asyncio.timeout(2 * CHANGE_S):
        cancelled = False
        while (status := await _status(qemu)) not in _OVER:
            if status == "postcopy-paused" and not cancelled:
                await _take_up(qemu)
            elif status not in ("postcopy-recover", "cancelling") and not cancelled:
                await qemu.execute("migrate_cancel", timeout_s=MONITOR_S)
                cancelled = True
            else:
                await asyncio.sleep(POLL_S)  # QEMU tells no other way than by events


async def resume(qemu: Monitor, sock: socket.socket) -> None:
    """Send the pages that are missing at the destination over a new connection.

    Raises: QmpError, and the monitor's.
    """
    await qemu.execute("getfd", {"fdname": FD_NAME}, fds=(sock.fileno(),), timeout_s=MONITOR_S)
    where = {"uri": f"fd:{FD_NAME}", "detach": True, "resume": True}
    await qemu.execute("migrate", where, timeout_s=MONITOR_S)


async def listen_again(qemu: Monitor, uri: str) -> int:
    """Let a destination whose connection is lost listen for another one.

    Returns its port: that of `uri`, or of one where it listens already; 0 if it misses no page.

    Raises: TimeoutError, QmpError, and the monitor's.
    """
    async with asyncio.timeout(CHANGE_S):
        if await _status(qemu) == "postcopy-active":
            # It has not noticed. The source has, so nothing comes over the old one any more.
            await qemu.execute("migrate-pause", timeout_s=MONITOR_S)
        status = await _after(qemu, "postcopy-active")
    if status in _OVER:
        return 0
    # Refused if it listens already, for an attempt that did not arrive.
    with contextlib.suppress(QmpError):
        await qemu.execute("migrate-recover", {"uri": uri}, timeout_s=MONITOR_S)
    places = (await qmp.query(qemu)).get("socket-address") or []
    return int(places[0]["port"]) if places else 0


async def wait_loaded(qemu: Monitor) -> None:
    """Return once a destination's QEMU has loaded the devices; `postcopy-active` comes before.

    Raises: TimeoutError, and the monitor's.
    """
    async with asyncio.timeout(CHANGE_S):
        while True:
            found = await qemu.execute("query-status", timeout_s=MONITOR_S)
            if found["status"] != "inmigrate" or await _status(qemu) != "postcopy-active":
                return
            await asyncio.sleep(POLL_S)


async def _status(qemu: Monitor) -> str:
    return str((await qmp.query(qemu)).get("status", ""))


async def _after(qemu: Monitor, status: str) -> str:
    """QEMU's status once it is another than `status`."""
    while True:
        found = await _status(qemu)
        if found != status:
            return found
        await asyncio.sleep(POLL_S)  # its event may have come before


async def _take_up(qemu: Monitor) -> None:
    """Be the destination that a paused source waits for, until it is active again."""
    reply = await qmp.query(qemu)
    page_size = int((reply.get("ram") or {}).get("page-size", 4096))
    blocks = await _ram_blocks(qemu)
    ours, theirs = socket.socketpair()
    # Nobody but us is at the other end, and we have no certificate.
    await qmp.set_parameters(qemu, {"tls-creds": ""})
    try:
        ours.setblocking(False)
        with theirs:
            await resume(qemu, theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            await _play_destination(reader, writer, blocks, page_size)
            await _after(qemu, "postcopy-recover")
            await qemu.execute("migrate_cancel", timeout_s=MONITOR_S)
        finally:
            writer.close()
    except (asyncio.IncompleteReadError, ValueError) as exc:
        raise OSError(f"the source's QEMU did not take up its migration: {exc}") from exc
    finally:
        ours.close()


async def _ram_blocks(qemu: Monitor) -> dict[bytes, int]:
    """The bytes of each of QEMU's RAM blocks, which only its human monitor tells."""
    line = {"command-line": "info ramblock"}
    text: Any = await qemu.execute("human-monitor-command", line, timeout_s=MONITOR_S)
    found = (_RAM_BLOCK.match(row) for row in str(text).splitlines())
    return {m[1].encode(): int(m[2], 16) for m in found if m is not None}


async def _play_destination(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    blocks: dict[bytes, int],
    page_size: int,
) -> None:
    """Say that no page has arrived, and that it may go on. Raises: ValueError."""
    while True:
        kind = (await reader.readexactly(1))[0]
        if kind != _COMMAND:
            raise ValueError(f"section {kind} instead of a command")
        command = int.from_bytes(await reader.readexactly(2))
        body = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        if command == _RESUME:
            writer.write(_message(_RP_RESUME_ACK, (1).to_bytes(4)))
            await writer.drain()
            return
        if command != _RECV_BITMAP:
            raise ValueError(f"command {command}")
        name = body[1:]
        if name not in blocks:
            raise ValueError(f"RAM block {name!r}")
        size = (blocks[name] // page_size + 63) // 64 * 8
        writer.write(_message(_RP_RECV_BITMAP, body))
        writer.write(size.to_bytes(8) + bytes(size) + _BITMAP_END.to_bytes(8))
        await writer.drain()


def _message(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2) + len(body).to_bytes(2) + body
