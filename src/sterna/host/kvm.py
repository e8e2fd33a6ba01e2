"""What KVM says of this host's time stamp counter. Fact: Linux virt/kvm/api.rst."""

from __future__ import annotations

import fcntl
import functools
import os

from sterna.host.capabilities import TscCounter

_KVM_CREATE_VM = 0xAE01
_KVM_CHECK_EXTENSION = 0xAE03
_KVM_CREATE_VCPU = 0xAE41
_KVM_GET_TSC_KHZ = 0xAEA3
_KVM_CAP_TSC_CONTROL = 60


@functools.lru_cache(maxsize=1)
def tsc_counter(device: str = "/dev/kvm") -> TscCounter | None:
    """Return the counter's rate, or None where KVM can't be asked. Asked once: it never changes.

    A machine without memory is made for the question and gone before the answer is returned.
    """
    fds: list[int] = []
    try:
        fds.append(os.open(device, os.O_RDWR | os.O_CLOEXEC))
        scaling = fcntl.ioctl(fds[0], _KVM_CHECK_EXTENSION, _KVM_CAP_TSC_CONTROL) > 0
        fds.append(fcntl.ioctl(fds[0], _KVM_CREATE_VM, 0))
        fds.append(fcntl.ioctl(fds[1], _KVM_CREATE_VCPU, 0))
        khz = fcntl.ioctl(fds[2], _KVM_GET_TSC_KHZ, 0)
    except OSError:
        return None
    finally:
        for fd in reversed(fds):
            os.close(fd)
    return TscCounter(khz * 1000, scaling) if khz > 0 else None
