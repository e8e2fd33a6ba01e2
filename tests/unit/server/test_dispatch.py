"""Who may call what, and what errors become on the wire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from sterna.errors import (
    BadArgument,
    Code,
    InternalError,
    NoConnect,
    NoDomain,
    NoSupport,
    OperationDenied,
    SternaError,
)
from sterna.rpc.calls import PROCEDURES
from sterna.rpc.msg_common import Dom
from sterna.rpc.msg_connect import (
    ConnectCompareCpuArgs,
    ConnectListAllDomainsArgs,
    ConnectOpenArgs,
    ConnectSupportsFeatureArgs,
)
from sterna.rpc.msg_domain import (
    DomainGetXmlDescArgs,
    DomainLookupByNameArgs,
    DomainSuspendArgs,
)
from sterna.server import dispatch as dispatching
from sterna.server.dispatch import HANDLERS, Entry, check_flags
from sterna.server.handlers.connect import accepted_uri
from sterna.server.session import Session

from .conftest import Served

NOBODY = Dom("zz", bytes(16), -1)


def test_every_handler_serves_a_known_procedure() -> None:
    names = {procedure.name for procedure in PROCEDURES if not procedure.is_event}
    assert set(HANDLERS) <= names


def test_streams_are_opened_by_handlers_that_see_the_whole_call() -> None:
    for procedure in PROCEDURES:
        entry = HANDLERS.get(procedure.name)
        if entry is not None and procedure.stream is not None:
            assert entry.whole_call, procedure.name


async def test_session_start_of_virsh(served: Served) -> None:
    client = await served.connect(opened=False)
    assert (await client.call("AUTH_LIST")).types == [0]
    features = {}
    await client.call("CONNECT_SUPPORTS_FEATURE", ConnectSupportsFeatureArgs(10))
    await client.call("CONNECT_OPEN", ConnectOpenArgs("qemu:///system", 0))
    for number in range(20):
        reply = await client.call("CONNECT_SUPPORTS_FEATURE", ConnectSupportsFeatureArgs(number))
        features[number] = reply.supported
    assert {n for n, yes in features.items() if yes} == {4, 6, *range(7, 17)}
    assert (await client.call("CONNECT_GET_URI")).uri == "qemu:///system"
    assert (await client.call("CONNECT_GET_HOSTNAME")).hostname == "tested"
    assert (await client.call("CONNECT_GET_LIB_VERSION")).lib_ver == 9_000_000
    await client.call("CONNECT_CLOSE")
    await client.wait_closed()


async def test_nothing_but_the_beginning_before_open(served: Served) -> None:
    client = await served.connect(opened=False)
    for name, args in (
        ("CONNECT_GET_HOSTNAME", None),
        ("CONNECT_SUPPORTS_FEATURE", ConnectSupportsFeatureArgs(14)),
        ("CONNECT_LIST_ALL_DOMAINS", ConnectListAllDomainsArgs(1, 0)),
    ):
        with pytest.raises(InternalError, match="hypervisor connection not open") as refused:
            await client.call(name, args)
        assert refused.value.domain == 7


async def test_open_twice(served: Served) -> None:
    client = await served.connect()
    with pytest.raises(InternalError, match="connection already open"):
        await client.call("CONNECT_OPEN", ConnectOpenArgs("qemu:///system", 0))


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("", "qemu:///system"),
        ("qemu:///system", "qemu:///system"),
        ("qemu:///session", "qemu:///session"),
        ("qemu:///system?foo=bar", "qemu:///system?foo=bar"),
        ("storage:///system", "storage:///system"),
    ],
)
def test_uris_that_open(name: str, uri: str) -> None:
    assert accepted_uri(name, root=True) == uri


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("xen:///system", NoConnect, "no connection driver available for xen:///system"),
        ("qemu+unix:///system", NoConnect, "no connection driver available"),
        ("qemu://host/system", NoConnect, "no connection driver available"),
        ("qemu:///nosuch", InternalError, "unexpected qemu URI path '/nosuch', try qemu:///system"),
        ("\udcff", NoConnect, "no connection driver"),
        ("//[", NoConnect, "no connection driver"),
    ],
)
def test_uris_that_do_not(name: str, error: type[SternaError], text: str) -> None:
    with pytest.raises(error) as refused:
        accepted_uri(name, root=True)
    assert text in refused.value.message


async def test_read_only_by_flag_and_by_socket(served: Served) -> None:
    by_flag = await served.connect(opened=False)
    await by_flag.call("CONNECT_OPEN", ConnectOpenArgs("qemu:///system", 1))
    by_socket = await served.connect(read_only=True)
    for client in (by_flag, by_socket):
        with pytest.raises(OperationDenied) as refused:
            await client.call("DOMAIN_SUSPEND", DomainSuspendArgs(NOBODY))
        assert str(refused.value) == (
            "operation forbidden: read only access prevents virDomainSuspend"
        )
        with pytest.raises(OperationDenied, match="virDomainGetXMLDesc with secure flag"):
            await client.call("DOMAIN_GET_XML_DESC", DomainGetXmlDescArgs(NOBODY, 1))
        with pytest.raises(NoDomain):
            await client.call("DOMAIN_GET_XML_DESC", DomainGetXmlDescArgs(NOBODY, 0))


async def test_what_is_not_served_says_so_by_its_api_name(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(HANDLERS, "CONNECT_COMPARE_CPU", raising=False)
    client = await served.connect()
    with pytest.raises(NoSupport) as refused:
        await client.call("CONNECT_COMPARE_CPU", ConnectCompareCpuArgs("", 0))
    assert str(refused.value) == (
        "this function is not supported by the connection driver: virConnectCompareCPU"
    )


async def test_unknown_flags(served: Served) -> None:
    client = await served.connect()
    with pytest.raises(SternaError) as refused:
        await client.call("CONNECT_LIST_ALL_DOMAINS", ConnectListAllDomainsArgs(1, 1 << 20))
    assert refused.value.number == Code.INVALID_ARG
    assert str(refused.value) == (
        "unsupported flags (0x100000) in function qemuConnectListAllDomains"
    )


def test_check_flags() -> None:
    check_flags(3, 3, "f")
    with pytest.raises(BadArgument, match=r"0x4\) in function f"):
        check_flags(5, 3, "f")


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Entry]]:
    """Handlers a test puts in the place of real ones."""
    entries = dict(HANDLERS)
    monkeypatch.setattr(dispatching, "HANDLERS", entries)
    return entries


async def test_a_bug_is_an_incident_and_its_text_stays_here(
    served: Served, replaced: dict[str, Entry], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(session: Session, args: Any) -> None:
        raise RuntimeError("a secret of the daemon")

    async def broken_later(session: Session, args: Any) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("a secret of the daemon")

    client = await served.connect()
    for run, waits in ((broken, False), (broken_later, True)):
        replaced["CONNECT_GET_HOSTNAME"] = Entry(run, waits, early=False, whole_call=False)
        with caplog.at_level(logging.ERROR), pytest.raises(InternalError) as told:
            await client.call("CONNECT_GET_HOSTNAME")
        assert "secret" not in str(told.value)
        incident = str(told.value).rpartition("incident ")[2]
        assert any(
            getattr(record, "f", {}).get("incident") == incident for record in caplog.records
        )
    assert (await client.call("CONNECT_GET_LIB_VERSION")).lib_ver


async def test_a_client_that_hangs_up_stops_only_the_waiting(
    served: Served, replaced: dict[str, Entry]
) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(session: Session, args: Any) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    replaced["DOMAIN_SUSPEND"] = Entry(slow, True, early=False, whole_call=False)
    client = await served.connect()
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(_refused(client.call("DOMAIN_SUSPEND", DomainSuspendArgs(NOBODY))))
        await started.wait()
        client.abort("gone")
        await cancelled.wait()
        await call
    assert served.context.sessions == {}


async def _refused(call: Any) -> None:
    with pytest.raises(SternaError):
        await call


async def test_slow_calls_do_not_keep_reads_waiting(
    served: Served, replaced: dict[str, Entry]
) -> None:
    """L6: with every place for slow calls taken, a read still answers."""
    release = asyncio.Event()

    async def slow(session: Session, args: Any) -> None:
        await release.wait()

    replaced["DOMAIN_SUSPEND"] = Entry(slow, True, early=False, whole_call=False)
    client = await served.connect()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(client.call("DOMAIN_SUSPEND", DomainSuspendArgs(NOBODY)))
        await asyncio.sleep(0)
        assert (await client.call("CONNECT_GET_HOSTNAME")).hostname == "tested"
        release.set()


async def test_one_client_too_many_is_closed(served: Served) -> None:
    kept = [await served.connect() for _ in range(8)]
    extra = served.raw()
    extra.setblocking(False)
    assert await asyncio.get_running_loop().sock_recv(extra, 1) == b""
    extra.close()
    kept[0].close()
    await kept[0].wait_closed()
    for _ in range(10):  # turns of the loop, in which the daemon's side notices
        await asyncio.sleep(0)
    await served.connect()


async def test_lookup_errors(served: Served) -> None:
    client = await served.connect()
    with pytest.raises(NoDomain) as refused:
        await client.call("DOMAIN_LOOKUP_BY_NAME", DomainLookupByNameArgs("zz"))
    assert str(refused.value) == "Domain not found: no domain with matching name 'zz'"
    assert refused.value.domain == 10


async def test_readers_leave_places_to_those_who_rule(served: Served) -> None:
    readers = [await served.connect(read_only=True) for _ in range(7)]
    refused = served.raw(read_only=True)
    refused.setblocking(False)
    assert await asyncio.get_running_loop().sock_recv(refused, 1) == b""
    refused.close()
    ruler = await served.connect()
    assert (await ruler.call("CONNECT_GET_HOSTNAME")).hostname == "tested"
    assert len(readers) == 7
