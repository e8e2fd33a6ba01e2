"""Errors of the remote protocol itself.

The tree::

    RpcFailure                        nothing of this ever goes over the wire
    +-- ProtocolViolation             the peer broke the protocol: its connection ends
    +-- ConnectionLost                the connection is gone, with the reason
    +-- StreamClosed                  the peer finished or aborted the stream that is used
    +-- LocalMistake                  our own caller broke a rule: a second reply, a send after eof

Errors that a peer reports, or that we report to it, are `sterna.errors.SternaError`.
`ConnectionLost` is one as well, so that a caller of a client needs to catch only that tree.
"""

from __future__ import annotations

from sterna.errors import ErrorDomain, InternalError


class RpcFailure(Exception):
    """Base of what goes wrong with a connection rather than with a call."""


class ProtocolViolation(RpcFailure):
    """The peer sent what no peer may send. The text is for our log."""


class LocalMistake(RpcFailure):
    """A rule of the protocol that our own code was about to break."""


class StreamClosed(RpcFailure):
    """The stream has ended, by the peer or with its connection; nothing can be sent on it."""


class ConnectionLost(RpcFailure, InternalError):
    """The connection ended while something waited for it.

    Raised also for calls whose outcome is therefore not known: the peer may have done the work.
    `reason` is one sentence, such as "the peer closed the connection".
    """

    def __init__(self, reason: str) -> None:
        InternalError.__init__(self, reason, domain=ErrorDomain.RPC)
        self.reason = reason

    @property
    def message(self) -> str:
        return self.reason
