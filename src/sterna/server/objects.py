"""Guests to and from the wire: what a client names is found by its uuid alone."""

from __future__ import annotations

from uuid import UUID

from sterna.guest.actor import Guest
from sterna.rpc.msg_common import Dom
from sterna.server.session import Session


def find(session: Session, dom: Dom) -> Guest:
    """The guest a client means. Its name and id are only hints, as with libvirt 9.0 (observed).

    Raises:
        NoDomain: there is none of that uuid; the text shows the name the client believes in.
    """
    return session.context.registry.lookup_by_uuid(UUID(bytes=dom.uuid), dom.name)


def encode_guest(guest: Guest) -> Dom:
    """A complete reference: name, uuid and the id of now."""
    return Dom(guest.name, guest.uuid.bytes, guest.id)
