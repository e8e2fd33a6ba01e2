"""Errors to and from the struct that carries them over the wire."""

from __future__ import annotations

from sterna.errors import SternaError, SystemCallError, error_for
from sterna.rpc.msg_common import ErrorBody

TEXT_BYTES_MAX = 64 * 1024
"""An error that cannot be encoded would end the connection, as it does with libvirt 9.0
(observed with a lookup of a 4 MiB name). A text that long helps nobody anyway."""

LEVEL_ERROR = 2


def to_body(error: SternaError) -> ErrorBody:
    """The error as a packet carries it. It can always be encoded, whatever its texts hold."""
    whole, detail = str(error), error.detail
    form: str | None = "%s"
    argument: str | None = whole
    if error.opening and whole == f"{error.opening}: {detail}":
        form, argument = f"{error.opening}: %s", detail
    elif error.opening and whole == error.opening:
        form, argument = whole, None
    return ErrorBody(
        code=_word(error.number),
        domain=_word(error.domain),
        message=_text(whole),
        level=LEVEL_ERROR,
        dom=None,
        str1=form,
        str2=None if argument is None else _text(argument),
        str3=None,
        int1=_word(error.errno) if isinstance(error, SystemCallError) else -1,
        int2=-1,
        net=None,
    )


def from_body(body: ErrorBody) -> SternaError:
    """The error a peer sent, as the class we would have raised ourselves."""
    error = error_for(body.code, body.message or "", domain=body.domain)
    if isinstance(error, SystemCallError):
        error.errno = max(body.int1, 0)
    return error


def _word(number: int) -> int:
    return number if -(1 << 31) <= number < 1 << 31 else -1


def _text(text: str) -> str:
    raw = text[:TEXT_BYTES_MAX].replace("\0", "").encode(errors="replace")
    return raw[:TEXT_BYTES_MAX].decode(errors="ignore")
