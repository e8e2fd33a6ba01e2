"""A running guest's record: what is remembered comes back, and is shown to nobody."""

from __future__ import annotations

from sterna.config import assign_aliases, clone, format_domain, parse_domain
from sterna.config.model import BackingStore, Cpu, DiskSource
from support import corpus


def remembered() -> str:
    d = corpus.completed(corpus.text("in", "live-mix-q35"), corpus.text("live", "live-mix-q35"))
    assign_aliases(d)
    d.original_cpu = Cpu(mode="custom", model="Nehalem", check="none")
    d.devices.disks[0].backing = BackingStore(
        type="file", detected=True, index=2, format="raw", source=DiskSource(file="/b", index=3)
    )
    d.devices.graphics[0].listens[0].from_config = 1
    d.devices.graphics[0].websocket = 5700
    d.devices.graphics[0].websocket_generated = "yes"
    return format_domain(d, domain_id=3, secure=True, status=True)


def test_status_text_reads_back_exactly() -> None:
    text = remembered()
    again = parse_domain(text)
    assert format_domain(again, domain_id=3, secure=True, status=True) == text
    assert again.original_cpu is not None
    assert again.devices.disks[0].backing is not None
    assert again.devices.disks[0].backing.detected


def test_what_is_remembered_is_not_shown() -> None:
    d = parse_domain(remembered())
    for text in (
        format_domain(d, domain_id=3, secure=True),
        format_domain(d, inactive=True),
        format_domain(d, migratable=True),
    ):
        for word in ("originalCpu", "detected", "fromConfig", "websocketGenerated"):
            assert word not in text


def test_inactive_text_forgets_what_the_start_chose() -> None:
    d = parse_domain(remembered())
    d.devices.graphics[0].port, d.devices.graphics[0].autoport = 5907, True
    before = clone(d)
    text = format_domain(d, inactive=True)
    assert "port='-1' autoport='yes' websocket='-1'" in text
    assert "<backingStore type" not in text
    assert d == before, "formatting changes nothing"


def test_migratable_text_has_the_cpu_asked_for_and_no_alias() -> None:
    text = format_domain(parse_domain(remembered()), migratable=True)
    assert "<cpu mode='custom' check='none'>" in text
    assert "<alias name='net0'/>" not in text
    assert "<alias name='ua-ser'/>" in text
