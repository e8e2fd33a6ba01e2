"""Messages of Sterna's own program, between the two hosts of a migration.

Each names the host that is asked: another daemon at that address knows nothing, and must not say
so as if it were the one that decides.
"""

from __future__ import annotations

from sterna.xdr.message import Message
from sterna.xdr.wire import I32, U64, Str, Uuid


class MigrationDecideArgs(Message):
    """What was decided about a migration? To ask decides, if nothing was (L4).

    `migration` and `guest` are uuids; `destination` is the uuid of the host that is asked, `source`
    and `source_name` are the asking one's.
    """

    migration: Uuid
    guest: Uuid
    destination: Uuid
    source: Uuid
    source_name: Str


class MigrationDecideRet(Message):
    """`verdict`: 1 committed, 2 aborted. `epoch`: the guest's, as the asked host knows it."""

    verdict: I32
    epoch: U64
    hostname: Str


class GuestClaimArgs(Message):
    """The claimer wants to run the guest that it once gave away to the host that is asked.

    `migration` is the one by which it left: a secret of those who had it. `epoch`: the newest the
    claimer knows of; `claimer_where`: where it can be asked itself, `tcp://HOST:PORT`.
    """

    migration: Uuid
    guest: Uuid
    holder: Uuid
    claimer: Uuid
    claimer_name: Str
    claimer_where: Str
    epoch: U64


class GuestClaimRet(Message):
    """`granted` 1: the guest does not run at the holder, and will not: it is the claimer's, under
    `epoch`. 0: it is not, and `why`."""

    granted: I32
    epoch: U64
    hostname: Str
    why: Str


class MigrationRejoinArgs(Message):
    """The connection for the missing pages of a guest in post-copy is lost: listen for another one.

    As `MigrationDecideArgs`.
    """

    migration: Uuid
    guest: Uuid
    destination: Uuid
    source: Uuid
    source_name: Str


class MigrationRejoinRet(Message):
    """`port`: where it listens; 0 if no page is missing any more."""

    port: I32
