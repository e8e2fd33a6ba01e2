"""When to ping a silent peer, and when to give it up. Time is an argument, in seconds.

Rule (libvirt 9.0, observed): anything received clears the count; after `interval` of silence a
ping goes out; when `count` of them are out, the next expiry ends the connection. So with 5 s and
5 a dead peer is noticed after 30 s.
"""

from __future__ import annotations

from enum import Enum

INTERVAL_S = 5.0
COUNT = 5

_PINGS_BEFORE_LIMIT = 4


class Due(Enum):
    """What a tick found."""

    NOTHING = 0
    PING = 1
    DEAD = 2


class KeepaliveTimer:
    """One connection's silence. Does nothing until `allow` is called."""

    def __init__(self, now: float) -> None:
        self._due = now
        self._pings_out = 0
        self._allowed = False
        self._interval = INTERVAL_S
        self._count = COUNT
        self._silence_max: float | None = None
        self._step = INTERVAL_S
        self._pings_max = COUNT

    def allow(self, interval_s: float, count: int, now: float) -> None:
        """The peer answers pings: send them from now on. An interval of 0 stops them.

        A server must not ping a client that has not asked for it: old ones take an unknown
        program for a fatal error.
        """
        self._allowed = interval_s > 0
        self._interval, self._count = interval_s, count
        self._restart(now)

    def limit_silence(self, seconds: float | None, now: float) -> None:
        """Give the peer up after this much silence at the latest; None takes the limit back.

        Without effect while pings are not allowed: such a peer may be silent and well.
        """
        self._silence_max = seconds
        self._restart(now)

    def heard(self, now: float) -> None:
        """Something arrived, or the peer showed otherwise that it lives."""
        self._due = now + self._step
        self._pings_out = 0

    def deadline(self) -> float | None:
        """When `tick` should be called next."""
        return self._due if self._allowed else None

    def tick(self, now: float) -> Due:
        """See whether something is due. Call it at `deadline`, or at any other time.

        However late it is called, a peer gets `interval` to answer each ping: a host that was
        itself asleep does not take all its peers for dead.
        """
        if not self._allowed or now < self._due:
            return Due.NOTHING
        if self._pings_out >= self._pings_max:
            return Due.DEAD
        self._pings_out += 1
        self._due = now + self._step
        return Due.PING

    def _restart(self, now: float) -> None:
        limit = self._silence_max
        if limit is not None and limit < self._interval * (self._count + 1):
            self._step, self._pings_max = limit / (_PINGS_BEFORE_LIMIT + 1), _PINGS_BEFORE_LIMIT
        else:
            self._step, self._pings_max = self._interval, self._count
        self.heard(now)
