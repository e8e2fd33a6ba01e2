"""The demo's Linux guest on QEMU without a manager: it boots, ticks, listens, and moves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sterna.demo import linux_guest
from sterna.demo.ticks import TickListener
from support.bare_qemu import BareQemu, migrate

pytestmark = pytest.mark.qemu


def arguments(guest: linux_guest.LinuxGuest, serial: Path) -> list[str]:
    return [
        *("-machine", "pc,accel=tcg", "-m", str(linux_guest.MEMORY_MIB)),
        *("-kernel", str(guest.kernel), "-initrd", str(guest.initrd)),
        *("-append", f"{linux_guest.KERNEL_WORDS} tick_ms=20 dirty_mib=4"),
        *("-chardev", f"socket,id=serial0,path={serial}", "-serial", "chardev:serial0"),
    ]


async def test_it_boots_ticks_and_moves(short_dir: Path) -> None:
    guest = linux_guest.build()
    words = arguments(guest, short_dir / "serial")
    async with TickListener(short_dir / "serial") as listener:
        with BareQemu(words) as source:
            await listener.wait_more(20, timeout_s=40)
            with BareQemu([*words, "-incoming", "defer", "-S"]) as destination:
                await asyncio.to_thread(migrate, source, destination)
                await listener.wait_more(20, timeout_s=20)
        assert listener.faults == []
        assert listener.moves == 1
