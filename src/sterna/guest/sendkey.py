"""Typing on a guest's keyboard from outside."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from sterna.errors import BadArgument, InternalError
from sterna.guest.jobs import Call
from sterna.guest.surroundings import MONITOR_S

if TYPE_CHECKING:
    from sterna.guest.actor import Guest

KEYS_MAX: Final = 16
"""The protocol's limit of one call."""


class Codeset(IntEnum):
    """Whose numbers the keys are given in."""

    LINUX = 0
    XT = 1
    ATSET1 = 2
    ATSET2 = 3
    ATSET3 = 4
    OSX = 5
    XT_KBD = 6
    USB = 7
    WIN32 = 8
    QNUM = 9


# QEMU's numbers are the PC's scan codes of set 1, with 0x80 for those that start with 0xe0. Linux
# numbers its first keys (1 to 83, 86 to 88) the same; these are the others (input-event-codes.h).
_LINUX: Final = {
    85: 0x76, 89: 0x73, 90: 0x78, 91: 0x77, 92: 0x79, 93: 0x70, 94: 0x7B, 95: 0x5C,
    96: 0x9C, 97: 0x9D, 98: 0xB5, 99: 0x54, 100: 0xB8, 101: 0x5B, 102: 0xC7, 103: 0xC8,
    104: 0xC9, 105: 0xCB, 106: 0xCD, 107: 0xCF, 108: 0xD0, 109: 0xD1, 110: 0xD2, 111: 0xD3,
    112: 0xEF, 113: 0xA0, 114: 0xAE, 115: 0xB0, 116: 0xDE, 117: 0x59, 118: 0xCE, 119: 0xC6,
    121: 0x7E, 125: 0xDB, 126: 0xDC, 127: 0xDD, 128: 0xE8, 142: 0xDF, 143: 0xE3,
    183: 0x5D, 184: 0x5E, 185: 0x5F, 186: 0x55, 187: 0x83, 188: 0xF7, 189: 0x84, 190: 0x5A,
    191: 0x74, 192: 0xF9, 193: 0x6D, 194: 0x6F,
}  # fmt: skip

# USB HID usage page 7, as Linux numbers: 4 is A, 5 is B…
_USB_TO_LINUX: Final = dict(
    enumerate(
        [
            30, 48, 46, 32, 18, 33, 34, 35, 23, 36, 37, 38, 50, 49, 24, 25, 16, 19, 31, 20, 22,
            47, 17, 45, 21, 44, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 28, 1, 14, 15, 57, 12, 13, 26,
            27, 43, 43, 39, 40, 41, 51, 52, 53, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 87,
            88, 99, 70, 119, 110, 102, 104, 111, 107, 109, 106, 105, 108, 103, 69, 98, 55, 74,
            78, 96, 79, 80, 81, 75, 76, 77, 71, 72, 73, 82, 83, 86, 127, 116, 117,
        ],
        start=4,
    )
) | dict(enumerate([29, 42, 56, 125, 97, 54, 100, 126], start=0xE0))  # fmt: skip


def to_qnum(codeset: int, code: int) -> int:
    """QEMU's number of a key.

    Raises: BadArgument (8) for a codeset nobody here speaks; InternalError (1), as libvirt 9.0,
    for a key that is not known in it.
    """
    try:
        words = Codeset(codeset)
    except ValueError:
        raise BadArgument(f"Unsupported codeset: {codeset}") from None
    found: int | None = None
    if words is Codeset.LINUX:
        found = _linux(code)
    elif words is Codeset.USB:
        found = _linux(_USB_TO_LINUX.get(code, 0))
    elif words in (Codeset.XT, Codeset.ATSET1, Codeset.XT_KBD, Codeset.QNUM):
        found = 0x80 | code & 0x7F if code >> 8 == 0xE0 else code if 0 < code <= 0xFF else None
    if found is None:
        name = words.name.lower()
        raise InternalError(f"cannot translate keycode {code} of {name} codeset to qnum keycode")
    return found


def _linux(code: int) -> int | None:
    if 1 <= code <= 83 or 86 <= code <= 88:
        return code
    return _LINUX.get(code)


async def send_keys(
    guest: Guest,
    codeset: int,
    hold_ms: int,
    codes: Sequence[int],
    api: str = "remoteDispatchDomainSendKey",
) -> None:
    """Press all keys, in order, hold them for `hold_ms` (0: QEMU's own 100 ms), release them.

    Raises: OperationInvalid (55), BadArgument, InternalError, QmpError.
    """
    if not 0 < len(codes) <= KEYS_MAX:
        raise BadArgument(f"number of keys must be between 1 and {KEYS_MAX}, not {len(codes)}")
    keys = [{"type": "number", "data": to_qnum(codeset, code)} for code in codes]
    arguments: dict[str, object] = {"keys": keys}
    if hold_ms:
        arguments["hold-time"] = hold_ms

    async def work() -> None:
        await guest.live_or_refuse().qemu.execute("send-key", arguments, timeout_s=MONITOR_S)

    guest.live_or_refuse()
    await guest.do(Call.MODIFY, api, work)
