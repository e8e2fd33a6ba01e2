"""Key codes of clients to those of QEMU's `send-key` ("qnum").

A qnum is the scan code of the PC keyboard's first set, with 0x80 added for the keys that send 0xe0
first (QEMU, QKeyCode "number"). Linux's codes (linux/input-event-codes.h) are the same up to 83 and
for a few more; the others are listed.
"""

from __future__ import annotations

from sterna.errors import InternalError

CODESETS = (
    "linux",
    "xt",
    "atset1",
    "atset2",
    "atset3",
    "os_x",
    "xt_kbd",
    "usb",
    "win32",
    "qnum",
)
"""Names by the protocol's numbers."""

LINUX, XT, QNUM = 0, 1, 9
XT_KBD = 6

_LINUX_SAME = frozenset({*range(1, 84), 86, 87, 88})
_LINUX_OTHER = {
    85: 0x76, 89: 0x73, 90: 0x78, 91: 0x77, 92: 0x79, 93: 0x70, 94: 0x7B, 95: 0x5C,
    96: 0x9C, 97: 0x9D, 98: 0xB5, 99: 0x54, 100: 0xB8, 101: 0x5B, 102: 0xC7, 103: 0xC8,
    104: 0xC9, 105: 0xCB, 106: 0xCD, 107: 0xCF, 108: 0xD0, 109: 0xD1, 110: 0xD2, 111: 0xD3,
    112: 0xEF, 113: 0xA0, 114: 0xAE, 115: 0xB0, 116: 0xDE, 117: 0x59, 118: 0xCE, 119: 0xC6,
    120: 0x8B, 121: 0x7E, 124: 0x7D, 125: 0xDB, 126: 0xDC, 127: 0xDD, 128: 0xE8, 139: 0x9E,
    140: 0xA1, 142: 0xDF, 143: 0xE3, 155: 0xEC, 156: 0xE6, 158: 0xEA, 159: 0xE9, 163: 0x99,
    164: 0xA2, 165: 0x90, 166: 0xA4, 172: 0xB2, 173: 0xE7, 183: 0x5D, 184: 0x5E, 185: 0x5F,
    217: 0xE5, 226: 0xED,
}  # fmt: skip
_NUMBER_MAX = 0xFF


def to_qnum(codeset: int, code: int) -> int:
    """The key QEMU shall press.

    Raises:
        InternalError: a code, or a whole set of codes, with no key we know.
    """
    if codeset == LINUX:
        if code in _LINUX_SAME:
            return code
        if code in _LINUX_OTHER:
            return _LINUX_OTHER[code]
    elif codeset in (XT, XT_KBD, QNUM) and 0 < code <= _NUMBER_MAX:
        return code
    raise InternalError(
        f"cannot translate keycode {code} of {CODESETS[codeset]} codeset to qnum keycode"
    )
