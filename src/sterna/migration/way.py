"""How a guest goes and comes, as far as Begin, Prepare and Perform have settled it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sterna.migration import uri
from sterna.migration.disks import CopiedDisk
from sterna.migration.peers import Question
from sterna.migration.received_disks import ReceivedDisks
from sterna.migration.tunnel import Tunnel, TunnelEnd


@dataclass(frozen=True, slots=True)
class Way:
    """How a guest goes: where to, to whom, and how fast.

    `speed_mib` is in MiB/s, 0 for no limit; `foreign`: the destination is not Sterna; `question`:
    how it is asked what it decided; `hostname`: what it calls itself; `tunnel`: through the
    connection between the daemons, and not to the target; `qemu_connects`: QEMU makes the data
    connections itself, since it wants several; `tls_dir`: where its certificates are; `disks`:
    those that are copied along, to `disks_target`.
    """

    target: uri.Endpoint
    foreign: bool
    speed_mib: int
    question: Question | None
    hostname: str
    tunnel: Tunnel | None = None
    qemu_connects: bool = False
    tls_dir: str = ""
    disks: tuple[CopiedDisk, ...] = ()
    disks_target: uri.Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Listening:
    """What the incoming QEMU is told: where to listen, and where its certificates are.

    With a `tunnel` the data comes through that instead. Disks that are copied come to `disks`.
    """

    uri: str
    release_port: Callable[[], None]
    tls_dir: str = ""
    tunnel: TunnelEnd | None = None
    disks: ReceivedDisks | None = None
