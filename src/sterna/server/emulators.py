"""The host's emulators as `sterna.host` wants to hear of them."""

from __future__ import annotations

import contextlib

from sterna.errors import ConfigUnsupported
from sterna.guest.support import guest_support
from sterna.guest.surroundings import Emulators
from sterna.host.support import GuestSupport

ARCHES = ("x86_64",)
"""Architectures guests may have here."""


async def host_supports(emulators: Emulators) -> list[GuestSupport]:
    """The emulators found here, one for each architecture. None is no error: the host's own facts
    are worth telling all the same."""
    found = []
    for arch in ARCHES:
        with contextlib.suppress(ConfigUnsupported):
            found.append(guest_support(await emulators.caps(None, arch)))
    return found
