"""Does KVM really run guests here?

That /dev/kvm opens, and even that a guest starts, proves little: there are hosts (guests of a
cloud themselves) whose KVM interprets every instruction, where a Linux takes hours to boot. So a
tiny guest is run that cannot end in time unless the processor itself executes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from pathlib import Path

from sterna.qemu.process import QemuProcess, boot_id

DEADLINE_S = 2.0
"""The guest needs 30 ms where KVM works. Interpreted, it needs minutes."""

EXIT_STATUS = 0x10 << 1 | 1
"""isa-debug-exit turns the byte written to it into this status."""

_SETUP = """
fa31c08ed82e660f0116c00066b8110000000f22c066ea1d000f00080066b810008ed8c705001000
0007200000c7050020000007300000c7050030000087000000b8001000000f22d8b8200000000f22
e0b9800000c00f320d000100000f300f20c00d000000800f22c0ea71000f001800b980c3c901010c
2500500000ffc975f5fdb900300000bef8ff0700bff8ff0900f348a5b010e6f4f4ebfd0f1f440000
0000000000000000ffff0000009bcf00ffff00000093cf00ffff0000009baf001f00a0000f00
"""
"""The guest, 198 bytes of machine code at 0xf0000::

    16 bit  cli; ds = 0; lgdt gdtr; cr0 = PE; jump to
    32 bit  page tables at 0x1000, 0x2000, 0x3000 map the first 2 MiB; cr3; cr4 = PAE;
            EFER.LME; cr0 |= PG; jump to
    64 bit  30,000,000 times { addl ecx, 0x5000; decl ecx }
            std; rep movsq of 96 KiB, backwards
            outb 0x10, port 0xf4; hlt
    tables  gdt: null, 32-bit code, data, 64-bit code; gdtr
"""

_RESET = bytes.fromhex("ea000000f0")  # at the reset vector: far jump to f000:0000
_ROM_BYTES = 0x10000

_known: dict[tuple[str, ...], bool] = {}


async def kvm_usable(binary: str, *, cache_dir: Path | None = None) -> bool:
    """Whether `binary` runs guests under KVM at the processor's speed. Asked once a boot.

    Cost: nothing where /dev/kvm cannot be opened; else 70 ms, or `DEADLINE_S` where KVM does
    not work, the first time after a boot.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    try:
        device, program = os.stat("/dev/kvm"), os.stat(binary)
    except OSError:
        return False
    key = (
        *(binary, str(program.st_mtime_ns)),
        *(boot_id(), str(device.st_ino), str(device.st_ctime_ns)),
    )
    if key in _known:
        return _known[key]
    cached = None
    if cache_dir is not None:
        cached = cache_dir / f"kvm-{hashlib.sha256(binary.encode()).hexdigest()[:16]}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            remembered = json.loads(cached.read_text(encoding="utf-8"))
            if tuple(remembered["key"]) == key:
                _known[key] = bool(remembered["usable"])
                return _known[key]
    usable = _known[key] = await runs_guests(binary, "kvm")
    if cached is not None:
        cached.parent.mkdir(parents=True, exist_ok=True)
        part = cached.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({"key": key, "usable": usable}), encoding="utf-8")
        part.replace(cached)
    return usable


async def runs_guests(binary: str, accelerator: str) -> bool:
    """Run the little guest once; whether it ended as it must, in time."""
    code = bytes.fromhex(_SETUP.replace("\n", ""))
    rom = bytearray(_ROM_BYTES)
    rom[: len(code)] = code
    rom[-16 : -16 + len(_RESET)] = _RESET
    rom_fd = os.memfd_create("kvm-probe-rom", os.MFD_CLOEXEC)
    try:
        os.write(rom_fd, rom)
        argv = [
            *(binary, "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"),
            *("-machine", f"pc,accel={accelerator}", "-m", "2"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
            *("-bios", f"/proc/self/fd/{rom_fd}"),
        ]
        try:
            process = QemuProcess.spawn(argv, log_path=Path(os.devnull), pass_fds=[rom_fd])
        except OSError:
            return False
        try:
            async with asyncio.timeout(DEADLINE_S):
                end = await process.wait_gone()
        except TimeoutError:
            return False
        finally:
            process.kill()
            await process.wait_gone()
        return end.status == EXIT_STATUS
    finally:
        os.close(rom_fd)
