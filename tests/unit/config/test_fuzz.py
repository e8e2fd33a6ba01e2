"""Damaged definitions: whatever is read, only errors of ours come out, and in bounded time."""

from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sterna.config import assign_aliases, check, check_abi, complete, format_domain, parse_domain
from sterna.errors import SternaError, XmlError
from support import corpus

MACHINES = [corpus.text("in", name) for name in corpus.names("in")]
TOKENS = re.compile(r"<[^>]*>|'[^']*'|\"[^\"]*\"|[^<>'\"]+")
NASTY = (
    "", "0", "-1", "1", "4294967296", "99999999999999999999", "0x", "0xfffffffff", "yes", "on",
    "a" * 300, "é", "&#0;", "&amp;", "<x/>", "]]>", "none", "scsi", "vda", "sdzzzz", "1.2.3.4.5",
    "0-9999999", "^1", "ua-x", "52:54:00:00:00:01", "..", "\x01", "\u2028", "virtio", "pci",
)  # fmt: skip
SECONDS_MAX = 2.0


def everything(xml: str) -> None:
    """All a daemon does with a definition somebody sent."""
    try:
        d = parse_domain(xml)
        complete(
            d, corpus.FACTS, new_uuid=lambda: corpus.SOME_UUID, new_mac=lambda: "52:54:00:00:00:01"
        )
        check(d, corpus.FACTS)
    except SternaError:
        return
    kept = format_domain(d, inactive=True, secure=True)
    again = parse_domain(kept)
    assert format_domain(again, inactive=True, secure=True) == kept
    assign_aliases(d)
    format_domain(d, domain_id=1)
    format_domain(d, migratable=True)
    check_abi(d, d)


def mutate(xml: str, chance: random.Random) -> str:
    """Swap, drop, double or spoil some tokens."""
    tokens = TOKENS.findall(xml)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(tokens))
        match chance.randrange(6):
            case 0:
                tokens[at] = ""
            case 1:
                tokens[at] += tokens[at]
            case 2:
                other = chance.randrange(len(tokens))
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case 3:
                tokens[at] = re.sub(r"'[^']*'", f"'{chance.choice(NASTY)}'", tokens[at], count=1)
            case 4:
                tokens[at] = re.sub(r'"[^"]*"', f'"{chance.choice(NASTY)}"', tokens[at], count=1)
            case _:
                tokens[at] = chance.choice(NASTY)
    return "".join(tokens)


@given(st.sampled_from(MACHINES), st.integers(0, 1 << 32))
def test_damaged_machine_raises_nothing_else(xml: str, seed: int) -> None:
    everything(mutate(xml, random.Random(seed)))


@given(st.sampled_from(MACHINES), st.integers(0, 1 << 32))
def test_spoilt_values_raise_nothing_else(xml: str, seed: int) -> None:
    """Well-formed always: only values of attributes and texts change."""
    chance = random.Random(seed)
    values = list(re.finditer(r"(?<==)(['\"])([^'\"]*)\1|(?<=>)[^<>]+(?=</)", xml))
    for found in sorted(chance.sample(values, min(3, len(values))), key=lambda m: -m.start()):
        word = chance.choice([w for w in NASTY if not set(w) & set("<&'\"\x01")])
        quote = found[1] or ""
        xml = f"{xml[: found.start()]}{quote}{word}{quote}{xml[found.end() :]}"
    everything(xml)


@given(st.text(max_size=200))
def test_any_text_raises_nothing_else(text: str) -> None:
    everything(text)
    everything(f"<domain type='qemu'><name>{text}</name></domain>")


BOMB = "<!DOCTYPE d [" + "".join(
    f"<!ENTITY e{n} '{f'&e{n - 1};' * 10 if n else 'x' * 100}'>" for n in range(9)
)


@pytest.mark.parametrize(
    "xml",
    [
        "<domain>" * 300 + "</domain>" * 300,
        "<domain type='qemu'><devices>" + "<disk>" * 200 + "</disk>" * 200 + "</devices></domain>",
        BOMB + "]><domain type='qemu'><name>&e8;</name></domain>",
        "<!DOCTYPE d SYSTEM 'http://127.0.0.1:1/x'><domain type='qemu'><name>a</name></domain>",
        "<!DOCTYPE d [<!ENTITY f SYSTEM 'file:///etc/passwd'>]><domain><name>&f;</name></domain>",
        "<domain type='qemu'><name>" + "a" * (5 * 1024 * 1024) + "</name></domain>",
        "<domain type='qemu'><metadata>" + "<a>" * 400 + "</a>" * 400 + "</metadata></domain>",
    ],
    ids=["deep", "deep-disk", "entities", "external-dtd", "external-entity", "huge", "metadata"],
)
def test_attack_is_refused_at_once(xml: str) -> None:
    started = time.perf_counter()
    with pytest.raises(SternaError):
        parse_domain(xml)
    assert time.perf_counter() - started < SECONDS_MAX


@pytest.mark.parametrize(
    "devices",
    [
        "<disk><source file='/a'/><target dev='sdzzz' bus='scsi'/></disk>",
        "<controller type='pci' index='250' model='pcie-root-port'/>",
        "<controller type='usb' index='99999999999' model='nec-xhci'/>",
        "<channel type='pty'><target type='virtio' name='a'/><address type='virtio-serial'"
        " controller='99999999' bus='0' port='1'/></channel>",
        "<disk><source file='/a'/><target dev='sda' bus='scsi'/><address type='drive'"
        " controller='99999999' bus='0' target='0' unit='0'/></disk>",
        "<input type='tablet' bus='usb'/>" * 500,
        "<interface type='user'/>" * 500,
    ],
    ids=["disk", "pci", "usb", "channel", "drive", "tablets", "cards"],
)
def test_absurd_number_costs_little(devices: str) -> None:
    started = time.perf_counter()
    for machine in ("pc", "q35"):
        everything(
            "<domain type='qemu'><name>t</name><memory>1024</memory><vcpu>1</vcpu>"
            f"<os><type machine='{machine}'>hvm</type></os><devices>{devices}</devices></domain>"
        )
    assert time.perf_counter() - started < 2 * SECONDS_MAX


def test_very_many_attributes_are_refused_at_once() -> None:
    """Listing 200,000 of them would keep everything else waiting for a minute."""
    many = " ".join(f"a{number}='1'" for number in range(200_000))
    for text in (f"<domain {many}/>", f"<domain type='qemu'><blkiotune {many}/></domain>"):
        with pytest.raises(XmlError, match="more than 256 attributes"):
            parse_domain(text)
