"""virsh asks about the host."""

from __future__ import annotations

import os
import re

from lxml import etree

from support.host import Host


def fields(text: str) -> dict[str, str]:
    """`Name:   value` lines."""
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def test_connect(host: Host) -> None:
    host.said(f"connect {host.uri}; uri")


def test_uri(host: Host) -> None:
    # It is the client that answers, from what it was told.
    assert host.said("uri") == host.uri


def test_hostname(host: Host) -> None:
    assert host.said("hostname") == host.name


def test_version(host: Host) -> None:
    told = fields(host.said("version"))
    assert re.fullmatch(r"libvirt \d+\.\d+\.\d+", told["Using library"])
    assert re.fullmatch(r"QEMU \d+\.\d+\.\d+", told["Using API"]) is not None
    assert re.fullmatch(r"QEMU \d+\.\d+\.\d+", told["Running hypervisor"])
    assert "Running against daemon" in fields(host.said("version", "--daemon"))


def test_nodeinfo(host: Host) -> None:
    told = fields(host.said("nodeinfo"))
    assert told["CPU model"] == os.uname().machine
    assert int(told["CPU(s)"]) == os.cpu_count()
    assert int(told["Memory size"].removesuffix(" KiB")) > 1_000_000


def test_capabilities(host: Host) -> None:
    document = etree.fromstring(host.said("capabilities").encode())
    assert document.findtext("host/cpu/arch") == os.uname().machine
    assert len(document.findtext("host/uuid") or "") == 36
    assert document.xpath("guest/arch[@name='x86_64']/domain[@type='qemu']")


def test_domcapabilities(host: Host) -> None:
    document = etree.fromstring(host.said("domcapabilities", "--virttype", "qemu").encode())
    assert document.findtext("path") == "/usr/bin/qemu-system-x86_64"
    assert document.findtext("domain") == "qemu"
    assert "virtio" in document.xpath("devices/disk/enum[@name='bus']/value/text()")
    q35 = host.said("domcapabilities", "--virttype", "qemu", "--machine", "q35")
    assert (etree.fromstring(q35.encode()).findtext("machine") or "").startswith("pc-q35-")


def test_a_read_only_connection_may_look_and_not_touch(paused: Host) -> None:
    ran = paused.virsh("-r", "list", "--name")
    assert ran.check().out.split() == ["web1"]
    assert "read only access prevents" in paused.refused("-r", "destroy", "web1")
