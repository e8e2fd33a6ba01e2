"""The unmodified clients: virsh, and libvirt-python under the distribution's own interpreter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VIRSH = "virsh"
SYSTEM_PYTHON = "/usr/bin/python3"

# English texts, no daemon started behind our back, no user's settings.
PLAIN = {"LC_ALL": "C", "LIBVIRT_AUTOSTART": "0", "XDG_CONFIG_HOME": "/nonexistent"}


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended. `out` and `err` are what it wrote, as text."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str
    elapsed_ms: float

    def check(self) -> Ran:
        """Itself, if it exited with 0."""
        if self.code:
            raise AssertionError(
                f"{' '.join(self.argv)} exited with {self.code}\n{self.out}{self.err}"
            )
        return self

    @property
    def lines(self) -> list[str]:
        """Lines of the output that are not empty."""
        return [line for line in self.out.splitlines() if line.strip()]


def run(
    argv: Sequence[str],
    *,
    timeout_s: float = 30,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
) -> Ran:
    """Run to the end; subprocess.TimeoutExpired, and the command killed, if that takes too long."""
    start = time.monotonic()
    done = subprocess.run(
        list(argv),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **PLAIN, **(env or {})},
        check=False,
    )
    elapsed_ms = (time.monotonic() - start) * 1000
    return Ran(tuple(argv), done.returncode, done.stdout, done.stderr, elapsed_ms)


class Started:
    """A command that runs beside the test; killed when the context is left."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = tuple(argv)
        self._start = time.monotonic()
        self.process = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **PLAIN},
            start_new_session=True,
        )

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def kill(self) -> int:
        """SIGKILL; the moment of the signal (monotonic clock, ns)."""
        at_ns = time.monotonic_ns()
        self.process.kill()
        self.process.wait(20)
        return at_ns

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> str:
        """Kill it if it still runs; what it complained of."""
        self.process.kill()
        return self.process.communicate(timeout=20)[1]

    def wait(self, timeout_s: float = 60) -> Ran:
        out, err = self.process.communicate(timeout=timeout_s)
        elapsed_ms = (time.monotonic() - self._start) * 1000
        return Ran(self.argv, self.process.returncode, out, err, elapsed_ms)


def virsh_argv(uri: str, *words: str) -> list[str]:
    return [VIRSH, "-q", "-c", uri, *words]


def virsh(uri: str, *words: str, timeout_s: float = 30, stdin: str = "") -> Ran:
    """`virsh -q -c URI WORDS`; the caller judges the exit code (`.check()`)."""
    return run(virsh_argv(uri, *words), timeout_s=timeout_s, stdin=stdin)


def start_virsh(uri: str, *words: str) -> Started:
    """The same, beside the test."""
    return Started(virsh_argv(uri, *words))


STERNA = (sys.executable, "-m", "sterna.cli")


def sterna(root: Path, *words: str, stdin: str = "", timeout_s: float = 60) -> Ran:
    """`sterna WORDS -c ROOT`."""
    return run([*STERNA, *words, "-c", str(root)], stdin=stdin, timeout_s=timeout_s)


def py_client(script: str | Path, *words: str, timeout_s: float = 60) -> Any:
    """Run a script that uses the libvirt module; what it printed, read as JSON (None for nothing).

    `script` is a path or the text itself. AssertionError with its words if it failed.
    """
    argv = [SYSTEM_PYTHON, "-W", "error::DeprecationWarning:__main__"]
    argv += [str(script)] if isinstance(script, Path) else ["-c", script]
    done = run([*argv, *words], timeout_s=timeout_s).check()
    return json.loads(done.out) if done.out.strip() else None
