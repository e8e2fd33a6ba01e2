"""Flags and parameters: what goes together, what is refused and with which words."""

from __future__ import annotations

import pytest

from sterna.errors import SternaError
from sterna.migration.flags import checked
from sterna.migration.params import BANDWIDTH_MIB_MAX, Request, from_plain, from_typed
from sterna.migration.tuning import refuse_unsupported
from sterna.rpc.enums import MigrateFlag
from sterna.rpc.msg_common import TypedParam
from sterna.rpc.typed_params import ParamType

F = MigrateFlag


def typed(*params: tuple[str, ParamType, int | str], flags: int = 1) -> Request:
    wire = [TypedParam(field=n, type=int(t), value=v) for n, t, v in params]
    return from_typed(wire, flags=flags, function="f")


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (1 << 40, 8, "unsupported flags (0x10000000000) in function f"),
        (F.TUNNELLED, 8, "cannot perform tunnelled migration without using peer2peer flag"),
        (F.PEER2PEER | F.TUNNELLED | F.PARALLEL, 8, "'VIR_MIGRATE_TUNNELLED' and 'VIR_MIGRATE_P"),
        (F.NON_SHARED_DISK | F.NON_SHARED_INC, 8, "are mutually exclusive"),
        (F.POSTCOPY | F.TUNNELLED | F.PEER2PEER, 74, "post-copy is not supported with tunnelled"),
        (F.POSTCOPY, 74, "non-live or paused migration"),
        (F.POSTCOPY_RESUME, 74, "requires post-copy to be enabled"),
        (F.ZEROCOPY, 55, "zero-copy is only available for parallel migration"),
        (F.OFFLINE, 55, "offline migration must be specified with the persistent flag set"),
        (F.OFFLINE | F.PERSIST_DEST | F.NON_SHARED_INC, 55, "cannot handle non-shared storage"),
        (F.OFFLINE | F.PERSIST_DEST | F.TUNNELLED | F.PEER2PEER, 55, "does not make sense"),
        (F.POSTCOPY | F.POSTCOPY_RESUME | F.LIVE, 84, "resuming a failed post-copy"),
        (F.POSTCOPY | F.PARALLEL | F.LIVE, 84, "post-copy migrations cannot be parallel"),
        (F.POSTCOPY | F.NON_SHARED_DISK | F.LIVE, 84, "disks cannot be copied in post-copy"),
        (F.PARALLEL | F.ZEROCOPY | F.TLS, 55, "zero-copy is not available for encrypted"),
        (F.NON_SHARED_DISK | F.TUNNELLED | F.PEER2PEER, 84, "cannot be tunnelled"),
        (F.NON_SHARED_SYNCHRONOUS_WRITES, 8, "needs VIR_MIGRATE_NON_SHARED_DISK or"),
    ],
)
def test_flags_that_are_refused(flags: int, code: int, text: str) -> None:
    with pytest.raises(SternaError) as refused:
        checked(flags, "f")
    assert refused.value.number == code
    assert text in str(refused.value)


def test_flags_that_are_served() -> None:
    everyday = (
        F.LIVE | F.PERSIST_DEST | F.UNDEFINE_SOURCE | F.PAUSED | F.CHANGE_PROTECTION | F.UNSAFE
    )
    assert checked(everyday | F.COMPRESSED | F.ABORT_ON_ERROR | F.AUTO_CONVERGE, "f") & everyday


PARALLEL = F.LIVE | F.PARALLEL
S, U, INT = ParamType.STRING, ParamType.ULLONG, ParamType.INT


@pytest.mark.parametrize(
    ("params", "flags", "code", "text"),
    [
        ([("foo", S, "x")], 1, 8, "parameter 'foo' not supported"),
        ([("bandwidth", S, "x")], 1, 8, "invalid type 'string' for parameter 'bandwidth', expec"),
        ([("bandwidth", U, 1), ("bandwidth", U, 2)], 1, 8, "'bandwidth' occurs multiple times"),
        ([("compression", S, "foo")], 1, 8, "Unsupported compression method 'foo'"),
        ([("compression", S, "mt")] * 2, 1, 8, "Compression method 'mt' is specified twice"),
        ([("compression.mt.level", INT, 1)], 1, 8, "Turn multithread compression on to tune it"),
        ([("compression", S, "zlib")], 1, 8, "'zlib' is only available for parallel migration"),
        ([("compression", S, "mt"), ("compression", S, "zlib")], PARALLEL, 8, "Only one compr"),
        ([("compression", S, "zlib")], PARALLEL | F.ZEROCOPY, 8, "zero-copy is not available"),
        ([("compression.zstd.level", INT, 1)], PARALLEL, 8, "Turn zstd compression on to tune it"),
        ([("compression.xbzrle.cache", U, 1)], 1, 8, "Turn xbzrle compression on to tune it"),
        ([("auto_converge.initial", INT, 1)], 1, 8, "Turn auto convergence on to tune it"),
        ([("parallel.connections", INT, 2)], 1, 8, "Turn parallel migration on to tune it"),
        ([("migrate_disks", S, "vda")], 1, 84, "no storage is to be copied"),
        ([("bandwidth", U, BANDWIDTH_MIB_MAX + 1)], 1, 82, "must be less than 8796093022208"),
    ],
)
def test_parameters_that_are_refused(
    params: list[tuple[str, ParamType, int | str]], flags: int, code: int, text: str
) -> None:
    with pytest.raises(SternaError) as refused:
        typed(*params, flags=flags)
    assert refused.value.number == code
    assert text in str(refused.value)


def test_both_forms_make_the_same_request() -> None:
    plain = from_plain(flags=1, dname="n", resource=5, uri="tcp://h", xml="<x/>", function="f")
    found = typed(
        ("destination_name", S, "n"),
        ("bandwidth", U, 5),
        ("migrate_uri", S, "tcp://h"),
        ("destination_xml", S, "<x/>"),
    )
    assert plain == found


def test_empty_texts_are_none() -> None:
    assert from_plain(flags=1, dname="", resource=0, uri="", function="f") == Request(F.LIVE)


def test_what_is_taken_without_effect() -> None:
    found = typed(("graphics_uri", S, "spice://h:1"))
    assert found == Request(F.LIVE)


def test_tuning_goes_to_the_sides_that_need_it() -> None:
    request = typed(
        ("compression", S, "mt"),
        ("compression.mt.level", INT, 3),
        ("auto_converge.initial", INT, 30),
        flags=F.LIVE | F.AUTO_CONVERGE,
    )
    assert request.capabilities(destination=True) == {"compress"}
    assert request.capabilities(destination=False) == {"compress", "auto-converge"}
    assert request.qemu_parameters(destination=True) == {"compress-level": 3}
    at_source = {"compress-level": 3, "cpu-throttle-initial": 30}
    assert request.qemu_parameters(destination=False) == at_source


def test_parallel_and_its_compression() -> None:
    """The channels are wanted at both sides, zero-copy only where it is sent from."""
    request = typed(
        ("parallel.connections", INT, 4),
        ("compression", S, "zstd"),
        ("compression.zstd.level", INT, 3),
        flags=PARALLEL,
    )
    wanted = {"multifd-channels": 4, "multifd-compression": "zstd", "multifd-zstd-level": 3}
    for destination in (False, True):
        assert request.qemu_parameters(destination=destination) == wanted
        assert request.capabilities(destination=destination) == {"multifd"}
    zero_copy = typed(flags=PARALLEL | F.ZEROCOPY)
    assert zero_copy.capabilities(destination=False) == {"multifd", "zero-copy-send"}
    assert zero_copy.capabilities(destination=True) == {"multifd"}


def test_what_qemu_lacks_is_refused_by_its_name() -> None:
    refuse_unsupported({"multifd"}, ("multifd", "xbzrle"))
    with pytest.raises(SternaError) as refused:
        refuse_unsupported({"multifd", "xbzrle"}, ("xbzrle",))
    assert refused.value.number == 74
    assert "Migration option 'multifd' is not supported by QEMU binary" in str(refused.value)


def test_the_destination_is_not_told_of_auto_convergence() -> None:
    """Clients keep that flag to the source, but send its parameters to both (observed)."""
    param = TypedParam(field="auto_converge.initial", type=int(INT), value=30)
    request = from_typed([param], flags=1, function="f", at_source=False)
    assert request.qemu_parameters(destination=True) == {}


def test_compressed_alone_means_xbzrle() -> None:
    assert typed(flags=F.COMPRESSED).compression == {"xbzrle"}
