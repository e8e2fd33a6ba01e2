"""QEMU without a manager, driven over QMP by hand: the benchmarks' floor, the test guest's test."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.tick_guest import TickParameters

QEMU = "qemu-system-x86_64"


class QmpFailed(Exception):
    """QEMU answered with an error, or not at all."""


class Qmp:
    """A blocking QMP session on a connected socket. Events are kept in `events`, oldest first."""

    def __init__(self, sock: socket.socket, timeout_s: float = 20) -> None:
        self._sock = sock
        self._sock.settimeout(timeout_s)
        self._file = sock.makefile("rb")
        self.events: list[dict[str, Any]] = []
        self.greeting = self._read()
        self.execute("qmp_capabilities")

    def _read(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise QmpFailed("QEMU closed its monitor")
        message: dict[str, Any] = json.loads(line)
        return message

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        self._sock.sendall(json.dumps(request).encode())
        while True:
            message = self._read()
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise QmpFailed(f"{command}: {message['error']['desc']}")
            else:
                return message["return"]

    def wait_event(self, name: str, **data: Any) -> dict[str, Any]:
        """The first event of that name with those data, come or to come; those up to it go."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if event["event"] == name and data.items() <= event.get("data", {}).items():
                    return event
            self.events.append(self._read())

    def close(self) -> None:
        self._file.close()
        self._sock.close()


class BareQemu:
    """One QEMU process and its monitor. Leaving the context kills it."""

    def __init__(self, arguments: Sequence[str], *, timeout_s: float = 20) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            argv = [QEMU, *arguments, "-nodefaults", "-no-user-config", "-display", "none"]
            argv += ["-chardev", f"socket,id=monitor,fd={theirs.fileno()}"]
            argv += ["-mon", "chardev=monitor,mode=control"]
            self.process = subprocess.Popen(
                argv, pass_fds=[theirs.fileno()], start_new_session=True
            )
        try:
            self.qmp = Qmp(ours, timeout_s)
        except BaseException:
            ours.close()
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.qmp.close()
        self.process.kill()
        self.process.wait(20)

    def kill(self) -> float:
        """SIGKILL; the milliseconds until it was gone."""
        pidfd = os.pidfd_open(self.process.pid)
        start = time.monotonic()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        self.process.wait(20)
        gone_ms = (time.monotonic() - start) * 1000
        os.close(pidfd)
        return gone_ms


def tick_arguments(
    elf: Path, parameters: TickParameters, serial: Path | None, *, machine: str = "pc"
) -> list[str]:
    """QEMU's arguments for the tick guest, its serial port connected to the socket `serial`."""
    arguments = ["-machine", f"{machine},accel=tcg", "-m", str(parameters.memory_mib)]
    arguments += ["-kernel", str(elf), "-append", parameters.cmdline]
    if serial:
        arguments += ["-chardev", f"socket,id=serial0,path={serial}", "-serial", "chardev:serial0"]
    return arguments


def migrate(source: BareQemu, destination: BareQemu, *, bandwidth: int = 1 << 40) -> float:
    """Move the guest as the best manager could; the wall time in milliseconds.

    `destination` was started with `-incoming defer -S`. Afterwards it runs, the source is stopped.
    `bandwidth` is bytes a second.
    """
    start = time.monotonic()
    capabilities = {
        "capabilities": [
            {"capability": "return-path", "state": True},
            {"capability": "events", "state": True},
        ]
    }
    for side in (source, destination):
        side.qmp.execute("migrate-set-capabilities", capabilities)
    source.qmp.execute("migrate-set-parameters", {"max-bandwidth": bandwidth})
    destination.qmp.execute("migrate-incoming", {"uri": "tcp:127.0.0.1:0"})
    [address] = destination.qmp.execute("query-migrate")["socket-address"]
    source.qmp.execute("migrate", {"uri": f"tcp:{address['host']}:{address['port']}"})
    source.qmp.wait_event("MIGRATION", status="completed")
    destination.qmp.wait_event("MIGRATION", status="completed")
    destination.qmp.execute("cont")
    return (time.monotonic() - start) * 1000
