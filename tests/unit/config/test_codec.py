"""The codec: what is not understood is named, what is understood comes back."""

from __future__ import annotations

import dataclasses
import re
import time

import pytest

from sterna.config import clone, format_domain, model, parse_domain
from sterna.config.bitmaps import format_set, parse_set
from sterna.config.codec import Kept, codec
from sterna.config.values import parse_any_base, parse_mac, parse_uuid, size_kib
from sterna.errors import ConfigUnsupported, InvalidArg, Overflow, SternaError, XmlDetail, XmlError
from support import corpus

DOMAIN = "<domain type='qemu'>\n<name>t</name>\n<memory>1024</memory>\n{}</domain>"


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        ("<devices>\n<foo/></devices>", "unknown element <foo> in <devices> (line 5)"),
        ("<devices><disk>\n<bar/></disk></devices>", "unknown element <bar> in <disk> (line 5)"),
        ("<vcpu colour='red'>1</vcpu>", "unknown attribute 'colour' in <vcpu> (line 4)"),
        ("<vcpu>1</vcpu><vcpu>2</vcpu>", "element <vcpu> is given twice (line 4)"),
        ("<os>stray</os>", "unexpected text in <os> (line 4)"),
        ("<x:foo xmlns:x='u:x'/>", "unknown element <foo> in <domain> (line 4)"),
        ("<features>\n\n<warp/></features>", "unknown element <warp> in <features> (line 6)"),
    ],
)
def test_unknown_content_is_refused_by_name_and_line(inside: str, text: str) -> None:
    with pytest.raises(ConfigUnsupported) as caught:
        parse_domain(DOMAIN.format(inside))
    assert str(caught.value) == f"unsupported configuration: {text}"


def test_malformed_text_is_told_as_libvirt_does() -> None:
    with pytest.raises(XmlDetail) as caught:
        parse_domain("<domain type='qemu'>\n<name>t</nam>\n</domain>")
    assert str(caught.value).startswith(
        "(domain_definition):2: Opening and ending tag mismatch: name line 2 and nam\n"
    )
    assert caught.value.number == 35


def test_comments_are_not_content() -> None:
    with_comments = DOMAIN.format("<!-- a --><?pi?><os><!-- b --><type>hvm</type></os>")
    assert parse_domain(with_comments) == parse_domain(DOMAIN.format("<os><type>hvm</type></os>"))


def model_classes() -> list[type]:
    return [
        cls
        for name in model.__all__
        if isinstance(cls := getattr(model, name), type) and dataclasses.is_dataclass(cls)
    ]


def test_every_class_compiles_and_every_field_has_a_place() -> None:
    for cls in model_classes():
        codec(cls)
        for field in dataclasses.fields(cls):
            assert "xml" in field.metadata or cls is model.Metadata, f"{cls.__name__}.{field.name}"


def test_no_two_fields_of_a_class_share_a_place() -> None:
    for cls in model_classes():
        places = [f.metadata["xml"].path for f in dataclasses.fields(cls) if "xml" in f.metadata]
        assert len(places) == len(set(places)), cls.__name__


def test_kept_elements_come_back() -> None:
    inside = "<blkiotune><weight>800</weight><device><path>/a&amp;b</path></device></blkiotune>"
    d = parse_domain(DOMAIN.format(inside))
    assert isinstance(d.blkiotune, Kept)
    text = format_domain(d)
    assert "  <blkiotune>\n    <weight>800</weight>\n    <device>\n" in text
    assert "<path>/a&amp;b</path>" in text


def test_clone_is_equal_and_apart() -> None:
    d = parse_domain(corpus.text("inactive", "kitchen-sink-q35"))
    other = clone(d)
    assert other == d
    other.devices.disks[0].target = "changed"
    assert d.devices.disks[0].target != "changed"


@pytest.mark.parametrize(
    ("number", "unit", "kib"),
    [
        ("1", None, 1), ("1", "b", 1), ("1025", "bytes", 2), ("2", "k", 2), ("2", "KB", 2),
        ("1", "MiB", 1024), ("1", "M", 1024), ("1", "MB", 977), ("3", "GiB", 3 << 20),
        ("1", "TiB", 1 << 30), ("1", "g", 1 << 20),
    ],
)  # fmt: skip
def test_sizes(number: str, unit: str | None, kib: int) -> None:
    assert size_kib(number, unit) == kib


def test_sizes_out_of_range() -> None:
    with pytest.raises(Overflow):
        size_kib("9999999999999999999", "EiB")
    with pytest.raises(InvalidArg):
        size_kib("1", "parsec")


def test_numbers_of_any_base() -> None:
    assert [parse_any_base(text) for text in ("0x1f", "017", "9", "0")] == [31, 15, 9, 0]
    for bad in ("", "-1", "0x", "08", "1 1", "٣", "9" * 40):
        with pytest.raises(ValueError, match="Expected"):
            parse_any_base(bad)


def test_identifiers() -> None:
    assert parse_mac("52:54:0:A:b:1") == "52:54:00:0a:0b:01"
    assert str(parse_uuid("111111112222 4333-8444555555555555")).startswith("11111111-2222")
    with pytest.raises(XmlError, match="unable to parse mac"):
        parse_mac("52:54")
    with pytest.raises(SternaError, match="malformed uuid"):
        parse_uuid("x")


def test_sets() -> None:
    assert format_set(parse_set("0-3,^2,7,5-6")) == "0-1,3,5-7"
    for bad in ("", "a", "3-1", "^", "1-", "0-99999999"):
        with pytest.raises(InvalidArg):
            parse_set(bad)


def test_reading_and_writing_is_quick() -> None:
    """About a millisecond for 10 kB; the bound leaves room for a busy machine."""
    xml = corpus.text("inactive", "kitchen-sink-q35")
    d = parse_domain(xml)
    format_domain(d)
    best = 1.0
    for _ in range(20):
        started = time.perf_counter()
        format_domain(parse_domain(xml))
        best = min(best, time.perf_counter() - started)
    assert best * 10_000 / len(xml) < 0.010


def test_output_is_indented_and_quoted_as_libvirts() -> None:
    text = format_domain(parse_domain(DOMAIN.format("<title>a 'b' \"c\" &lt;</title>")))
    assert "  <title>a &apos;b&apos; &quot;c&quot; &lt;</title>\n" in text
    assert not re.search(r"\t|\"", text)
