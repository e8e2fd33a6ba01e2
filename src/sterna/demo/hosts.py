"""Two hosts on one machine: daemons with a root directory each."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


class DemoFailed(Exception):
    """The demo cannot go on; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class DemoHost:
    """One daemon.

    Attributes:
        root: its `--root`; also the URI by which `sterna` finds it.
    """

    name: str
    root: Path
    process: asyncio.subprocess.Process

    @property
    def uri(self) -> str:
        """What to give to `sterna -c`."""
        return str(self.root)

    def qemu_pids(self) -> list[int]:
        """The QEMU processes of this host: those that write their log below its root."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                log = os.readlink(entry / "fd" / "2")
                program = (entry / "comm").read_text()
            except OSError:
                continue  # It ended while we looked, or is somebody else's.
            if "qemu" in program and log.startswith(f"{self.root}/"):
                found.append(int(entry.name))
        return found


@asynccontextmanager
async def two_hosts() -> AsyncIterator[tuple[DemoHost, DemoHost, Path]]:
    """Two running daemons and their common directory; on leaving, nothing of them is left."""
    # Not below TMPDIR, which may be long: a unix socket's path has 107 bytes at most.
    directory = Path(tempfile.mkdtemp(prefix="sterna-demo-", dir="/tmp"))  # see above
    hosts: list[DemoHost] = []
    try:
        hosts.append(await _start("host-a", directory / "a"))
        hosts.append(await _start("host-b", directory / "b"))
        yield hosts[0], hosts[1], directory
    finally:
        for host in hosts:
            await _stop(host)
        shutil.rmtree(directory, ignore_errors=True)


async def _start(name: str, root: Path) -> DemoHost:
    root.mkdir()  # noqa: ASYNC240  # one system call; nothing else runs yet
    notify_path = root / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(notify_path))
        notify.setblocking(False)
        with (root / "sternad.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sterna.server", "--root", str(root), "--name", name,
                "--migration-address", "127.0.0.1",
                env={**os.environ, "NOTIFY_SOCKET": str(notify_path)},
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await _ready(notify, process)
        except (TimeoutError, DemoFailed):
            if process.returncode is None:
                process.kill()
                await process.wait()
            words = (root / "sternad.log").read_text(errors="replace").strip()[-2000:]
            raise DemoFailed(f"the daemon {name} did not start:\n{words}") from None
    return DemoHost(name, root, process)


async def _ready(notify: socket.socket, process: asyncio.subprocess.Process) -> None:
    """Waits for READY=1, or for the daemon's early end."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        gone = group.create_task(process.wait())
        while not gone.done():
            message = group.create_task(loop.sock_recv(notify, 4096))
            await asyncio.wait({gone, message}, return_when=asyncio.FIRST_COMPLETED)
            if message.done() and b"READY=1" in message.result():
                gone.cancel()
                return
            message.cancel()
    raise DemoFailed("it ended")


async def _stop(host: DemoHost) -> None:
    # Guests outlive a daemon, as they must; a demo's guests must not outlive the demo.
    for pid in host.qemu_pids():
        os.kill(pid, signal.SIGKILL)
    if host.process.returncode is not None:
        return
    host.process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await host.process.wait()
    except TimeoutError:
        host.process.kill()
        await host.process.wait()
