"""What the calls of a migration answer, and what a host says of itself."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final

SILENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Host:
    """This host, as the other side of a migration sees it.

    `address` is where incoming guests are received and what the source is told; None for every
    address, and then `reached_at` is told. `silence_s` is how long a peer may hold up a migration
    without a sign of life. `tls_dir` has QEMU's certificates; with `tls_force` guests come and go
    only encrypted.
    """

    name: str
    uuid: uuid.UUID
    address: str | None = None
    port_min: int = 49152
    port_max: int = 49215
    reached_at: str | None = None
    silence_s: float = SILENCE_S
    tls_dir: str = "/etc/pki/qemu"
    tls_force: bool = False


@dataclass(frozen=True, slots=True)
class Begun:
    cookie: bytes
    xml: str


@dataclass(frozen=True, slots=True)
class Prepared:
    cookie: bytes
    uri_out: str | None


@dataclass(frozen=True, slots=True)
class Finished:
    """The guest as it is on this host now; `id` is -1 if its QEMU died since."""

    name: str
    uuid: uuid.UUID
    id: int
    cookie: bytes
