"""Starting a QEMU, CPUs stopped, from a definition: the shortest way, for tests of the command
line. A daemon does more (`sterna.guest.launch`)."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from sterna.config.model import DomainDef, Listen
from sterna.qemu.argv import LaunchSpec, build_argv
from sterna.qemu.caps import QemuCaps
from sterna.qemu.process import QemuProcess, last_words
from sterna.qemu.qmp_client import QmpClient, listen

QEMU = shutil.which("qemu-system-x86_64")
MIB = 1 << 20


class QemuFailedError(AssertionError):
    """QEMU did not come up; the message is its own."""


def make_images(directory: Path) -> None:
    """The files that the observed machines name, with next to nothing in them."""
    directory.mkdir()
    for name in ("a", "b", "c", "d", "usb"):
        with (directory / f"{name}.raw").open("wb") as stream:
            stream.truncate(MIB)
    with (directory / "nvdimm").open("wb") as stream:
        stream.truncate(128 * MIB)
    (directory / "slic").write_bytes(bytes(40))
    (directory / "vmlinuz").write_bytes(bytes(4096))
    (directory / "initrd").write_bytes(bytes(512))
    make: list[str | Path] = ["qemu-img", "create", "-q", "-f", "qcow2"]
    subprocess.run([*make, directory / "a.qcow2", "1M"], check=True)
    subprocess.run([*make, directory / "base.qcow2", "1M"], check=True)
    for below, name in (("base", "mid"), ("mid", "top")):
        backing: list[str | Path] = ["-b", directory / f"{below}.qcow2", "-F", "qcow2"]
        subprocess.run([*make, *backing, directory / f"{name}.qcow2"], check=True)


def keep_off_the_network(d: DomainDef, directory: Path) -> None:
    """Display servers listen on sockets in a directory: no test takes another's port."""
    for number, graphics in enumerate(d.devices.graphics):
        if graphics.type in ("vnc", "spice"):
            graphics.websocket = None
            socket = str(directory / f"graphics{number}.sock")
            graphics.listens = [Listen(type="socket", socket=socket)]


@contextlib.asynccontextmanager
async def started(d: DomainDef, caps: QemuCaps, spec: LaunchSpec) -> AsyncIterator[QmpClient]:
    """The guest's QEMU, ready on its monitor and set up; gone after the block.

    `spec.monitor_fd` is replaced: the monitor's socket is made here, in the state directory.

    Raises: QemuFailedError.
    """
    directory = Path(spec.state_dir)
    log = directory / "log"
    with listen(directory / "monitor.sock") as listener:
        spec = LaunchSpec(
            monitor_fd=listener.fileno(), state_dir=spec.state_dir, now=spec.now, taps=spec.taps
        )
        argv = build_argv(d, caps, spec)
        for needed in argv.directories:
            _make(Path(needed))
        process = QemuProcess.spawn(
            argv.args, log_path=log, pass_fds=argv.pass_fds, environment=argv.environment
        )
    try:
        client = await QmpClient.connect(directory / "monitor.sock", timeout_s=20)
        try:
            for call in argv.setup:
                await client.execute(call.command, call.arguments, timeout_s=10)
            yield client
        finally:
            client.close()
    except Exception as error:
        raise QemuFailedError(last_words(log) or str(error)) from error
    finally:
        process.kill()
        async with asyncio.timeout(20):
            await process.wait_gone()


def _make(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
