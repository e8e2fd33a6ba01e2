"""Cookies: libvirt's text to the byte, and complete validation of whatever comes in (I18)."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sterna.errors import InternalError
from sterna.guest.jobstats import JobOperation, JobStats, JobType
from sterna.migration.cookie import (
    COOKIE_BYTES_MAX,
    Cookie,
    Own,
    Step,
    Times,
    check_guest,
    format_cookie,
    parse_cookie,
    require,
)

GUEST = UUID("aaaaaaaa-2222-3333-4444-555555555555")
HOST_A = UUID("b4be9471-3fa8-4e3e-830f-c2ce2b010b49")
HOST_B = UUID("11111111-3fa8-4e3e-830f-c2ce2b010b49")
MIGRATION = "0f8e2c38-0000-4000-8000-000000000001"

CAPTURED_1 = """\
<qemu-migration>
  <name>tick</name>
  <uuid>aaaaaaaa-2222-3333-4444-555555555555</uuid>
  <hostname>miga</hostname>
  <hostuuid>b4be9471-3fa8-4e3e-830f-c2ce2b010b49</hostuuid>
  <feature name='lockstate'/>
  <cpu mode='custom' match='exact' check='full'>
    <model fallback='forbid'>qemu64</model>
    <feature policy='require' name='hypervisor'/>
    <feature policy='require' name='lahf_lm'/>
  </cpu>
  <capabilities>
    <cap name='xbzrle' auto='no'/>
    <cap name='pause-before-switchover' auto='yes'/>
  </capabilities>
</qemu-migration>
"""
CPU = """\
<cpu mode='custom' match='exact' check='full'>
  <model fallback='forbid'>qemu64</model>
  <feature policy='require' name='hypervisor'/>
  <feature policy='require' name='lahf_lm'/>
</cpu>"""
CAPTURED_3 = """\
<qemu-migration>
  <name>tick</name>
  <uuid>aaaaaaaa-2222-3333-4444-555555555555</uuid>
  <hostname>miga</hostname>
  <hostuuid>b4be9471-3fa8-4e3e-830f-c2ce2b010b49</hostuuid>
  <statistics>
    <started>1795415968724</started>
    <stopped>1795415969231</stopped>
    <sent>1795415969497</sent>
    <time_elapsed>773</time_elapsed>
    <downtime>266</downtime>
    <setup_time>1</setup_time>
    <memory_total>268967936</memory_total>
    <memory_processed>94859098</memory_processed>
    <memory_remaining>0</memory_remaining>
    <memory_bps>222009434</memory_bps>
    <memory_constant>42767</memory_constant>
    <memory_normal>23020</memory_normal>
    <memory_normal_bytes>94289920</memory_normal_bytes>
    <memory_dirty_rate>0</memory_dirty_rate>
    <memory_iteration>3</memory_iteration>
    <memory_postcopy_requests>0</memory_postcopy_requests>
    <memory_page_size>4096</memory_page_size>
    <disk_total>0</disk_total>
    <disk_processed>0</disk_processed>
    <disk_remaining>0</disk_remaining>
  </statistics>
</qemu-migration>
"""
STATS = JobStats(
    JobType.COMPLETED,
    JobOperation.MIGRATION_OUT,
    time_elapsed=773,
    downtime=266,
    setup_time=1,
    data_total=268967936,
    data_processed=94859098,
    memory_total=268967936,
    memory_processed=94859098,
    memory_bps=222009434,
    memory_constant=42767,
    memory_normal=23020,
    memory_normal_bytes=94289920,
    memory_dirty_rate=0,
    memory_iteration=3,
    memory_postcopy_requests=0,
    memory_page_size=4096,
)
BASIC = Cookie("tick", GUEST, "miga", HOST_A)


def read(text: str, step: Step = Step.PREPARE) -> Cookie:
    return require(parse_cookie(text.encode() + b"\0", step, host_uuid=HOST_B))


def test_cookie_1_is_libvirts() -> None:
    """Captured from libvirt 9.0, capabilities shortened."""
    cookie = replace(
        BASIC,
        features=("lockstate",),
        cpu_xml=CPU,
        capabilities=(("xbzrle", False), ("pause-before-switchover", True)),
    )
    assert format_cookie(cookie) == CAPTURED_1.encode() + b"\0"
    found = read(CAPTURED_1)
    assert found.capabilities == cookie.capabilities
    assert found.features == ("lockstate",)
    assert "lahf_lm" in (found.cpu_xml or "")


def test_cookie_3_is_libvirts() -> None:
    times = Times(1795415968724, 1795415969231, 1795415969497)
    cookie = replace(BASIC, stats=STATS, times=times)
    assert format_cookie(cookie) == CAPTURED_3.encode() + b"\0"
    found = read(CAPTURED_3, Step.FINISH)
    assert (found.stats, found.times) == (STATS, times)


@pytest.mark.parametrize(
    "own",
    [
        Own(MIGRATION),
        Own(MIGRATION, sent=True, paused=True),
        Own(MIGRATION, decision="committed"),
    ],
)
def test_our_own_element_goes_through(own: Own) -> None:
    cookie = replace(BASIC, own=own)
    assert read(format_cookie(cookie)[:-1].decode()).own == own


def test_unknown_elements_are_ignored() -> None:
    """As libvirt 9.0 does, and as it does with ours (observed)."""
    assert read(CAPTURED_1.replace("<capabilities>", "<new><x a='1'/></new><capabilities>"))


def test_an_empty_cookie_is_none() -> None:
    assert parse_cookie(b"", Step.FINISH, host_uuid=HOST_B) is None
    with pytest.raises(InternalError, match="missing"):
        require(None)


HEAD = CAPTURED_1.split("  <feature", maxsplit=1)[0]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (CAPTURED_1.encode(), "was not NULL terminated"),
        (b"\0", "qemu_migration_cookie"),
        (b"<a>\0", "qemu_migration_cookie"),
        (b"<a/>\0", "missing name element in migration data"),
        (b"<!DOCTYPE x><a/>\0", "document type is not allowed"),
        (b"x" * (COOKIE_BYTES_MAX + 1), "more than"),
        (HEAD.replace(str(GUEST), "x").encode() + b"</qemu-migration>\0", "malformed uuid"),
        (b"<q><name>n</name><uuid>%s</uuid></q>\0" % str(GUEST).encode(), "missing hostname"),
        (HEAD.replace("hostuuid", "x").encode() + b"</qemu-migration>\0", "missing hostuuid"),
        (HEAD.replace(str(HOST_A), str(HOST_B)).encode() + b"</qemu-migration>\0", "the same host"),
        (HEAD.encode() + b"<feature/></qemu-migration>\0", "Missing feature name"),
        (HEAD.encode() + b"<feature name='zzz'/></qemu-migration>\0", "Unknown .* feature zzz"),
        (HEAD.encode() + b"<feature name='network'/></qemu-migration>\0", "Unsupported .* network"),
        (HEAD.encode() + b"<cpu/><cpu/></qemu-migration>\0", "Too many cpu"),
        (HEAD.encode() + b"<sterna id='7'/></qemu-migration>\0", "malformed sterna"),
        # An id is compared as text, so it has one spelling.
        (
            HEAD.encode() + b"<sterna id='{%s}'/></qemu-migration>\0" % str(GUEST).encode(),
            "malformed sterna",
        ),
        (
            HEAD.encode() + b"<statistics><sent>1e9</sent></statistics></qemu-migration>\0",
            "malformed sent",
        ),
    ],
)
def test_what_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(InternalError, match=text):
        parse_cookie(data, Step.PREPARE, host_uuid=HOST_B)


@pytest.mark.parametrize(
    ("step", "feature"),
    [(Step.PREPARE, "cpu"), (Step.FINISH, "persistent"), (Step.CONFIRM, "statistics")],
)
def test_features_that_a_step_knows(step: Step, feature: str) -> None:
    assert read(f"{HEAD}<feature name='{feature}'/></qemu-migration>", step)


def test_another_guests_cookie_is_refused() -> None:
    check_guest(BASIC, "tick", GUEST)
    with pytest.raises(InternalError, match="unexpected name tick vs tock"):
        check_guest(BASIC, "tock", GUEST)
    with pytest.raises(InternalError, match="unexpected UUID"):
        check_guest(BASIC, "tick", HOST_A)


@given(st.binary(max_size=300), st.sampled_from(Step))
def test_no_bytes_do_worse_than_an_error(data: bytes, step: Step) -> None:
    for text in (data, data + b"\0", HEAD.encode() + data + b"</qemu-migration>\0"):
        with contextlib.suppress(InternalError):
            parse_cookie(text, step, host_uuid=HOST_B)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20))
def test_any_name_survives(name: str) -> None:
    """As far as XML can say it."""
    data = format_cookie(replace(BASIC, name=name))
    try:
        found = parse_cookie(data, Step.PREPARE, host_uuid=HOST_B)
    except InternalError:
        return  # a character that XML has no words for
    assert require(found).name == name
