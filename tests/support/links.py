"""A client's connection without a socket."""

from __future__ import annotations

from collections.abc import Callable


class FakeLink:
    """`sterna.guest.ports.ClientLink` that a test closes by hand."""

    def __init__(self) -> None:
        self.closed = False
        self.callbacks: list[Callable[[], None]] = []
        self.silence_s_max: float | None = None

    def add_close_callback(self, callback: Callable[[], None], /) -> None:
        self.callbacks.append(callback)

    def remove_close_callback(self, callback: Callable[[], None], /) -> None:
        if callback in self.callbacks:
            self.callbacks.remove(callback)

    def limit_silence(self, seconds: float | None, /) -> None:
        self.silence_s_max = seconds

    def peer_gone(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()
