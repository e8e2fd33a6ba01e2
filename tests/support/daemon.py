"""`sternad` as a test runs it: a host of its own below a short directory, beside others."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.host import Host
from support.processes import MARK, Process, Watched, end_all, kinds_of_files, marked

START_TIMEOUT_S = 30
# By default; the kernel gives them to anybody, and a daemon refuses to answer at one of them.
_not_given = set(range(49152, 49217))
STOP_TIMEOUT_S = 20


class NotReady(Exception):
    """The daemon ended or stayed silent instead of saying READY; the text has its log's end."""


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago: never the same twice, and none of those
    for guests."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _not_given:
            _not_given.add(port)
            return port


class Daemon(Host):
    """One host. Everything it keeps is below `root`, a short path (sun_path has 108 bytes).

    Attributes:
        tcp_uri: through loopback TCP, as the other host would use it.
        tls_port: where it serves TLS, for tests that say so in its settings.
        log_path: what the daemon wrote, of all its lives.
    """

    def __init__(
        self,
        root: Path,
        *,
        name: str,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        address: str = "127.0.0.1",
        migration_address: str = "127.0.0.1",
    ) -> None:
        """`prefix` are words before the command, as `nsenter …`; `options` come after ours.

        At `address` clients reach it by TCP, at `migration_address` other hosts do.
        """
        self.root = root
        self.name = name
        self.mark = secrets.token_hex(8)
        self.tcp_port = free_port()
        self.tls_port = 0
        self.socket = root / "run" / "libvirt-sock"
        self.socket_read_only = root / "run" / "libvirt-sock-ro"
        self.uri = f"qemu+unix:///system?socket={self.socket}"
        self.uri_read_only = f"qemu+unix:///system?socket={self.socket_read_only}"
        self.address = address
        self.tcp_uri = f"qemu+tcp://{address}:{self.tcp_port}/system"
        self.log_path = root.with_name(f"{root.name}.log")
        self.argv = [
            *prefix,
            *(sys.executable, "-m", "sterna.server"),
            *("--root", str(root), "--name", name, "--tcp", f"{address}:{self.tcp_port}"),
            *("--migration-address", migration_address),
            *([] if address == "127.0.0.1" else ["--allow-unprotected-tcp"]),
            *options,
        ]
        self.env = {**os.environ, **(env or {}), MARK: self.mark}
        self.process: subprocess.Popen[bytes] | None = None
        self.files_at_start: Counter[str] = Counter()

    # ---- life ----

    def start(self) -> None:
        """Return when it said READY=1, and not by waiting a while."""
        assert self.process is None
        notify_path = self.root.with_name(f"{self.root.name}.notify")
        notify_path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.bind(str(notify_path))
            with self.log_path.open("ab") as log:
                self.process = subprocess.Popen(
                    self.argv,
                    env={**self.env, "NOTIFY_SOCKET": str(notify_path)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            try:
                self._wait_ready(notify, self.process.pid)
            except BaseException:
                self.kill()
                raise
            finally:
                notify_path.unlink(missing_ok=True)
        self.files_at_start = kinds_of_files(self.process.pid)

    def _wait_ready(self, notify: socket.socket, pid: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        watched = Watched(pid)
        try:
            while (left_s := deadline - time.monotonic()) > 0:
                ready, _, _ = select.select([notify.fileno(), watched.fileno()], [], [], left_s)
                if notify.fileno() in ready:
                    if "READY=1" in notify.recv(4096).decode().split("\n"):
                        return
                elif ready:
                    raise NotReady(f"{self.name} ended at once:\n{self.log_tail()}")
            raise NotReady(f"{self.name} is not ready:\n{self.log_tail()}")
        finally:
            watched.close()

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} does not run"
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> int:
        """SIGTERM, as systemd would; its exit code. Guests keep running."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_TIMEOUT_S)
        self.process = None
        return code

    def kill(self) -> int:
        """SIGKILL; the moment of the signal (monotonic clock, ns)."""
        assert self.process is not None
        at_ns = time.monotonic_ns()
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)
        self.process = None
        return at_ns

    def restart(self) -> None:
        """Stop it as asked, or find it dead, and start it again."""
        if self.process is not None:
            self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: alive and silent."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    # ---- what it holds ----

    def processes(self) -> list[Process]:
        """All live processes of this host: the daemon, its helpers, its guests."""
        return marked(self.mark, self.root)

    def qemus(self) -> list[Process]:
        # A probe of QEMU's capabilities is no guest.
        return [p for p in self.processes() if p.is_qemu and "-name" in p.argv]

    def end_everything(self) -> None:
        """Leave nothing running, however the test ended."""
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.thaw()
            self.kill()
        end_all(self.processes())

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])
