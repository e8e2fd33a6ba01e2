"""Who this host is: its name, its uuid, and the address other hosts migrate guests to."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import socket
import struct
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from sterna.host.files import ROOT, read_text

LOOPBACK = "127.0.0.1"

_SIOCGIFADDR = 0x8915  # linux/sockios.h
_IFNAMSIZ = 16


def host_name(override: str | None = None) -> str:
    """Return the name this host goes by: `override` (sternad's --name), else the system's.

    A bare system name is completed to the full one where a lookup gives it, since a migration's
    destination must be able to find this host by it. The lookup may take as long as DNS does.
    """
    if override:
        return override
    name = socket.gethostname()
    if name.startswith("localhost") or "." in name:
        return name
    try:
        found = socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME)
    except OSError:
        return name
    canonical = found[0][3]
    # An entry of 127.0.x.x in /etc/hosts may call every machine "localhost": useless to a peer.
    return name if not canonical or canonical.startswith("localhost") else canonical


def host_uuid(stored: str | None, new_uuid: Callable[[], uuid.UUID] = uuid.uuid4) -> uuid.UUID:
    """Return the stored uuid of this host, or a new one, which the caller must store.

    It is the daemon's own, not the machine's: several daemons on one machine are several hosts.

    Raises:
        ValueError: what was stored is no uuid.
    """
    return uuid.UUID(stored) if stored else new_uuid()


def is_local_address(address: str) -> bool:
    """Tell whether an address belongs to this machine: only then a socket can be bound to it."""
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _ipv4_address(interface: str) -> str | None:
    request = struct.pack(f"{_IFNAMSIZ}s24x", interface.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFADDR, request)
        except OSError as failed:
            if failed.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
                return None
            raise
    # struct ifreq: the name, then a sockaddr_in (family, port, address).
    return socket.inet_ntop(socket.AF_INET, answer[_IFNAMSIZ + 4 : _IFNAMSIZ + 8])


def own_addresses(root: Path = ROOT) -> list[str]:
    """Return this network namespace's addresses: IPv4 in the interfaces' order, then IPv6."""
    found = [_ipv4_address(name) for _, name in socket.if_nameindex()]
    addresses = [address for address in found if address]
    lines = read_text(root / "proc/net/if_inet6").splitlines()
    return addresses + [str(ipaddress.IPv6Address(bytes.fromhex(line[:32]))) for line in lines]


def _reaches_others(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified)


def reachable_addresses() -> list[str]:
    """Return those of this machine's addresses that others may reach it by."""
    return [address for address in own_addresses() if _reaches_others(address)]


def resolved(name: str) -> list[str]:
    """Return the addresses that a name has; none if it has none. May take as long as DNS does."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(entry[4][0]) for entry in found]


def migration_address(
    configured: str | None,
    name: str,
    *,
    resolve: Callable[[str], Iterable[str]] = resolved,
    is_local: Callable[[str], bool] = is_local_address,
    addresses: Callable[[], Iterable[str]] = own_addresses,
) -> str:
    """Return where a source host shall send a guest that comes here, without port or brackets.

    In this order: what was configured; the host's name, if it resolves to an address of this
    machine that others can reach; the first such address; loopback. The name is best, since the
    source looks it up on its own network. A lookup may take as long as DNS does.
    """
    if configured:
        return configured
    if any(_reaches_others(found) and is_local(found) for found in resolve(name)):
        return name
    return next((found for found in addresses() if _reaches_others(found)), LOOPBACK)
