"""The daemon's side of its guardian: starts it, tells it whom to watch, replaces it when it dies.

The guardian is a process of its own that kills every incoming, undecided QEMU when the daemon is
gone (L3). What it does then is in `guardian_program`; why nothing is waited for on the way there,
in docs/explanation/guardian.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sterna.qemu.process import Exit, QemuProcess

log = logging.getLogger("sterna.qemu.guardian")

PROGRAM: Final = Path(__file__).with_name("guardian_program.py")
AGAIN_S: Final = 1.0
"""A guardian is replaced at once; if two in a row lived no longer than this, after this time."""
DEAF_S: Final = 1.0
"""How long the socket to it may be full (some 250 orders) before it is replaced."""
END_S: Final = 5.0
"""How long it may take to end once we let go of it: it may have somebody to kill."""
NEVER_KILLED: Final = -1000
"""oom_score_adj: what dies for lack of memory must not be the one that cleans up."""


@dataclass(slots=True)
class _Ward:
    """An incoming QEMU, or by its monitor's `path` one that is sent away."""

    monitor_inode: int = 0
    process: QemuProcess | None = None
    path: str = ""


class Guardian:
    """Whom to kill, and whom to keep, if this daemon dies. `start` it; `close` ends it.

    Orders are packets in a socket's buffer: they reach the guardian even if we die right after,
    so none is acknowledged. One that is lost with a guardian is given again to the next.
    """

    def __init__(self, store: Path) -> None:
        """`store` is the SQLite file in which decisions stand."""
        self._store = store
        self._wards: dict[str, _Ward] = {}
        self._untold: dict[str, None] = {}
        self._deaf: asyncio.TimerHandle | None = None
        self._process: QemuProcess | None = None
        self._link: socket.socket | None = None
        self._again: asyncio.TimerHandle | None = None
        self._started_at = 0.0
        self._short_lives = 0
        self._closing = False

    @property
    def pid(self) -> int | None:
        """The guardian's; None while there is none."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process. If it cannot be started now it is tried again."""
        self._again = None
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.setblocking(False)
            # -I -S: nothing of the environment, no site-packages: 10 MB instead of 20.
            argv = [sys.executable, "-I", "-S", str(PROGRAM), str(self._store), str(its.fileno())]
            self._process = QemuProcess.spawn(
                argv, log_path=None, pass_fds=[its.fileno()], oom_score_adj=NEVER_KILLED
            )
        except OSError as exc:
            ours.close()
            log.error("guardian.not_started error=%r again_s=%.0f", str(exc), AGAIN_S)
            self._start_later()
            return
        finally:
            its.close()
        self._link = ours
        self._started_at = asyncio.get_running_loop().time()
        self._process.when_gone(self._gone)
        log.info("guardian.started pid=%d wards=%d", self._process.pid, len(self._wards))
        self._untold = dict.fromkeys(self._wards)
        self._flush()

    def expect(self, migration: str, monitor_fd: int) -> None:
        """A QEMU is about to be started for `migration`, with this listening monitor socket."""
        self._wards[migration] = _Ward(os.fstat(monitor_fd).st_ino)
        self._tell(migration)

    def arm(self, migration: str, process: QemuProcess) -> None:
        """It was started, as `process`."""
        self._wards[migration].process = process
        self._tell(migration)

    def keep(self, migration: str, monitor: Path) -> None:
        """The QEMU with this monitor is about to be sent away: if we die before it has gone, its
        migration is cancelled, so that its guest runs on here. (L2)"""
        self._wards[migration] = _Ward(path=str(monitor))
        self._tell(migration)

    def disarm(self, migration: str) -> None:
        """It is decided, or gone. Harmless if it was not armed."""
        if self._wards.pop(migration, None) is not None:
            self._tell(migration)

    async def close(self) -> None:
        """Let the guardian go, and wait for its end. It kills what is still undecided."""
        self._closing = True
        if self._again is not None:
            self._again.cancel()
        self._let_go()
        if self._process is None:
            return
        try:
            async with asyncio.timeout(END_S):
                await self._process.wait_gone()
        except TimeoutError:
            # It hangs, so it protects nobody; the next daemon's start cleans up.
            log.error("guardian.hangs pid=%d", self._process.pid)
            self._process.kill()
            self._process.close()

    def _tell(self, migration: str) -> None:
        self._untold[migration] = None
        self._flush()

    def _flush(self) -> None:
        """Send what it was not told yet: of each migration, how it is now."""
        while self._untold and self._link is not None:
            migration = next(iter(self._untold))
            try:
                self._send(self._link, migration)
            except BlockingIOError:
                if self._deaf is None:
                    loop = asyncio.get_running_loop()
                    loop.add_writer(self._link, self._flush)
                    self._deaf = loop.call_later(DEAF_S, self._give_up, "it does not read")
                return
            except ConnectionError:
                return  # it died; `_gone` follows, and the next one is told everything
            except OSError as exc:
                self._give_up(str(exc))
                return
            del self._untold[migration]
        self._stop_waiting()

    def _send(self, link: socket.socket, migration: str) -> None:
        ward = self._wards.get(migration)
        if ward is None:
            link.send(f"disarm\0{migration}".encode())
        elif ward.path:
            link.send(f"keep\0{migration}\0{ward.path}".encode())
        elif ward.process is None:
            link.send(f"expect\0{migration}\0{ward.monitor_inode}".encode())
        elif ward.process.pidfd >= 0:
            socket.send_fds(link, [f"arm\0{migration}".encode()], [ward.process.pidfd])

    def _give_up(self, why: str) -> None:
        """It cannot be told, so it is of no use: `_gone` follows."""
        self._stop_waiting()
        if self._process is not None:
            log.error("guardian.deaf pid=%d why=%r", self._process.pid, why)
            self._process.kill()

    def _stop_waiting(self) -> None:
        if self._deaf is not None:
            self._deaf.cancel()
            self._deaf = None
            if self._link is not None:
                asyncio.get_running_loop().remove_writer(self._link)

    def _gone(self, how: Exit) -> None:
        self._let_go()
        if self._closing:
            return
        log.error("guardian.died how=%r wards=%d", str(how), len(self._wards))
        self._process = None
        short = asyncio.get_running_loop().time() - self._started_at < AGAIN_S
        self._short_lives = self._short_lives + 1 if short else 0
        if self._short_lives > 1:
            self._start_later()
        else:
            self.start()

    def _start_later(self) -> None:
        self._again = asyncio.get_running_loop().call_later(AGAIN_S, self.start)

    def _let_go(self) -> None:
        self._stop_waiting()
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.close()
            self._link = None
