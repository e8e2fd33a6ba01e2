"""Tap devices for guests' interfaces, by ioctl alone: made, configured, put on a bridge.

A tap that isn't persistent lives as long as a process holds its descriptor. So the daemon makes it,
hands the descriptors to QEMU and closes its own: when QEMU is gone, however it went, the tap is
too (L3). Everything acts in the network namespace of the calling process.

Facts: Linux networking/tuntap.rst, linux/if_tun.h, linux/sockios.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass

from sterna.errors import ErrorDomain, InvalidArg, OperationFailed, SystemCallError

TUN_DEVICE = "/dev/net/tun"
NAME_PATTERN = "vnet%d"
"""The kernel puts the lowest free number in place of %d."""

QUEUES_MAX = 256
"""The kernel's own limit, MAX_TAP_QUEUES."""

_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_MULTI_QUEUE = 0x0100
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCSIFMTU = 0x8922
_SIOCSIFHWADDR = 0x8924
_SIOCGIFINDEX = 0x8933
_SIOCBRADDIF = 0x89A2
_IFF_UP = 0x1
_ARPHRD_ETHER = 1

_IFREQ = 40
_NAME_BYTES_MAX = 15


@dataclass(slots=True)
class Tap:
    """An open tap: its name and one descriptor for each queue. Closing all of them deletes it."""

    name: str
    fds: list[int]

    def close(self) -> None:
        """Close our descriptors; the tap stays if QEMU has its own."""
        while self.fds:
            os.close(self.fds.pop())


def _request(name: str, rest: bytes = b"") -> bytes:
    encoded = name.encode()
    if not encoded or len(encoded) > _NAME_BYTES_MAX or b"/" in encoded or b"\0" in encoded:
        raise InvalidArg(f"'{name}' can't be the name of a network interface")
    return struct.pack(f"16s{_IFREQ - 16}s", encoded, rest)


def _failed(what: str, failure: OSError) -> SystemCallError:
    if failure.errno in (errno.EPERM, errno.EACCES):
        what += " (this needs root or CAP_NET_ADMIN; interfaces of type 'user' don't)"
    return SystemCallError(what, errno=failure.errno or 0, domain=ErrorDomain.NONE)


def _interface_ioctl(what: str, name: str, number: int, rest: bytes = b"") -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            return fcntl.ioctl(sock, number, _request(name, rest))
        except OSError as failure:
            raise _failed(what, failure) from failure


def open_tap(
    name: str = NAME_PATTERN, *, queues: int = 1, vnet_hdr: bool = True, device: str = TUN_DEVICE
) -> Tap:
    """Make a tap, or open an existing one that nobody else holds.

    Args:
        name: its name, or a pattern with %d.
        queues: descriptors to open; more than one makes it a multi-queue tap.
        vnet_hdr: frames carry a virtio header, which virtio-net needs for offloads.

    Raises:
        SystemCallError: not allowed (EPERM), held by another (EBUSY), no tun driver (ENOENT).
    """
    if not 1 <= queues <= QUEUES_MAX:
        raise InvalidArg(f"a tap can't have {queues} queues: 1 to {QUEUES_MAX}")
    flags = _IFF_TAP | _IFF_NO_PI
    flags |= _IFF_VNET_HDR if vnet_hdr else 0
    flags |= _IFF_MULTI_QUEUE if queues > 1 else 0
    tap = Tap(name, [])
    with contextlib.ExitStack() as undo:
        undo.callback(tap.close)
        for _ in range(queues):
            try:
                tap.fds.append(os.open(device, os.O_RDWR | os.O_CLOEXEC))
            except OSError as failure:
                raise _failed(f"Unable to open {device}", failure) from failure
            request = _request(tap.name, struct.pack("=H", flags))
            try:
                answer = fcntl.ioctl(tap.fds[-1], _TUNSETIFF, request)
            except OSError as failure:
                raise _failed(f"Unable to create tap device {tap.name}", failure) from failure
            # From the second queue on, the name is the one the kernel chose for the first.
            tap.name = answer[:16].partition(b"\0")[0].decode()
        undo.pop_all()
    return tap


def _index(name: str) -> bytes:
    answer = _interface_ioctl(f"Unable to find interface {name}", name, _SIOCGIFINDEX)
    return answer[16:20]


def attach_to_bridge(bridge: str, name: str) -> None:
    """Put an interface on a bridge.

    Raises:
        SystemCallError: either doesn't exist (ENODEV), already on one (EBUSY), not allowed.
    """
    what = f"Unable to add bridge {bridge} port {name}"
    try:
        _interface_ioctl(what, bridge, _SIOCBRADDIF, _index(name))
    except SystemCallError as failed:
        if failed.errno == errno.EOPNOTSUPP:
            raise OperationFailed(f"{bridge} is not a bridge") from failed
        raise


def set_mtu(name: str, mtu: int) -> None:
    """Set an interface's MTU, bytes."""
    what = f"Cannot set interface MTU on '{name}'"
    _interface_ioctl(what, name, _SIOCSIFMTU, struct.pack("=i", mtu))


def set_mac(name: str, mac: str) -> None:
    """Set an interface's hardware address, six colon-separated bytes."""
    try:
        address = bytes.fromhex(mac.replace(":", ""))
    except ValueError as bad:
        raise InvalidArg(f"'{mac}' is no MAC address") from bad
    if len(address) != 6:
        raise InvalidArg(f"'{mac}' is no MAC address")
    rest = struct.pack("=H6s", _ARPHRD_ETHER, address)
    _interface_ioctl(f"Cannot set interface MAC on '{name}'", name, _SIOCSIFHWADDR, rest)


def tap_mac(guest_mac: str) -> str:
    """Return the host side's address for a guest's: the same, its first byte FE.

    A bridge takes the lowest address among its ports for its own and would change it, dropping the
    host's connections, as guests come and go; FE never is the lowest (libvirt 9.0, observed).
    """
    return "fe" + guest_mac[2:].lower()


def set_up(name: str, up: bool = True) -> None:
    """Bring an interface up, or down."""
    what = f"Cannot set interface flags on '{name}'"
    answer = _interface_ioctl(what, name, _SIOCGIFFLAGS)
    (flags,) = struct.unpack("=H", answer[16:18])
    flags = flags | _IFF_UP if up else flags & ~_IFF_UP
    _interface_ioctl(what, name, _SIOCSIFFLAGS, struct.pack("=H", flags))
