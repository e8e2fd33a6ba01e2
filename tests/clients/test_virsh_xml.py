"""virsh reads and changes what a guest is."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from lxml import etree

from clients.conftest import SMALL
from support.domains import tick_xml
from support.host import Host

VNC = "<graphics type='vnc' port='-1' passwd='secret'/>"


def dump(host: Host, *options: str) -> etree._Element:
    return etree.fromstring(host.said("dumpxml", "web1", *options).encode())


def test_dumpxml(paused: Host, guest_xml: str) -> None:
    live = dump(paused)
    assert live.get("id") == paused.said("domid", "web1")
    assert live.findtext("uuid") in guest_xml
    assert live.find("os/type").get("machine").startswith("pc-i440fx-")
    assert live.xpath("devices/serial/alias/@name") == ["serial0"]
    assert live.xpath("devices/controller[@type='pci']/@model") == ["pci-root"]
    assert paused.said("dumpxml", "web1", "--xpath", "//name/text()") == "web1"


def test_dumpxml_inactive(defined: Host) -> None:
    before = dump(defined, "--inactive")
    assert before.get("id") is None
    assert not before.xpath("//alias")
    defined.virsh("start", "web1", "--paused").check()
    assert etree.tostring(dump(defined, "--inactive")) == etree.tostring(before)


def test_dumpxml_migratable(paused: Host) -> None:
    assert dump(paused, "--migratable").findtext("name") == "web1"


def test_dumpxml_security_info(host: Host, tick_elf: Path) -> None:
    host.create(tick_xml("web1", tick_elf, SMALL, devices=VNC), "--paused")
    assert "secret" not in host.said("dumpxml", "web1")
    assert "secret" in host.said("dumpxml", "web1", "--security-info")
    assert "forbidden" in host.refused("-r", "dumpxml", "web1", "--security-info")


def test_edit(defined: Host) -> None:
    editor = "sed -i 's/>1</>2</'"
    with mock.patch.dict(os.environ, {"VISUAL": editor, "EDITOR": editor}):
        defined.virsh("edit", "web1").check()
    assert dump(defined).findtext("vcpu") == "2"


def test_setmem(host: Host, tick_elf: Path) -> None:
    host.define(tick_xml("web1", tick_elf, SMALL))
    host.virsh("setmem", "web1", f"{SMALL.memory_mib - 4}M", "--config").check()
    assert dump(host).findtext("currentMemory") == str((SMALL.memory_mib - 4) * 1024)
    host.refused("setmem", "web1", f"{SMALL.memory_mib * 2}M", "--config")


def test_setmaxmem(defined: Host) -> None:
    defined.virsh("setmaxmem", "web1", "64M", "--config").check()
    assert dump(defined).findtext("memory") == str(64 * 1024)


def test_setvcpus(defined: Host) -> None:
    defined.virsh("setvcpus", "web1", "4", "--config", "--maximum").check()
    defined.virsh("setvcpus", "web1", "2", "--config").check()
    vcpu = dump(defined).find("vcpu")
    assert (vcpu.text, vcpu.get("current")) == ("4", "2")
    counts = defined.said("vcpucount", "web1").split()
    assert counts == ["maximum", "config", "4", "current", "config", "2"]


def test_metadata(defined: Host) -> None:
    at = ("--uri", "http://example.org/team", "--key", "team")
    defined.virsh("metadata", "web1", *at, "--set", "<owner>ann</owner>", "--config").check()
    assert "<owner>ann</owner>" in defined.said("metadata", "web1", "--uri", at[1], "--config")
    [owner] = dump(defined).xpath("metadata/*[namespace-uri()='http://example.org/team']")
    assert etree.QName(owner).localname == "owner"
    defined.virsh("metadata", "web1", *at[:2], "--remove", "--config").check()
    # Later virshs take "none" for an answer, not for a failure.
    assert "owner" not in defined.virsh("metadata", "web1", "--uri", at[1], "--config").out
    assert dump(defined).xpath("metadata/*") == []


def test_desc(defined: Host) -> None:
    """Title and description, of the definition and of the running guest."""
    defined.virsh("desc", "web1", "--config", "--title", "--new-desc", "Web server").check()
    defined.virsh("desc", "web1", "--config", "--new-desc", "It serves.").check()
    assert dump(defined).findtext("title") == "Web server"
    assert defined.said("desc", "web1") == "It serves."
    defined.virsh("start", "web1", "--paused").check()
    defined.virsh("desc", "web1", "--live", "--title", "--new-desc", "Now").check()
    assert dump(defined).findtext("title") == "Now"
    assert dump(defined, "--inactive").findtext("title") == "Web server"


def test_domxml_to_native(defined: Host, guest_xml: str) -> None:
    path = defined.file("native.xml", guest_xml)
    argv = defined.said("domxml-to-native", "qemu-argv", path)
    assert "qemu-system-x86_64" in argv
    assert "-kernel" in argv
