"""External data representation (RFC 4506): typed messages to bytes and back.

`wire` names the field kinds, `message` is the base of all messages, `compile` makes their codecs.
"""

from __future__ import annotations

from sterna.xdr.compile import decode, encode, encode_into
from sterna.xdr.message import Message
from sterna.xdr.wire import WireError

__all__ = ["Message", "WireError", "decode", "encode", "encode_into"]
