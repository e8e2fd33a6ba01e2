"""Listens to guests' serial ports: every QEMU that connects, its bytes stamped as they arrive."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from support.history import Chunk, History

RECEIVE_BYTES = 65536


class SerialTap:
    """A unix socket for `-chardev socket,path=…` or a `<serial type='unix'>` in mode connect.

    Source and destination of a migration both connect to it, so one thread sees both and the order
    of what they say is the order of arrival. Waits raise TimeoutError with what was heard last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.chunks: list[Chunk] = []
        self._history = History()
        # By speaker: the pid that connected (QEMU's, unless its daemon opened the socket for it).
        self.pids: list[int] = []
        self._connections: dict[int, socket.socket] = {}
        self._news = threading.Condition()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.bind(str(path))
        # QEMU may run as another user than the test.
        path.chmod(0o777)
        self._listener.listen(64)
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name=f"serial {path.name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._wake_write < 0:
            return
        os.close(self._wake_write)
        self._wake_write = -1
        self._thread.join(10)
        os.close(self._wake_read)
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ, None)
            selector.register(self._wake_read, selectors.EVENT_READ, None)
            while True:
                for key, _ in selector.select():
                    if key.fd == self._wake_read:
                        for connection in self._connections.values():
                            connection.close()
                        return
                    if key.fd == self._listener.fileno():
                        self._accept(selector)
                    else:
                        self._receive(selector, key.data)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        connection, _ = self._listener.accept()
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        with self._news:
            speaker = len(self.pids)
            self.pids.append(struct.unpack("3i", credentials)[0])
            self._connections[speaker] = connection
            self._news.notify_all()
        selector.register(connection, selectors.EVENT_READ, speaker)

    def _receive(self, selector: selectors.BaseSelector, speaker: int) -> None:
        connection = self._connections[speaker]
        try:
            data = connection.recv(RECEIVE_BYTES)
        except OSError:
            data = b""
        at_ns = time.monotonic_ns()
        with self._news:
            if data:
                chunk = Chunk(at_ns, speaker, data)
                self.chunks.append(chunk)
                self._history.hear(chunk)
            else:
                selector.unregister(connection)
                connection.close()
                del self._connections[speaker]
            self._news.notify_all()

    @property
    def live_speakers(self) -> list[int]:
        """Numbers of the connections that are open now."""
        with self._news:
            return sorted(self._connections)

    def history(self) -> History:
        """All that was heard until now."""
        with self._news:
            return self._history.copy()

    def send(self, data: bytes) -> None:
        """Type at the guest, on every open connection."""
        with self._news:
            for connection in self._connections.values():
                with contextlib.suppress(OSError):
                    connection.sendall(data)

    def save(self, path: Path) -> None:
        """For a failed test's papers: one line for each chunk."""
        with self._news, path.open("w") as out:
            for chunk in self.chunks:
                out.write(f"{chunk.at_ns} {chunk.speaker} {chunk.data!r}\n")

    def wait_until(
        self, holds: Callable[[History], bool], what: str, timeout_s: float = 20
    ) -> History:
        """The history, once `holds` is true of it."""
        deadline = time.monotonic() + timeout_s
        with self._news:
            while True:
                if holds(self._history):
                    return self._history.copy()
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    last = [f"{line.speaker}: {line.text}" for line in self._history.lines[-5:]]
                    raise TimeoutError(
                        f"no {what} within {timeout_s} s; {len(self._connections)} connected,"
                        f" last words: {last}"
                    )
                self._news.wait(left_s)

    def wait_more_ticks(self, count: int = 5, timeout_s: float = 20) -> History:
        """Until the guest ticked `count` times more than now: it is alive."""
        with self._news:
            before = len(self._history.ticks)
        return self.wait_until(
            lambda history: len(history.ticks) >= before + count, f"{count} more ticks", timeout_s
        )

    def wait_line(self, start: str, timeout_s: float = 20) -> History:
        """Until some line begins so."""
        return self.wait_until(
            lambda history: any(line.text.startswith(start) for line in reversed(history.lines)),
            f"line {start!r}",
            timeout_s,
        )

    def wait_verified(self, since_ns: int, timeout_s: float = 60) -> History:
        """Until the guest has verified all its memory after that moment (monotonic clock)."""
        return self.wait_until(
            lambda history: history.verified_since(since_ns), "full verification", timeout_s
        )
