"""Encryption of what QEMU sends: its own TLS, with certificates that it finds in a directory.

The object's name and what is refused are libvirt's (9.0, observed); what the files in the directory
are called is in QEMU's manual ("TLS setup for network services").
"""

from __future__ import annotations

import contextlib
from typing import Final

from sterna.errors import InvalidArg, OperationInvalid
from sterna.guest.ports import Monitor
from sterna.guest.surroundings import MONITOR_S
from sterna.migration.answers import Host
from sterna.migration.params import Request
from sterna.migration.uri import Endpoint
from sterna.qemu.qmp_errors import QmpError
from sterna.rpc.enums import MigrateFlag

ALIAS: Final = "objlibvirt_migrate_tls0"
OFF: Final = {"tls-creds": "", "tls-hostname": ""}
"""QEMU's parameters of a migration without TLS."""


_NOT_IN_THE_CLEAR: Final = MigrateFlag.TLS | MigrateFlag.OFFLINE | MigrateFlag.TUNNELLED


def check_forced(host: Host, flags: MigrateFlag) -> None:
    """Refuse a migration in the clear where the host wants none. Offline nothing is sent, and in a
    tunnel it is the connection of the daemons that is encrypted or not.

    Raises: OperationInvalid (55).
    """
    if host.tls_force and not flags & _NOT_IN_THE_CLEAR:
        raise OperationInvalid(
            f"host {host.name} migrates guests only encrypted, with VIR_MIGRATE_TLS (--tls)"
        )


def hostname(request: Request, target: Endpoint) -> str:
    """The name that the destination's certificate must have.

    Raises: InvalidArg (8) where nothing tells it.
    """
    if name := request.tls_destination or target.host:
        return name
    raise InvalidArg(
        "tls.destination is needed for an encrypted migration over a Unix socket: the path does"
        " not say whose certificate to expect"
    )


async def add(qemu: Monitor, directory: str, *, server: bool) -> dict[str, str]:
    """Give QEMU its certificates; the peer must have one of the same authority's, too.

    Returns the parameters that make it use them. Raises: QmpError (1), which names the file that
    cannot be read; MonitorGone, MonitorTimeout.
    """
    credentials = {
        "qom-type": "tls-creds-x509",
        "id": ALIAS,
        "dir": directory,
        "endpoint": "server" if server else "client",
        "verify-peer": True,
    }
    await qemu.execute("object-add", credentials, timeout_s=MONITOR_S)
    return {"tls-creds": ALIAS}


async def remove(qemu: Monitor) -> None:
    """Take them away again, when no parameter names them any more; harmless if there are none.

    Raises: MonitorGone, MonitorTimeout.
    """
    with contextlib.suppress(QmpError):
        await qemu.execute("object-del", {"id": ALIAS}, timeout_s=MONITOR_S)
