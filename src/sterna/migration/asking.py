"""The question a source asks its destination: made from the cookie, kept in the job's record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from sterna.migration.cookie import Cookie
from sterna.migration.peers import Question
from sterna.migration.uri import bracketed


def question(
    id: str, guest: UUID, cookie: Cookie, hosts: Iterable[str], uri: str = ""
) -> Question | None:
    """What to ask a destination whose second cookie this is; None if it cannot be asked.

    `hosts` are names of the destination that are known to work from here, for that is where its
    daemon or its QEMU is reached; they are tried, too, should its own name for itself not be. With
    a `uri` by which the source reaches it a destination that is not Sterna can be asked as well.
    """
    if cookie.own is None and uri:
        return Question(id, guest, cookie.host_uuid, (), uri)
    if cookie.own is None or cookie.own.asks is None:
        return None
    places = [cookie.own.asks]
    try:
        port = urlsplit(cookie.own.asks).port
    except ValueError:
        port = None
    if port is not None:
        places += [f"tcp://{bracketed(host)}:{port}" for host in hosts if host]
    return Question(id, guest, cookie.host_uuid, tuple(dict.fromkeys(places)))


def to_record(asked: Question, hostname: str) -> dict[str, Any]:
    """For the job's record, so that a later daemon can go on asking."""
    places = list(asked.places)
    return {"host": str(asked.host), "places": places, "hostname": hostname, "uri": asked.uri}


def from_record(id: str, guest: UUID, record: Mapping[str, Any]) -> Question | None:
    """The question of a job's record; None if it has none."""
    kept = record.get("question")
    if kept is None:
        return None
    # (A record of an older version has no `uri`.)
    return Question(id, guest, UUID(kept["host"]), tuple(kept["places"]), kept.get("uri", ""))
