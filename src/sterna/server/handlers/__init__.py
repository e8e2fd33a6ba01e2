"""Procedures to what they do, by area. Importing this package registers them all."""

from sterna.server.handlers import (
    connect,
    cpu,
    elsewhere,
    events,
    host,
    info,
    jobs,
    lifecycle,
    lookup,
    migrate,
    modify,
    monitor,
    native,
    node,
    stats,
    streams,
)

__all__ = [
    "connect",
    "cpu",
    "elsewhere",
    "events",
    "host",
    "info",
    "jobs",
    "lifecycle",
    "lookup",
    "migrate",
    "modify",
    "monitor",
    "native",
    "node",
    "stats",
    "streams",
]
