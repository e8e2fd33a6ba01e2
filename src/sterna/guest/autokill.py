"""Autokill: a guest that dies by force with the connection that answers for it.

Two kinds of guest are registered: an incoming one, from before its QEMU is launched until Finish
has started it (I8), and one started with the autodestroy flag. When the connection ends, however
it ends, the registration's action runs synchronously in the close callback: no job is waited for,
no QEMU is asked. What the action is belongs to who registered: the migration core writes its
decision first (L4), an autodestroy guest is killed at once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sterna.errors import OperationInvalid
from sterna.guest.ports import ClientLink

log = logging.getLogger("sterna.guest.autokill")

SILENCE_S_MAX = 5.0
"""How long a connection that answers for a guest may be silent before it counts as gone, unless
set otherwise: the whole budget of L3, pings included."""


@dataclass(frozen=True, slots=True)
class Registration:
    """One guest's tie to one connection. `incoming` tells the two kinds apart."""

    uuid: UUID
    link: ClientLink
    incoming: bool
    callback: Callable[[], None]
    """What the link calls; also the key for taking it back."""


class Autokill:
    """All registrations of a host, at most one a guest."""

    def __init__(self, silence_s_max: float = SILENCE_S_MAX) -> None:
        self._silence_s_max = silence_s_max
        self._armed: dict[UUID, Registration] = {}
        self._guests_of: Counter[ClientLink] = Counter()

    def register(
        self,
        uuid: UUID,
        link: ClientLink,
        on_close: Callable[[], None],
        *,
        incoming: bool = False,
    ) -> None:
        """Run `on_close` once when `link` ends, unless `remove` comes first.

        A link that has ended already runs it before this returns: a close between the request and
        its execution must not leave an orphan (L3).

        Raises:
            OperationInvalid (55): the guest is registered with another connection.
        """
        standing = self._armed.get(uuid)
        if standing is not None and standing.link is not link:
            raise OperationInvalid("domain is marked for auto destroy")
        self.remove(uuid)

        def fire() -> None:
            if self._armed.get(uuid) is not registration:
                return  # taken back, and the guest perhaps another connection's by now
            self._disarm(registration)
            log.warning("autokill.fired guest=%s incoming=%s", uuid, incoming)
            try:
                on_close()
            except Exception:
                # A boundary: the connection's other registrations must die too. (L3)
                log.exception("autokill.action_failed guest=%s", uuid)

        registration = self._armed[uuid] = Registration(uuid, link, incoming, fire)
        if link.closed:
            self._guests_of[link] += 1
            fire()
            return
        link.add_close_callback(fire)
        self.hold(link)
        log.info("autokill.armed guest=%s incoming=%s", uuid, incoming)

    def remove(self, uuid: UUID) -> bool:
        """Take a registration back; a later close of that connection never touches the guest.

        Returns whether there was one.
        """
        registration = self._armed.get(uuid)
        if registration is None:
            return False
        self._disarm(registration)
        log.info("autokill.removed guest=%s", uuid)
        return True

    def _disarm(self, registration: Registration) -> None:
        del self._armed[registration.uuid]
        link = registration.link
        link.remove_close_callback(registration.callback)
        self.let_go(link)

    def hold(self, link: ClientLink) -> None:
        """A guest hangs on this connection: its silence is limited until `let_go`."""
        self._guests_of[link] += 1
        link.limit_silence(self._silence_s_max)

    def let_go(self, link: ClientLink) -> None:
        self._guests_of[link] -= 1
        if self._guests_of[link] <= 0:
            del self._guests_of[link]
            link.limit_silence(None)

    def find(self, uuid: UUID) -> Registration | None:
        """The guest's registration, if it is armed."""
        return self._armed.get(uuid)
