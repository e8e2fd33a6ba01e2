"""Whatever a client says, every call is answered, and never with an incident of ours."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import uuid
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sterna.errors import SternaError
from sterna.host.places import Places
from sterna.migration.service import Host, Migrations
from sterna.rpc.calls import Procedure, procedure
from sterna.rpc.msg_common import Dom
from sterna.server.clients import Clients
from sterna.server.context import Context
from sterna.server.decisions import DecisionListener
from sterna.server.dispatch import HANDLERS
from sterna.server.settings import Settings
from sterna.xdr.wire import WireError
from support.fake_host import domain_xml, fake_host
from support.fake_peers import FakePeers
from support.wire import messages

from .conftest import Served

RUNNING = uuid.UUID(int=1)
STORED = uuid.UUID(int=2)
NOBODY = uuid.UUID(int=3)

NEED_AN_EMULATOR = {
    name for name in HANDLERS if "CPU_MODEL" in name or "COMPARE_" in name or "BASELINE_" in name
} | {
    "CONNECT_GET_VERSION",
    "CONNECT_GET_CAPABILITIES",
    "CONNECT_GET_DOMAIN_CAPABILITIES",
    "CONNECT_GET_MAX_VCPUS",
    "CONNECT_DOMAIN_XML_TO_NATIVE",
}
LAST_FOR_EVER = {
    # A fake QEMU never finishes these.
    "DOMAIN_SAVE",
    "DOMAIN_SAVE_FLAGS",
    "DOMAIN_MANAGED_SAVE",
    "DOMAIN_MIGRATE_PERFORM3",
    "DOMAIN_MIGRATE_PERFORM3_PARAMS",
    "DOMAIN_MIGRATE_BEGIN3",
    "DOMAIN_MIGRATE_BEGIN3_PARAMS",
    "DOMAIN_MIGRATE_CONFIRM3",
    "DOMAIN_MIGRATE_CONFIRM3_PARAMS",
}
END_THE_CONNECTION = {"CONNECT_CLOSE"}
BIND_THREADS = {
    # By number, and a fake QEMU's are somebody else's.
    "DOMAIN_PIN_VCPU",
    "DOMAIN_PIN_VCPU_FLAGS",
    "DOMAIN_PIN_EMULATOR",
}
LEFT_OUT = NEED_AN_EMULATOR | LAST_FOR_EVER | END_THE_CONNECTION | BIND_THREADS

SERVED = [
    procedure(name) for name in sorted(HANDLERS.keys() - LEFT_OUT) if procedure(name).stream is None
]

DOMS = st.sampled_from([Dom("web", u.bytes, -1) for u in (RUNNING, STORED, NOBODY)])
FLAGS = st.sampled_from([0, 0, 1, 2, 3, 4, 8, 16, 1 << 31])
XML = st.sampled_from(
    [
        domain_xml("other", str(NOBODY)),
        domain_xml("web", str(RUNNING)),
        "<domain/>",
        "<domain type='qemu'><name>a</name></domain>",
        "<a",
        "",
        "\x01",
        "<domain>" * 2000,
    ]
)
PATHS = st.sampled_from(["/nonexistent/x", "relative", "", "/dev/null"])
SMALL = st.sampled_from([-1, 0, 1, 2, 1000, 2**31 - 1])
CHOSEN = {"dom": DOMS, "flags": FLAGS, "xml": XML, "xml_desc": XML, "dxml": XML, "dom_xml": XML}
CHOSEN |= dict.fromkeys(("to", "from_", "file", "path"), PATHS)
CHOSEN |= dict.fromkeys(("eventID", "callbackID", "nparams", "type", "maplen", "maxinfo"), SMALL)


@st.composite
def calls(draw: st.DrawFn) -> tuple[Procedure, Any]:
    """A call a client could make, often one that means something."""
    which = draw(st.sampled_from(SERVED))
    if which.args is None:
        return which, None
    args = draw(messages(which.args))
    names = which.args.__match_args__
    values = {name: getattr(args, name) for name in names}
    for name in names:
        if name in CHOSEN and draw(st.booleans()):
            values[name] = draw(CHOSEN[name])
    return which, which.args(**values)


class Incidents(logging.Handler):
    """Collects what must not happen."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(logging.Formatter().format(record))


async def make(root: Path, made: list[tuple[Procedure, Any]]) -> None:
    async with fake_host(root) as host, asyncio.TaskGroup() as tasks:
        registry = host.registry
        stored = domain_xml("stored", str(STORED))
        await registry.define(stored)
        await registry.create(domain_xml("web", str(RUNNING)))
        me = Host("tested", uuid.UUID(int=9), "127.0.0.1")
        context = Context(
            settings=Settings(),
            places=Places.below(root),
            hostname="tested",
            host_uuid=uuid.UUID(int=9),
            is_system=True,
            guest_ids=None,
            emulators=host.surroundings.emulators,
            store=host.store,
            bus=host.surroundings.bus,
            registry=registry,
            migrations=Migrations(registry, me, FakePeers(None)),
            door=DecisionListener(host.store, me, 0),
        )
        served = Served(context, Clients(context, tasks))
        client = await served.connect()
        for which, args in made:
            try:
                async with asyncio.timeout(10):
                    await client.call(which.name, args)
            except (SternaError, WireError):
                pass
            assert not client.closed, which.name
        served.clients.end_all("over")


@given(st.lists(calls(), min_size=1, max_size=8))
def test_any_calls_are_answered(made: list[tuple[Procedure, Any]]) -> None:
    incidents = Incidents()
    logging.getLogger("sterna").addHandler(incidents)
    try:
        with tempfile.TemporaryDirectory(prefix="st-") as root:
            asyncio.run(make(Path(root), made))
    finally:
        logging.getLogger("sterna").removeHandler(incidents)
    assert not incidents.found, incidents.found[0]
