"""Keys in the codesets people use, as QEMU numbers them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sterna.errors import BadArgument, InternalError
from sterna.guest.sendkey import Codeset, send_keys, to_qnum
from support.fake_host import domain_xml, fake_host


@pytest.mark.parametrize(
    ("codeset", "code", "qnum"),
    [
        (Codeset.LINUX, 30, 0x1E),  # A
        (Codeset.LINUX, 88, 0x58),  # F12
        (Codeset.LINUX, 111, 0xD3),  # Delete
        (Codeset.LINUX, 97, 0x9D),  # right control
        (Codeset.XT, 0x1E, 0x1E),
        (Codeset.ATSET1, 0xE053, 0xD3),
        (Codeset.XT_KBD, 0xD3, 0xD3),
        (Codeset.QNUM, 0xD3, 0xD3),
        (Codeset.USB, 4, 0x1E),
        (Codeset.USB, 0xE6, 0xB8),  # right alt
        (Codeset.USB, 76, 0xD3),
    ],
)
def test_numbers(codeset: Codeset, code: int, qnum: int) -> None:
    assert to_qnum(codeset, code) == qnum


def test_every_qnum_is_a_byte() -> None:
    known = 0
    for code in range(256):
        for codeset in (Codeset.LINUX, Codeset.USB):
            try:
                assert 0 < to_qnum(codeset, code) < 256
                known += 1
            except InternalError:
                pass
    assert known > 200


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(
        InternalError, match="cannot translate keycode 999 of linux codeset to qnum keycode"
    ):
        to_qnum(Codeset.LINUX, 999)
    with pytest.raises(BadArgument):
        to_qnum(77, 1)


async def test_keys_are_pressed_together(tmp_path: Path) -> None:
    async with fake_host(tmp_path) as host:
        guest = await host.registry.create(domain_xml())
        await send_keys(guest, Codeset.LINUX, 50, [29, 56, 111])
        assert host.launcher.monitor.asked[-1] == (
            "send-key",
            {
                "keys": [{"type": "number", "data": n} for n in (0x1D, 0x38, 0xD3)],
                "hold-time": 50,
            },
        )
        with pytest.raises(BadArgument):
            await send_keys(guest, Codeset.LINUX, 0, [])
        await guest.destroy()
