"""One QEMU process: started in a session of its own, watched by its pidfd, found again later.

QEMU outlives the daemon that started it. So nothing here depends on being the parent, except
reaping: who started it collects the exit status; who re-attached leaves that to init.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

BASE_ENVIRONMENT = {
    "LC_ALL": "C",  # QEMU's words in the log are for machines and mails, not for this locale
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}

LOG_TAIL_BYTES = 4096
"""How much of a log is looked at for QEMU's last words. libvirt shows about 1,024 bytes."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """Which process, for ever: a pid alone is given to another soon enough.

    `start_time` is in clock ticks since boot (/proc/PID/stat, field 22); `boot` names the boot,
    because both numbers may repeat after the next one.
    """

    pid: int
    start_time: int
    boot: str


@dataclass(frozen=True, slots=True)
class User:
    """Whom QEMU runs as: numeric user, group, and supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. `status` is that of `os.waitstatus_to_exitcode` (negative: by that
    signal), or None if we were not its parent and cannot know."""

    status: int | None

    def __str__(self) -> str:
        if self.status is None:
            return "ended"
        if self.status >= 0:
            return f"exited with status {self.status}"
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-self.status).name}"
        return f"was killed by signal {-self.status}"


@functools.cache
def boot_id() -> str:
    """Names this boot of the host: two boots may give the same pid and start time."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def read_ident(pid: int) -> ProcessId:
    """Identity of the process that has `pid` now.

    Raises: ProcessLookupError if there is none.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None
    # The program's name stands in parentheses and may itself contain some.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return ProcessId(pid, int(fields[19]), boot_id())


class QemuProcess:
    """A process and the one descriptor that can never mean another: its pidfd.

    Made by `spawn` or `attach`. `close` lets go of it without touching the process.
    """

    def __init__(self, ident: ProcessId, pidfd: int, *, child: bool) -> None:
        self.ident = ident
        self._pidfd = pidfd
        self._child = child
        self._loop = asyncio.get_running_loop()
        self._callbacks: list[Callable[[Exit], None]] = []
        self.exit: Exit | None = None
        self._loop.add_reader(pidfd, self._ended)

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str],
        *,
        log_path: Path | None,
        pass_fds: Sequence[int] = (),
        user: User | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        oom_score_adj: int | None = None,
    ) -> Self:
        """Start a program; its output is appended to `log_path`, or with None goes where ours does.

        `pass_fds` keep their numbers in the child and stay open here. The child gets a session
        of its own (no terminal, no signals meant for the daemon), the environment of
        `BASE_ENVIRONMENT` plus `environment` and nothing of the daemon's.

        Blocks for the time of a vfork and exec, about 1 ms; with `user` it is a fork instead.

        Raises: OSError if the program cannot be executed.
        """
        log = None
        if log_path is not None:
            log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=tuple(pass_fds),
                env={**BASE_ENVIRONMENT, **(environment or {})},
                cwd=cwd or "/",
                start_new_session=True,
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=user.groups if user else None,
            )
        finally:
            if log is not None:
                os.close(log)
        # Not waited for yet, so neither number can have been given away, even if it died.
        pidfd = os.pidfd_open(process.pid)
        ident = read_ident(process.pid)
        # Its end is collected through the pidfd; Popen shall neither wait nor complain.
        process.returncode = 0
        if oom_score_adj is not None:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                Path(f"/proc/{process.pid}/oom_score_adj").write_text(str(oom_score_adj))
        return cls(ident, pidfd, child=True)

    @classmethod
    def attach(cls, ident: ProcessId) -> Self:
        """Find a process again that an earlier daemon started.

        Raises: ProcessLookupError unless this very process lives.
        """
        if ident.boot != boot_id():
            raise ProcessLookupError(ident.pid)
        pidfd = os.pidfd_open(ident.pid)
        try:
            # Read after the open: from here on the pid cannot change hands unseen.
            if read_ident(ident.pid) != ident:
                raise ProcessLookupError(ident.pid)
        except BaseException:
            os.close(pidfd)
            raise
        return cls(ident, pidfd, child=False)

    @property
    def pid(self) -> int:
        return self.ident.pid

    @property
    def alive(self) -> bool:
        """Whether it runs as far as we have been told; ask `wait_gone` for certainty."""
        return self.exit is None

    @property
    def pidfd(self) -> int:
        """For handing on (SCM_RIGHTS) to a guardian; valid until `close` or the end."""
        return self._pidfd

    def kill(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal. Harmless when it is gone."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, sig)

    def when_gone(self, callback: Callable[[Exit], None]) -> Callable[[], None]:
        """Have `callback` called once, at the process's end. Returns a function that forgets it.

        Called at once if it is gone already.
        """
        if self.exit is not None:
            callback(self.exit)
            return lambda: None
        self._callbacks.append(callback)

        def forget() -> None:
            with contextlib.suppress(ValueError):
                self._callbacks.remove(callback)

        return forget

    async def wait_gone(self) -> Exit:
        """Wait until the process has ended and, if it is our child, was reaped.

        Raises: RuntimeError if it was let go of by `close` meanwhile.
        """
        if self.exit is not None:
            return self.exit
        if self._pidfd < 0:
            raise RuntimeError("this process was let go of")
        gone: asyncio.Future[Exit] = self._loop.create_future()

        def end(how: Exit) -> None:
            if not gone.done():
                gone.set_result(how)

        forget = self.when_gone(end)
        try:
            return await gone
        finally:
            forget()

    def close(self) -> None:
        """Let go of it without touching it: it lives on."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _ended(self) -> None:
        status: int | None = None
        if self._child:
            try:
                info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                pass  # somebody in this program waited for all children: it is gone all the same
            else:
                if info is None:
                    return
                killed = info.si_code != os.CLD_EXITED
                status = -info.si_status if killed else info.si_status
        self.close()
        self.exit = Exit(status)
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self.exit)


def log_size(path: Path) -> int:
    """Where a log ends now: what a process started next writes comes after."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def last_words(path: Path, since: int = 0) -> str:
    """What was written to a log after offset `since`, its last 4 KiB, as whole lines.

    This is QEMU's own explanation of its death (L8). Empty if it said nothing.
    """
    try:
        with path.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            start = max(since, end - LOG_TAIL_BYTES)
            stream.seek(start)
            text = stream.read(LOG_TAIL_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""
    if start > since:
        text = text.partition("\n")[2]
    return text.strip()
