"""Whole machines: what we make of a definition is, letter for letter, what libvirt 9.0 made.

Recorded by tests/support/oracle_domains.py.
"""

from __future__ import annotations

import re

import pytest

from sterna.config import assign_aliases, check_abi, clone, format_domain, parse_domain
from sterna.config.model import CpuFeature, DimmAddress, DomainDef
from sterna.errors import SternaError
from support import corpus

# Where we differ from libvirt 9.0 on purpose, by a word of the case: why.
DIFFERENT = {
    "<size unit='M'>4</size></shmem><panic/>": "QEMU's device list is not part of these facts",
    "tlsPort='5901'": "libvirt refuses by its own qemu.conf",
    "bus='1' slot='0' function='0' />": "the same refusal, naming the bus that was looked at",
    "<route address='1.0.0.0'": "addresses inside containers are not ours to check",
    "<tpm><backend type='emulator'/>": "libvirt asks the host's swtpm",
    "<watchdog model='itco'/>": "newer libvirt knows it",
    "<controller type='pci' model='pcie-to-pci-bridge'/><interface": "refused both, other words",
    "<domain type='qemu'/>": "refused both; which of two faults is named first",
    "<domain/>": "refused both; which of two faults is named first",
    "machine='foo'": "refused both; libvirt's words speak of PCI buses",
    "<memory>x</memory>": "ours names the line",
    "<vcpu>x</vcpu>": "ours names the line",
    "<features><acpi/><foo/>": "unknown elements are refused in one way everywhere",
    "port='x'": "ours names element and attribute",
    "type='passt'": "newer libvirt knows it",
    "<portForward": "newer libvirt knows it; refused by name",
    "blob='on'": "newer libvirt knows it",
    "limit='40'": "newer libvirt knows it; refused by name",
    "vgaconf='io'": "kept where 9.0 drops it",
    "rendernode='/dev/dri/x'": "the command line's builder refuses it",
    "type='s390-pv'": "the command line's builder refuses it",
    "<entry name='date'>foo": "kept as it is",
    "<entry name='foo'>x": "kept as it is",
    "<emulator>/nope</emulator>": "files are not looked at here",
    "<target><size>131072</size><node>0</node></target></memory></devices>": "refused both",
}


def reason(xml: str) -> str | None:
    return next((why for part, why in DIFFERENT.items() if part in xml), None)


def attempt(xml: str, recorded: str) -> str:
    """Our text, or our refusal as "code text" without the line we add."""
    try:
        d = corpus.completed(xml, recorded)
    except SternaError as why:
        return re.sub(r" \(line \d+\)$", "", f"{why.number} {why}")
    return format_domain(d, inactive=True, secure=True)


@pytest.mark.parametrize("name", corpus.names("inactive"))
def test_completed_definition_is_libvirts(name: str) -> None:
    expected = corpus.text("inactive", name)
    assert attempt(corpus.text("in", name), expected) == expected


@pytest.mark.parametrize("name", corpus.names("refused"))
def test_refusal_is_libvirts(name: str) -> None:
    assert attempt(corpus.text("in", name), "") == corpus.text("refused", name).strip()


@pytest.mark.parametrize("number", range(len(corpus.small())))
def test_small_case(number: int) -> None:
    case = corpus.small()[number]
    if "inactive" in case:
        expected = case["inactive"]
    else:
        expected = f"{case['refused'][0]} {case['refused'][2]}"
    ours = attempt(case["xml"], expected)
    if reason(case["xml"]) is not None:
        return
    assert ours == expected


@pytest.mark.parametrize("name", corpus.names("inactive"))
def test_completing_again_changes_nothing(name: str) -> None:
    """But the order of controllers: libvirt, too, sorts them when it reads its own text."""
    port = re.compile(r"(?<=<target type='virtio' port=)'\d+'")  # a console's place in the list
    first = corpus.text("inactive", name)
    once = format_domain(corpus.completed(first, first), inactive=True, secure=True)
    assert sorted(port.sub("", once).splitlines()) == sorted(port.sub("", first).splitlines())
    again = format_domain(corpus.completed(once, once), inactive=True, secure=True)
    assert again == once


@pytest.mark.parametrize("kind", ["inactive", "live", "migratable"])
def test_text_to_model_to_text(kind: str) -> None:
    """Every text libvirt prints comes back unchanged."""
    for name in corpus.names(kind):
        expected = corpus.text(kind, name)
        found = re.search(r"<domain type='\w+' id='(\d+)'", expected)
        ours = format_domain(
            parse_domain(expected), domain_id=int(found[1]) if found else None, secure=True
        )
        assert ours == expected, name


def without_hosts_part(d: DomainDef) -> str:
    """The live text without what host and QEMU gave, which a definition cannot know."""
    d = clone(d)
    d.cpu = d.resource = None
    d.seclabels = []
    devices = d.devices
    for disk in devices.disks:
        disk.backing = None
        if disk.source is not None:
            disk.source.index = None
        disk.driver = None
    if d.clock is not None:
        d.clock.basis = None
    d.current_memory = None
    for chardev in (*devices.serials, *devices.consoles, *devices.channels):
        chardev.tty = chardev.target_state = None
        if chardev.type == "pty" or (chardev.path or "").startswith("/var/lib/libvirt"):
            chardev.sources = []
        for source in chardev.sources:
            source.tls = None
    for graphics in devices.graphics:
        graphics.port = graphics.listen = None
        graphics.listens = []
    for memory in devices.memories:
        if isinstance(memory.address, DimmAddress):
            memory.address.base = None
    if d.os is not None:
        d.os.loader = d.os.nvram = None
        d.os.firmware = None
    if d.features is not None:
        d.features.smm = None  # firmware that is found at start may bring it
        d.os.firmware_features = []
    return format_domain(d, domain_id=1, secure=True)


@pytest.mark.parametrize("name", corpus.names("live"))
def test_live_text_and_aliases_are_libvirts(name: str) -> None:
    expected = corpus.text("live", name)
    d = corpus.completed(corpus.text("in", name), expected)
    assign_aliases(d)
    assert without_hosts_part(d) == without_hosts_part(parse_domain(expected))


@pytest.mark.parametrize("name", corpus.names("migratable"))
def test_migratable_text_is_libvirts(name: str) -> None:
    """From the live state, with what a daemon remembers beside it."""
    expected = corpus.text("migratable", name)
    live = parse_domain(corpus.text("live", name))
    asked = corpus.completed(corpus.text("in", name), corpus.text("live", name))
    remember(live, asked)
    assert format_domain(live, secure=True, migratable=True) == expected


@pytest.mark.parametrize("name", corpus.names("migratable"))
def test_peer_builds_the_same_machine(name: str) -> None:
    """What libvirt sends is completed, by us, to the very machine that runs."""
    sent = corpus.completed(corpus.text("migratable", name))
    kept = corpus.text("inactive", name)
    running = corpus.completed(kept, kept)
    sent.cpu = running.cpu  # resolved on the way: that is its own affair
    if running.os is not None and running.os.firmware:
        return  # firmware was found at start, and machine features with it
    running.current_memory = sent.current_memory  # the balloon may have moved
    check_abi(running, sent)


def remember(live: DomainDef, asked: DomainDef) -> None:
    """Processor as it was asked for; listen addresses that only the configuration gave; backing
    chains that were found, not given; the format of an empty drive; firmware that was found."""
    live.original_cpu = asked.cpu
    for ours, wanted in zip(live.devices.graphics, asked.devices.graphics, strict=True):
        for listen, before in zip(ours.listens, wanted.listens, strict=True):
            if before.address is None and listen.address is not None:
                listen.from_config = 1
    for disk in live.devices.disks:
        if disk.driver is not None and disk.source is None:
            disk.driver.type = "raw"
    for serial in (*live.devices.serials, *live.devices.consoles):
        for source in serial.sources:
            source.tls_from_host = source.tls is not None


def test_cpu_features_that_qemu_added_stay_home() -> None:
    live = parse_domain(corpus.text("live", "minimal-pc"))
    asked = parse_domain(corpus.text("inactive", "minimal-pc"))
    live.original_cpu = asked.cpu
    assert live.cpu is not None
    live.cpu.features.append(CpuFeature("require", "hypervisor"))
    assert "hypervisor" not in format_domain(live, migratable=True)
