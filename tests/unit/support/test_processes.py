"""Looking at processes: what is found, and what is not mistaken."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import (
    MARK,
    Watched,
    end_all,
    kinds_of_files,
    listening_ports,
    marked,
    processes,
    wait_for,
)


def test_marked_processes_are_found_and_ended() -> None:
    mark = secrets.token_hex(8)
    script = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, MARK: mark},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        watched = Watched(child.pid)
        assert [p.pid for p in marked(mark, Path("/nowhere"))] == [child.pid]
        assert watched.alive
        with pytest.raises(TimeoutError):
            watched.wait_gone(0.01)
        end_all(marked(mark, Path("/nowhere")))
        assert not watched.alive
        watched.close()
        # Not reaped yet: a zombie is nobody.
        assert child.pid not in {p.pid for p in processes()}
        child.wait()


def test_ports_and_descriptors_are_seen() -> None:
    before = kinds_of_files(os.getpid())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert listener.getsockname()[1] in listening_ports([os.getpid()])
        assert kinds_of_files(os.getpid()) - before == {"socket": 1}


def test_waiting_gives_up_with_the_last_answer() -> None:
    with pytest.raises(TimeoutError, match="last answer: 0"):
        wait_for(lambda: 0, "nothing", timeout_s=0.01)
