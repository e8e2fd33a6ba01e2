"""The guardian's own program: tidies up when its daemon dies. What is undecided is killed (L3), and
what was being sent away is kept here, running (L2).

Run as a file by `sterna.qemu.guardian`, under `python -I -S`: it imports nothing of Sterna's, so
that it stays small. Its standing orders come through a socketpair, one packet each, words with
a NUL between them:

- ``expect MIGRATION INODE``: a QEMU is about to be started for this migration; it will hold the
  listening monitor socket of that inode.
- ``arm MIGRATION``, with a pidfd: this is it.
- ``keep MIGRATION PATH``: the QEMU whose monitor is there is being sent away. Without a daemon it
  would stop its guest when all is sent, and nobody would hear what became of it.
- ``disarm MIGRATION``: it is decided, or gone.

The end of the socketpair is the daemon's end. By then every packet sent has arrived, and nobody
can write to the store: the kernel closes a process's files when its last thread has ended. So the
decisions are final, and the store, not an order that came or did not, says who may live: a
migration with `committed` is never touched (L2, L4). If the store cannot be read nothing is
killed, since a paused QEMU does less harm than a lost guest: the next daemon will end it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping

PACKET_BYTES_MAX = 4096
STORE_WAIT_S = 2.0
"""How long another process may hold the store. A new daemon does; it then does our work, too."""
MONITOR_S = 5.0
"""How long a QEMU may take to answer; one that hangs is the next daemon's."""
LINE_BYTES_MAX = 1 << 16
SEARCHES_MAX = 5
GONE_S = 0.5
"""How long a killed process is waited for; until it is gone it still holds its descriptors."""
VERDICT_SQL = "SELECT migration FROM decision WHERE verdict = 'committed' AND migration = ?"

COMMANDS: tuple[dict[str, object], ...] = (
    {"execute": "qmp_capabilities"},
    {"execute": "migrate_cancel"},
    # One that copies disks waits at the switchover for a word, and QEMU 7.2 may have begun to wait
    # as it was cancelled: then it waits on, with its guest stopped. Refused if it does not.
    {"execute": "migrate-continue", "arguments": {"state": "cancelling"}},
)
"""What ends a migration: each is sent once the one before was answered."""

Ward = tuple[str, int | str]
"""("socket", inode) until its process is known, then ("pidfd", descriptor); ("monitor", path) of
one that is sent away."""


def packets(link: socket.socket) -> Iterator[tuple[list[str], list[int]]]:
    """Orders, until the daemon is gone."""
    while True:
        try:
            data, fds, _, _ = socket.recv_fds(link, PACKET_BYTES_MAX, 1)
        except ConnectionError:
            return
        if not data:
            return
        yield data.decode().split("\0"), fds


def obey(wards: dict[str, Ward], words: list[str], fds: list[int]) -> None:
    """Carry out one order."""
    verb, migration, *rest = words
    kind, handle = wards.pop(migration, ("", -1))
    if kind == "pidfd":
        os.close(int(handle))
    if verb == "keep":
        wards[migration] = ("monitor", rest[0])
    elif verb == "expect":
        wards[migration] = ("socket", int(rest[0]))
    elif verb == "arm":
        wards[migration] = ("pidfd", fds[0])


def committed(store: str, migrations: Iterator[str]) -> set[str]:
    """Which of these migrations were decided in the guest's favour.

    Raises: sqlite3.Error if the store cannot be read.
    """
    import sqlite3  # noqa: PLC0415 - 2 MB that an idle host need not have

    # Read only: as the last one to close it we must not even tidy it up.
    db = sqlite3.connect(f"file:{_quoted(store)}?mode=ro", uri=True, timeout=STORE_WAIT_S)
    try:
        return {m for m in migrations if db.execute(VERDICT_SQL, (m,)).fetchone() is not None}
    finally:
        db.close()


def _quoted(path: str) -> str:
    """A path as SQLite's URI wants it."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def holders(inode: int) -> list[int]:
    """Processes that have this socket, whatever program they run by now."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    return [pid for pid in pids if holds(pid, inode)]


def holds(pid: int, inode: int) -> bool:
    """Whether this process has this socket, as far as we may look."""
    wanted = f"socket:[{inode}]"
    try:
        with os.scandir(f"/proc/{pid}/fd") as fds:
            return any(os.readlink(fd.path) == wanted for fd in fds)
    except OSError:
        return False  # it ended meanwhile, or is somebody else's


def kill(ward: Ward) -> None:
    """Kill a ward by force, at once."""
    kind, handle = ward[0], int(ward[1])
    if kind == "pidfd":
        _signal(handle)
        return
    # Searched again until there is none, since one may have been between fork and exec.
    for _ in range(SEARCHES_MAX):
        found = holders(handle)
        if not found:
            return
        for pid in found:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            # Looked at again, now that the pid cannot change hands.
            if holds(pid, handle):
                _signal(pidfd)
                select.select([pidfd], [], [], GONE_S)
            os.close(pidfd)


def _signal(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return  # gone already


def cancel(path: str) -> None:
    """End the migration of the QEMU whose monitor is at `path`; it starts its guest again by itself
    if it had stopped it for that. One that has sent everything has nothing left to cancel.

    Raises: OSError, ValueError: it did not answer.
    """
    import json  # noqa: PLC0415 - an idle host need not have it

    directory, name = os.path.split(path)
    held = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.settimeout(MONITOR_S)
        # A path of any length: sun_path holds only 108 bytes.
        monitor.connect(f"/proc/self/fd/{held}/{name}")
        os.close(held)
        lines = monitor.makefile("rb")
        if "QMP" not in json.loads(lines.readline(LINE_BYTES_MAX)):
            raise ValueError("no monitor")
        for command in COMMANDS:
            monitor.sendall(json.dumps(command).encode())
            while not {"return", "error"} & json.loads(lines.readline(LINE_BYTES_MAX)).keys():
                pass  # an event


def keep(migration: str, path: str) -> None:
    try:
        cancel(path)
    except (OSError, ValueError) as error:
        say(f"guardian.not_kept mig={migration} error={error!r}")
    else:
        say(f"guardian.kept mig={migration}")


def end(wards: Mapping[str, Ward], store: str) -> None:
    """The daemon is gone. Killing is first: it takes no time, and a monitor may."""
    going = {name: str(handle) for name, (kind, handle) in wards.items() if kind == "monitor"}
    undecided = {name: ward for name, ward in wards.items() if name not in going}
    if undecided:
        end_undecided(undecided, store)
    for migration, path in going.items():
        keep(migration, path)


def end_undecided(wards: Mapping[str, Ward], store: str) -> None:
    """Kill whom nobody has decided for."""
    try:
        alive = committed(store, iter(wards))
    # Whatever it is: not knowing must kill nobody.
    except Exception as error:
        say(f"guardian.store_unreadable wards={len(wards)} error={error!r}")
        return
    for migration, ward in wards.items():
        if migration in alive:
            say(f"guardian.spared mig={migration}")
            continue
        try:
            kill(ward)
        except OSError as error:
            say(f"guardian.kill_failed mig={migration} error={error!r}")
        else:
            say(f"guardian.killed mig={migration}")


def say(text: str) -> None:
    """One line on standard error, as the daemon writes its own."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    try:
        os.write(2, f"{stamp}.000Z warning {text}\n".encode())
    except OSError:
        return  # nobody reads any more


def main(store: str, link_fd: int) -> int:
    """Stand guard until the daemon is gone."""
    # What ends the daemon politely must not end us before it: a terminal's signals go to all.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wards: dict[str, Ward] = {}
    with socket.socket(fileno=link_fd) as link:
        for words, fds in packets(link):
            obey(wards, words, fds)
    if wards:
        end(wards, store)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
