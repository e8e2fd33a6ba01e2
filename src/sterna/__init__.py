"""Sterna manages QEMU guests on a host and moves them, running, between hosts.

The public API is `connect`, and what `sterna.client.api`, `sterna.client.types` and
`sterna.errors` document. Everything else may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sterna.client.api import Host, connect
    from sterna.client.guest import Guest

__version__ = "0.1.0"
__all__ = ["Guest", "Host", "__version__", "connect"]


def __getattr__(name: str) -> Any:
    # The daemon imports this package too and has no use for the client: so only on first use.
    if name in ("Host", "connect"):
        from sterna.client import api

        return getattr(api, name)
    if name == "Guest":
        from sterna.client.guest import Guest as _Guest

        return _Guest
    raise AttributeError(f"module 'sterna' has no attribute {name!r}")
