"""What can go wrong when talking to a QEMU.

::

    sterna.errors.InternalError
    +-- QmpError        QEMU understood and refused; keeps QEMU's own class and words
    +-- MonitorGone     the monitor is closed: QEMU died, or broke the protocol
    sterna.errors.OperationTimeout
    +-- MonitorTimeout  QEMU did not answer in time; the connection may still work later

All three are ordinary `SternaError`s: uncaught, a client sees the code and text it would see
from libvirt 9.0 ("unable to execute QEMU command 'cont': ..." was observed).
"""

from __future__ import annotations

from sterna.errors import InternalError, OperationTimeout


class QmpError(InternalError):
    """QEMU refused a command.

    `cls` is QMP's error class ("GenericError", "CommandNotFound", "DeviceNotActive",
    "DeviceNotFound", "KVMMissingCap"); `desc` is QEMU's sentence.
    """

    def __init__(self, command: str, cls: str, desc: str) -> None:
        super().__init__(f"unable to execute QEMU command '{command}': {desc}")
        self.command = command
        self.cls = cls
        self.desc = desc


class MonitorGone(InternalError):
    """The monitor closed. What was asked for may or may not have been done."""


class MonitorTimeout(OperationTimeout):
    """No answer within the deadline. What was asked for may still be done later."""

    def __init__(self, command: str, timeout_s: float) -> None:
        super().__init__(f"QEMU did not answer '{command}' within {timeout_s:g} s")
        self.command = command
