"""The launcher with real QEMUs; and the host's emulators, each probed once."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sterna.config.caps import EmulatorFacts
from sterna.errors import ConfigUnsupported, SternaError
from sterna.guest.processor import settle_processor
from sterna.guest.resources import Taken
from sterna.guest.running import Running
from sterna.guest.surroundings import Emulators, GuestSettings
from sterna.qemu.argv import Argv, LaunchSpec, assign_node_indexes, build_argv
from sterna.qemu.caps import QemuCaps
from sterna.qemu.guardian import Guardian
from sterna.qemu.images import resolve_chains
from sterna.qemu.probe import probe
from sterna.qemu.process import ProcessId, QemuProcess, User, log_size
from sterna.qemu.qmp_client import QmpClient, listen

MONITOR_SOCKET: Final = "monitor.sock"
DEFAULT_ARCH: Final = "x86_64"
STRAY_S: Final = 2.0

log = logging.getLogger("sterna.guest.launcher")


class QemuEmulators:
    """The QEMU binaries found on this host.

    A binary's answer is kept in memory while its size and time of change stay the same, and on
    disk by `probe`.
    """

    def __init__(self, cache_dir: Path, default: str | None = None) -> None:
        self._cache_dir = cache_dir
        self._default = default
        self._known: dict[str, tuple[tuple[int, int], QemuCaps]] = {}
        self._asking = asyncio.Lock()

    async def caps(self, binary: str | None = None, arch: str = DEFAULT_ARCH) -> QemuCaps:
        """What a binary can do; without one, the host's own for the architecture.

        Raises: ConfigUnsupported (67) if there is none; InternalError if it cannot be used.
        """
        path = binary or self._default or shutil.which(f"qemu-system-{arch}")
        if path is None:
            raise ConfigUnsupported(f"no emulator found for arch '{arch}'")
        try:
            stat = os.stat(path)
        except OSError as exc:
            raise ConfigUnsupported(f"Cannot check QEMU binary {path}: {exc.strerror}") from exc
        stamp = (stat.st_size, stat.st_mtime_ns)
        known = self._known.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        async with self._asking:
            known = self._known.get(path)
            if known is None or known[0] != stamp:
                known = self._known[path] = (stamp, await probe(path, cache_dir=self._cache_dir))
        return known[1]

    async def facts(self, binary: str | None = None, arch: str = DEFAULT_ARCH) -> EmulatorFacts:
        """The same, as far as definitions depend on it. Raises: as `caps`."""
        caps = await self.caps(binary, arch)
        default = caps.default_machine
        return EmulatorFacts(
            binary=caps.binary,
            arch=caps.arch,
            version=caps.version,
            machines={name: machine.name for name, machine in caps.machines_by_name.items()},
            default_machine=default.name if default is not None else "pc",
            cpus_max={machine.name: machine.cpus_max for machine in caps.machines},
            devices=caps.devices,
            # Present says only that it was compiled in.
            kvm=bool(caps.cpus_kvm),
            spice=caps.spice,
        )


class QemuLauncher:
    """`sterna.guest.surroundings.Launcher` with real processes."""

    def __init__(self, emulators: Emulators, settings: GuestSettings, guardian: Guardian) -> None:
        self._emulators = emulators
        self._settings = settings
        self._guardian = guardian

    async def spawn(self, running: Running, taken: Taken, *, incoming: bool) -> QemuProcess:
        live = running.definition
        arch = (live.os.arch if live.os is not None else None) or DEFAULT_ARCH
        caps = await self._emulators.caps(live.devices.emulator, arch)
        # Bound before QEMU exists, so that nobody has to poll for it.
        with listen(running.run_dir / MONITOR_SOCKET) as listener:
            spec = LaunchSpec(
                monitor_fd=listener.fileno(),
                state_dir=str(running.run_dir),
                now=datetime.datetime.now(datetime.UTC),
                incoming=incoming,
                taps=taken.taps,
                sockets=taken.sockets,
                files=taken.files,
            )
            running.caps = caps
            settle_processor(live, caps)
            await asyncio.to_thread(resolve_chains, live)
            assign_node_indexes(live)
            argv = build_argv(live, caps, spec)
            for directory in argv.directories:
                _make_dir(Path(directory), self._settings.user)
            running.setup = argv.setup
            running.log_from = _write_log_head(running.log_path, argv.args)
            return self._start(running, argv, listener.fileno())

    def _start(self, running: Running, argv: Argv, monitor_fd: int) -> QemuProcess:
        # The guardian is told before and after, so that at no moment our death leaves one alive
        # that it does not know of. (L3)
        if running.migration is not None:
            running.cleanup.callback(self.release, running)
            self._guardian.expect(running.migration, monitor_fd)
        process = QemuProcess.spawn(
            argv.args,
            log_path=running.log_path,
            pass_fds=argv.pass_fds,
            user=self._settings.user,
            environment=argv.environment,
        )
        if running.migration is not None:
            self._guardian.arm(running.migration, process)
        return process

    def release(self, running: Running) -> None:
        if running.migration is not None:
            self._guardian.disarm(running.migration)

    def keep(self, running: Running, migration: str) -> None:
        self._guardian.keep(migration, running.run_dir / MONITOR_SOCKET)

    def let_go(self, migration: str) -> None:
        self._guardian.disarm(migration)

    async def connect(self, running: Running) -> QmpClient:
        timeout_s = self._settings.start_timeout_s
        return await QmpClient.connect(running.run_dir / MONITOR_SOCKET, timeout_s=timeout_s)

    async def end_stray(self, run_dir: Path) -> None:
        with contextlib.suppress(SternaError):
            qemu = await QmpClient.connect(run_dir / MONITOR_SOCKET, timeout_s=STRAY_S)
            log.warning("guest.stray_ended dir=%s", run_dir)
            try:
                await qemu.execute("quit", timeout_s=STRAY_S)
            finally:
                qemu.close()

    def attach(self, ident: ProcessId) -> QemuProcess:
        return QemuProcess.attach(ident)


def _make_dir(path: Path, user: User | None) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if user is not None:
        os.chown(path, user.uid, user.gid)


def _write_log_head(path: Path, args: Sequence[str]) -> int:
    """Say in the guest's log what is started; returns where QEMU's own words begin."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    with path.open("a", encoding="utf-8", errors="replace") as stream:
        stream.write(f"{stamp}.000+0000: starting up\n{' '.join(args)}\n")
    path.chmod(0o600)
    return log_size(path)
