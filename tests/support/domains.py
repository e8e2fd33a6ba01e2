"""Domain XML for the guests of the tests, good for Sterna and for libvirtd alike."""

from __future__ import annotations

import uuid
from pathlib import Path

from support.tick_guest import TickParameters


def tick_xml(
    name: str,
    elf: Path,
    parameters: TickParameters | None = None,
    *,
    serial: Path | None = None,
    uuid_text: str | None = None,
    machine: str = "pc",
    devices: str = "",
    metadata: str = "",
) -> str:
    """The tick guest as a domain. `serial` is a `SerialTap`'s path; without it: a pty."""
    chosen = parameters or TickParameters()
    port = (
        f"<serial type='unix'><source mode='connect' path='{serial}'/></serial>"
        if serial
        else "<serial type='pty'/>"
    )
    return f"""<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid_text or uuid.uuid4()}</uuid>
  {metadata}
  <memory unit='MiB'>{chosen.memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{elf}</kernel>
    <cmdline>{chosen.cmdline}</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    {port}
    <memballoon model='none'/>
    {devices}
  </devices>
</domain>
"""
