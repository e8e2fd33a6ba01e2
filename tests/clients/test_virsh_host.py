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


def test_maxvcpus(host: Host) -> None:
    assert int(host.said("maxvcpus", "--type", "qemu")) >= 16


def test_cpu_models(host: Host) -> None:
    assert {"qemu64", "Nehalem", "EPYC"} <= set(host.said("cpu-models", "x86_64").split())


def cpu_of(host: Host) -> str:
    document = etree.fromstring(host.said("capabilities").encode())
    return etree.tostring(document.find("host/cpu")).decode()


def test_cpu_compare(host: Host) -> None:
    own = host.file("own.xml", cpu_of(host))
    assert "identical" in host.said("cpu-compare", own)
    less = etree.fromstring(cpu_of(host).encode())
    feature = less.find("feature")
    assert feature is not None
    less.remove(feature)
    assert "superset" in host.said(
        "cpu-compare", host.file("less.xml", etree.tostring(less).decode())
    )
    modest = "<cpu mode='custom' match='exact'><model>qemu64</model></cpu>"
    compare = ("hypervisor-cpu-compare", "--virttype", "qemu")
    assert "superset" in host.said(*compare, host.file("modest.xml", modest))


def test_cpu_baseline(host: Host) -> None:
    own = host.file("own.xml", cpu_of(host))
    document = etree.fromstring(host.said("cpu-baseline", own).encode())
    assert document.findtext("model")
    asked = host.said("domcapabilities", "--virttype", "qemu")
    [model] = etree.fromstring(asked.encode()).xpath("cpu/mode[@name='host-model']")
    model.tag = "cpu"
    del model.attrib["name"], model.attrib["supported"]
    path = host.file("model.xml", etree.tostring(model).decode())
    baseline = host.said("hypervisor-cpu-baseline", "--virttype", "qemu", path)
    assert etree.fromstring(baseline.encode()).findtext("model")


def test_nodecpustats_and_nodememstats(host: Host) -> None:
    assert {"user", "system", "idle", "iowait"} <= set(fields(host.said("nodecpustats")))
    assert {"total", "free", "buffers", "cached"} <= set(fields(host.said("nodememstats")))


def test_nodecpumap(host: Host) -> None:
    told = fields(host.said("nodecpumap"))
    assert int(told["CPUs present"]) == os.cpu_count()
    assert told["CPU map"].count("y") == int(told["CPUs online"])


def test_freecell_and_freepages(host: Host) -> None:
    assert host.said("freecell", "--all").startswith("0:")
    assert "4KiB" in host.said("freepages", "--all")


def test_sysinfo(host: Host) -> None:
    ran = host.virsh("sysinfo")
    # A machine without SMBIOS tables, as some clouds' are, has nothing to tell.
    if ran.code:
        assert "internal error" in ran.err or "not available" in ran.err
    else:
        assert etree.fromstring(ran.out.encode()).get("type") == "smbios"
