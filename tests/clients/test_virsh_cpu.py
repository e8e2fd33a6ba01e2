"""A guest's CPU comes out as libvirt's: what runs, what is shown, what another host is told.

Both daemons get the same definitions on the same machine, and the answers are compared whole.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from lxml import etree

from support.daemon import Daemon
from support.host import Host
from support.real_libvirtd import RealLibvirtd, available

CPUS = {
    "none": "",
    "host-model": "<cpu mode='host-model'/>",
    "host-model-changed": "<cpu mode='host-model'><feature policy='disable' name='aes'/></cpu>",
    "at-least": "<cpu match='minimum'><model>qemu64</model></cpu>",
    "maximum": "<cpu mode='maximum'/>",
    "optional": "<cpu><model>qemu64</model><feature policy='optional' name='aes'/>"
    "<feature policy='optional' name='avx512f'/></cpu>",
    "forbidden": "<cpu><model>qemu64</model><feature policy='forbid' name='aes'/></cpu>",
    "lossy": "<cpu check='none'><model>EPYC</model></cpu>",
    "own-switch": "<cpu><model>qemu64</model><feature policy='require' name='osxsave'/></cpu>",
}
REFUSED = {
    "unknown-model": "<cpu><model>Foo</model></cpu>",
    "unknown-feature": "<cpu><model>qemu64</model><feature name='foo'/></cpu>",
    "missing": "<cpu check='partial'><model>qemu64</model><feature name='avx512f'/></cpu>",
    "not-exactly": "<cpu check='full'><model>qemu64</model><feature name='avx512f'/></cpu>",
    "host-model-missing": "<cpu mode='host-model'><feature name='avx512f'/></cpu>",
    "passthrough": "<cpu mode='host-passthrough'/>",
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    """Sterna and libvirtd, for all tests of this module."""
    if not available():
        pytest.skip("no libvirtd here that we may run in namespaces")
    ours = Daemon(tmp_path_factory.mktemp("c") / "a", name="ours")
    theirs = RealLibvirtd(tmp_path_factory.mktemp("l"), name="theirs", address="192.0.2.1")
    try:
        ours.start()
        theirs.start()
        yield ours, theirs
    finally:
        ours.end_everything()
        theirs.end_everything()


def guest(cpu: str) -> str:
    return (
        f"<domain type='qemu'><name>cpu</name><uuid>{uuid.uuid4()}</uuid>"
        "<memory unit='MiB'>32</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>"
        f"{cpu}<devices><memballoon model='none'/></devices></domain>"
    )


def cpu_shown(host: Host, *options: str) -> str:
    document = etree.fromstring(host.said("dumpxml", "cpu", *options).encode())
    cpu = document.find("cpu")
    assert cpu is not None
    cpu.tail = None
    return etree.tostring(cpu).decode()


def cpu_started(host: Host) -> str | None:
    (qemu,) = host.qemus()
    words = list(qemu.argv)
    return words[words.index("-cpu") + 1] if "-cpu" in words else None


def came_out(host: Host, cpu: str) -> tuple[str | None, str, str]:
    host.create(guest(cpu), "--paused")
    try:
        return cpu_started(host), cpu_shown(host), cpu_shown(host, "--migratable")
    finally:
        host.said("destroy", "cpu")


@pytest.mark.parametrize("cpu", CPUS.values(), ids=CPUS.keys())
def test_the_same_cpu(pair: tuple[Host, Host], cpu: str) -> None:
    ours, theirs = (came_out(host, cpu) for host in pair)
    assert ours == theirs


@pytest.mark.parametrize("cpu", REFUSED.values(), ids=REFUSED.keys())
def test_the_same_refusal(pair: tuple[Host, Host], cpu: str) -> None:
    ours, theirs = (
        host.refused("create", host.file("bad.xml", guest(cpu)), "--paused").partition("\n")[2]
        for host in pair
    )
    assert ours == theirs


HOST = (
    ("nodecpumap",),
    ("maxvcpus", "--type", "qemu"),
    ("maxvcpus", "--type", "foo"),
    ("freecell", "4"),
    ("freepages", "--cellno", "0", "--pagesize", "3"),
    ("domcapabilities", "--virttype", "foo"),
    ("domcapabilities", "--virttype", "xen"),
    ("domcapabilities", "--arch", "foo"),
    ("domcapabilities", "--arch", "aarch64"),
    ("domcapabilities", "--machine", "foo"),
    ("domcapabilities", "--emulatorbin", "/foo"),
    ("cpu-models", "foo"),
)


@pytest.mark.parametrize("words", HOST, ids=" ".join)
def test_the_same_words_about_the_host(pair: tuple[Host, Host], words: tuple[str, ...]) -> None:
    ours, theirs = (host.virsh(*words) for host in pair)
    assert (ours.code, ours.out, ours.err) == (theirs.code, theirs.out, theirs.err)


def test_the_same_host_cpu(pair: tuple[Host, Host]) -> None:
    """Features that the kernel found broken are the one difference that may be."""
    ours, theirs = (
        etree.fromstring(host.said("capabilities").encode()).find("host/cpu") for host in pair
    )
    assert ours is not None
    assert theirs is not None
    for name in ("arch", "model", "vendor"):
        assert ours.findtext(name) == theirs.findtext(name)
    for name in ("microcode", "signature", "topology", "maxphysaddr"):
        assert [dict(e.attrib) for e in ours.iterfind(name)] == [
            dict(e.attrib) for e in theirs.iterfind(name)
        ]
    known = {feature.get("name") for feature in theirs.iterfind("feature")}
    assert {feature.get("name") for feature in ours.iterfind("feature")} <= known


def test_the_same_host_model(pair: tuple[Host, Host]) -> None:
    ours, theirs = (
        etree.fromstring(host.said("domcapabilities", "--virttype", "qemu").encode()).find(
            "cpu/mode[@name='host-model']"
        )
        for host in pair
    )
    assert ours is not None
    assert theirs is not None
    assert etree.tostring(ours) == etree.tostring(theirs)
