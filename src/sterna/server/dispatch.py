"""From a call to its handler and back: the one place that decides who may, and that turns errors
into what the wire carries.

A handler is a function `(session, args) -> ret`. A plain one must not wait for anything and is
answered in the same turn of the loop; a coroutine runs as a task of its connection. When the
client hangs up, that task is cancelled: it only ever waits for work that others (a guest's actor, a
migration) own and finish.
"""

from __future__ import annotations

import inspect
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sterna.errors import (
    BadArgument,
    ErrorDomain,
    InternalError,
    NoSupport,
    OperationDenied,
    RpcError,
    SternaError,
)
from sterna.rpc.asyncio_shell import Call
from sterna.server.logging import bound, event
from sterna.server.session import Session

log = logging.getLogger(__name__)

Handler = Callable[[Session, Any], Any]
CallHandler = Callable[[Session, Call], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Entry:
    """How one procedure is served.

    Attributes:
        run: the handler.
        waits: it is a coroutine.
        early: allowed before CONNECT_OPEN.
        whole_call: it gets the `Call` and answers itself (streams, descriptors).
        stranger: allowed before the client has said who it is.
    """

    run: Callable[..., Any]
    waits: bool
    early: bool
    whole_call: bool
    stranger: bool = False


HANDLERS: dict[str, Entry] = {}
"""Filled by the decorators when `sterna.server.handlers` is imported."""


def handles(
    *procedures: str, early: bool = False, stranger: bool = False, whole_call: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Serve these procedures with the decorated function."""

    def register(run: Callable[..., Any]) -> Callable[..., Any]:
        entry = Entry(run, inspect.iscoroutinefunction(run), early, whole_call, stranger)
        for name in procedures:
            if name in HANDLERS:
                raise ValueError(f"{name} has two handlers")
            HANDLERS[name] = entry
        return run

    return register


def check_flags(flags: int, supported: int, function: str) -> None:
    """Refuse flag bits that are not understood, before anything was done.

    Args:
        function: what libvirt 9.0 names in the same refusal; tools match on it.

    Raises:
        BadArgument: a bit is not in `supported`.
    """
    # int: the complement of an IntFlag has only the bits that flag names.
    unknown = flags & ~int(supported)
    if unknown:
        raise BadArgument(f"unsupported flags (0x{unknown:x}) in function {function}")


_DOMAINS = (
    ("STORAGE_", ErrorDomain.STORAGE),
    ("NETWORK_", ErrorDomain.NETWORK),
    ("NODE_DEVICE_", ErrorDomain.NODEDEV),
    ("INTERFACE_", ErrorDomain.INTERFACE),
    ("SECRET_", ErrorDomain.SECRET),
    ("NWFILTER_", ErrorDomain.NWFILTER),
)


def error_domain(procedure: str) -> ErrorDomain:
    """Which part of us a procedure belongs to. Cosmetic, but bindings show it."""
    for prefix, domain in _DOMAINS:
        if procedure.startswith(prefix):
            return domain
    return ErrorDomain.DOMAIN


def dispatch(session: Session, call: Call) -> None:
    """Serve one decoded call. Never raises."""
    procedure = call.procedure
    entry = HANDLERS.get(procedure.name)
    connection = session.connection
    try:
        if session.is_stranger and not (entry is not None and entry.stranger):
            raise RpcError("authentication required")
        if session.uri is None and not (entry is not None and entry.early):
            raise InternalError("hypervisor connection not open", domain=ErrorDomain.RPC)
        if session.read_only:
            denied = procedure.denied_read_only(call.args)
            if denied is not None:
                raise OperationDenied(denied, domain=error_domain(procedure.name))
        if entry is None:
            raise NoSupport(procedure.api_name, domain=error_domain(procedure.name))
        if not entry.waits:
            if entry.whole_call:
                entry.run(session, call)
            else:
                connection.reply(call, entry.run(session, call.args))
            return
    except Exception as error:  # the handler boundary: whatever it is, the client gets an answer
        answer_error(session, call, error)
        return
    session.start(_serve(session, call, entry))


async def _serve(session: Session, call: Call, entry: Entry) -> None:
    """A handler that waits."""
    with bound(client=session.number, procedure=call.procedure.name):
        try:
            if entry.whole_call:
                await entry.run(session, call)
            else:
                session.connection.reply(call, await entry.run(session, call.args))
        except Exception as error:  # the handler boundary, as above
            answer_error(session, call, error)


def answer_error(session: Session, call: Call, error: Exception) -> None:
    """Turn an exception into the wire's error. What is not ours to tell stays in the log."""
    name = call.procedure.name
    if isinstance(error, SternaError):
        event(
            log,
            "call.failed",
            logging.DEBUG,
            client=session.number,
            procedure=name,
            code=error.number,
            error=error,
        )
        told = error
    else:
        incident = secrets.token_hex(6)
        log.error(
            "call.incident",
            exc_info=error,
            extra={"f": {"incident": incident, "client": session.number, "procedure": name}},
        )
        told = InternalError(
            f"unexpected failure in {call.procedure.api_name}, incident {incident}"
        )
    if call.answered:
        return  # a stream's handler failed after its reply; it has told its stream
    session.connection.reply_error(call, told)
