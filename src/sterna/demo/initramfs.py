"""The demo guest's root file system: busybox, one script, written as a cpio archive in memory.

The format is the kernel's "newc" (Documentation/driver-api/early-userspace/buffer-format.rst).
Written by hand it needs no cpio and no root, although it has the console's device node in it.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass

MAGIC = b"070701"
TRAILER = "TRAILER!!!"

# `read -t` is the clock: a builtin, so that no process is made for a tick, and the console's input
# at the same time.
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
tick_ms=20 dirty_mib=8
for word in $(/bin/busybox cat /proc/cmdline); do
    case $word in
        tick_ms=*) tick_ms=${word#*=} ;;
        dirty_mib=*) dirty_mib=${word#*=} ;;
    esac
done
wait_s=$(/bin/busybox printf '0.%03d' "$tick_ms")
if [ "$dirty_mib" -gt 0 ]; then
    /bin/busybox mount -t tmpfs tmpfs /tmp
    while :; do
        /bin/busybox dd if=/dev/urandom of=/tmp/dirty bs=64k count=$((dirty_mib * 16)) \\
            conv=notrunc 2>/dev/null
        /bin/busybox usleep 50000
    done &
fi
echo "ready"
n=0
while :; do
    n=$((n + 1))
    echo "tick $n"
    if read -r -t "$wait_s" line; then
        case $line in
            poweroff) /bin/busybox poweroff -f ;;
            ?*) echo "you said: $line" ;;
        esac
    fi
done
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in the archive; `device` is (major, minor) of a character device."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def archive(busybox: bytes) -> bytes:
    """The initramfs, always the same bytes for the same busybox."""
    directories = ["bin", "dev", "proc", "tmp"]
    entries = [Entry(name, stat.S_IFDIR | 0o755) for name in directories]
    entries += [
        Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        Entry("dev/null", stat.S_IFCHR | 0o666, device=(1, 3)),
        Entry("dev/urandom", stat.S_IFCHR | 0o444, device=(1, 9)),
        Entry("bin/busybox", stat.S_IFREG | 0o755, busybox),
        Entry("init", stat.S_IFREG | 0o755, INIT.encode()),
    ]
    packed = b"".join(_pack(inode, entry) for inode, entry in enumerate(entries, 1))
    return packed + _pack(0, Entry(TRAILER, 0))


def _pack(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    fields = (
        *(inode, entry.mode, 0, 0, 1, 0, len(entry.data)),
        *(0, 0, *entry.device, len(name), 0),
    )
    head = MAGIC + b"".join(b"%08x" % value for value in fields) + name
    return _padded(head) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
