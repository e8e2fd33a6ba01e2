"""Parallel, compressed, zero-copy and encrypted migrations between fakes: what both QEMUs are told,
and what is put back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from sterna.errors import SternaError
from sterna.guest.states import State
from sterna.migration import memlock, tls
from sterna.migration.answers import Host
from sterna.migration.params import Request
from sterna.migration.uri import Endpoint
from sterna.qemu.qmp_errors import QmpError
from sterna.rpc.enums import MigrateFlag
from support.fake_host import until
from support.fake_qemu import FakeMonitor
from support.moving_pair import CAPABILITIES, GUEST, LIVE, PARAMETERS, pair

F = MigrateFlag
PARALLEL = LIVE | F.PARALLEL


def switched_on(qemu: FakeMonitor) -> list[set[str]]:
    """The capabilities that were on after each time a migration set them."""
    return [
        {item["capability"] for item in arguments["capabilities"] if item["state"]}
        for name, arguments in qemu.asked
        if name == "migrate-set-capabilities"
        and arguments is not None
        and len(arguments["capabilities"]) > 1  # not the launch
    ]


def parameters(qemu: FakeMonitor) -> list[dict[str, Any]]:
    return [dict(a or {}) for name, a in qemu.asked if name == "migrate-set-parameters"]


async def test_parallel(tmp_path: Path) -> None:
    """QEMU connects itself, with as many channels as were asked for, and all is put back."""
    more = {"multifd-channels": (4, True), "multifd-compression": ("zstd", True)}
    async with pair(tmp_path) as two:
        sender = two.sender
        cookie = await two.performed(PARALLEL, tuning=more, compression=frozenset({"zstd"}))
        receiver = two.receiver
        await two.confirm((await two.finish(cookie, PARALLEL)).cookie)
        await until(lambda: two.destination.registry.lookup_by_uuid(GUEST).job is None)
        uri = two.data.replace("unix://", "unix:")
        assert ("migrate", {"detach": True, "uri": uri}) in sender.asked
        assert "getfd" not in sender.commands
        assert switched_on(sender) == [{"return-path", "multifd"}]
        assert switched_on(receiver) == [{"return-path", "multifd"}, set()]
        for qemu in (sender, receiver):
            told = parameters(qemu)[0]
            assert (told["multifd-channels"], told["multifd-compression"]) == (4, "zstd")
        assert parameters(receiver)[-1] == PARAMETERS


async def test_parallel_that_fails_is_put_back(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        two.sender.says["migrate"] = [("MIGRATION", {"status": "failed"})]
        with pytest.raises(SternaError, match="runs on here"):
            await two.performed(PARALLEL, tuning={"multifd-channels": (4, True)})
        assert switched_on(two.sender) == [{"return-path", "multifd"}, set()]
        assert parameters(two.sender)[-1] == PARAMETERS
        assert two.guest.state is State.RUNNING


async def test_channels_that_hang_are_closed(tmp_path: Path) -> None:
    """QEMU 7.2 would wait for a peer that takes nothing, `migrate_cancel` or not. (I10)"""
    async with pair(tmp_path) as two:
        two.copies_for_ever()
        two.sender.says |= {"migrate_cancel": [], "yank": [("MIGRATION", {"status": "cancelled"})]}
        prepared = await two.prepare(await two.begin(PARALLEL), PARALLEL)
        performing = asyncio.create_task(two.perform(prepared, PARALLEL))
        await two.is_copying()
        await two.here.source.abort(two.guest)
        with pytest.raises(SternaError, match="canceled by client"):
            await performing
        assert two.guest.state is State.RUNNING


async def test_what_the_sources_qemu_lacks_is_refused_at_begin(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        lacking = [item for item in CAPABILITIES if item["capability"] != "multifd"]
        two.sender.replies["query-migrate-capabilities"] = lacking
        with pytest.raises(SternaError, match="'multifd' is not supported by QEMU") as refused:
            await two.begin(PARALLEL)
        assert refused.value.number == 74
        with pytest.raises(SternaError, match="'multifd-zlib-level' is not supported by QEMU"):
            await two.begin(LIVE, tuning={"multifd-zlib-level": (1, True)})
        assert two.guest.job is None


async def test_what_the_destinations_qemu_lacks_is_refused_at_prepare(tmp_path: Path) -> None:
    """Nothing is left there then."""
    async with pair(tmp_path) as two:
        begun = await two.begin(PARALLEL)
        with pytest.raises(SternaError, match="'rdma-pin-all' is not supported by QEMU") as refused:
            await two.prepare(begun, PARALLEL | F.RDMA_PIN_ALL)
        assert refused.value.number == 74
        assert two.destination.registry.find(GUEST) is None


async def test_a_method_that_qemu_was_built_without(tmp_path: Path) -> None:
    """It has the parameter, and refuses the value: that is the answer."""
    async with pair(tmp_path) as two:
        refusal = QmpError("migrate-set-parameters", "GenericError", "does not accept 'zstd'")
        begun = await two.begin(PARALLEL)
        prepared = await two.prepare(begun, PARALLEL)
        two.sender.replies["migrate-set-parameters"] = refusal
        with pytest.raises(SternaError, match=r"does not accept 'zstd'.*runs on here"):
            await two.perform(prepared, PARALLEL, tuning={"multifd-compression": ("zstd", True)})


async def test_zero_copy_may_lock_memory_as_long_as_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[object] = []
    monkeypatch.setattr(memlock, "allow", lambda pid, _definition: (pid, 8))
    monkeypatch.setattr(memlock, "restore", lambda pid, old: limits.append((pid, old)))
    async with pair(tmp_path) as two:
        two.sender.says["migrate"] = [("MIGRATION", {"status": "failed"})]
        with pytest.raises(SternaError, match="runs on here"):
            await two.performed(PARALLEL | F.ZEROCOPY)
        pid = two.source.launcher.process.pid
        assert limits == [(pid, (pid, 8))]
        assert "zero-copy-send" in switched_on(two.sender)[0]
        assert "zero-copy-send" not in switched_on(two.receiver)[0]


TLS = LIVE | F.TLS
TO = {"tls_destination": "hostb.test"}


async def test_encrypted(tmp_path: Path) -> None:
    """Both QEMUs get certificates, the source's the name to expect; the destination loses them."""
    async with pair(tmp_path) as two:
        sender = two.sender
        cookie = await two.performed(TLS, **TO)
        await two.confirm((await two.finish(cookie, TLS)).cookie)
        await until(lambda: two.destination.registry.lookup_by_uuid(GUEST).job is None)
        told = parameters(sender)[0]
        assert (told["tls-creds"], told["tls-hostname"]) == (tls.ALIAS, "hostb.test")
        told = parameters(two.receiver)[0]
        assert (told["tls-creds"], told["tls-hostname"]) == (tls.ALIAS, "")
        for qemu, end in ((sender, "client"), (two.receiver, "server")):
            [added] = [dict(a or {}) for name, a in qemu.asked if name == "object-add"]
            assert (added["endpoint"], added["verify-peer"]) == (end, True)
            assert added["dir"] == "/etc/pki/qemu"
        assert "object-del" in two.receiver.commands


async def test_certificates_are_taken_away_from_a_guest_that_stays(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        two.sender.says["migrate"] = [("MIGRATION", {"status": "failed"})]
        with pytest.raises(SternaError, match="runs on here"):
            await two.performed(TLS, **TO)
        assert two.sender.commands[-1] == "object-del"


async def test_certificates_that_cannot_be_read(tmp_path: Path) -> None:
    """Nor is it known then that there are none: they are taken away all the same."""
    async with pair(tmp_path) as two:
        refusal = QmpError("object-add", "GenericError", "Unable to access credentials x.pem")
        prepared = await two.prepare(await two.begin(TLS), TLS)
        two.sender.replies |= {"object-add": refusal, "object-del": refusal}
        with pytest.raises(SternaError, match=r"'object-add': Unable to access cred") as refused:
            await two.perform(prepared, TLS, **TO)
        assert refused.value.number == 1
        assert two.sender.commands[-1] == "object-del"
        assert two.guest.job is None
        assert two.guest.state is State.RUNNING


async def test_whose_certificate_over_a_unix_socket(tmp_path: Path) -> None:
    async with pair(tmp_path) as two:
        prepared = await two.prepare(await two.begin(TLS), TLS)
        with pytest.raises(SternaError, match=r"tls.destination is needed"):
            await two.perform(prepared, TLS)
        assert two.guest.job is None
    endpoint = Endpoint("tcp", "hostb")
    assert tls.hostname(Request(TLS), endpoint) == "hostb"
    assert tls.hostname(Request(TLS, tls_destination="x"), endpoint) == "x"


def test_forced() -> None:
    host = Host("hosta", UUID(int=1), tls_force=True)
    for flags in (TLS, F.OFFLINE):
        tls.check_forced(host, flags)
    with pytest.raises(SternaError, match="only encrypted") as refused:
        tls.check_forced(host, LIVE)
    assert refused.value.number == 55


@pytest.mark.parametrize("flags", [LIVE, LIVE | F.ABORT_ON_ERROR])
async def test_an_io_error_of_the_guest(tmp_path: Path, flags: F) -> None:
    """It ends the migration if that was asked for; the guest stays, paused by its error."""
    async with pair(tmp_path) as two:
        two.copies_for_ever()
        prepared = await two.prepare(await two.begin(flags), flags)
        performing = asyncio.create_task(two.perform(prepared, flags))
        await two.is_copying()
        two.sender.say("BLOCK_IO_ERROR", device="d", action="report")
        two.sender.say("BLOCK_IO_ERROR", device="d", action="stop")
        if flags is LIVE:
            assert "migrate_cancel" not in two.sender.commands
            await two.here.source.abort(two.guest)
        with pytest.raises(SternaError, match="I/O error" if flags is not LIVE else "canceled"):
            await performing


async def test_persistent_xml_that_cannot_be_read(tmp_path: Path) -> None:
    """It is refused before anything is sent."""
    async with pair(tmp_path) as two:
        with pytest.raises(SternaError):
            await two.begin(LIVE | F.PERSIST_DEST, persistent_xml="<domain")
        prepared = await two.prepare(await two.begin())
        with pytest.raises(SternaError):
            await two.perform(prepared, LIVE | F.PERSIST_DEST, persistent_xml="<domain")
        assert "migrate" not in two.sender.commands
        assert two.guest.job is None
