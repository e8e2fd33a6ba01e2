"""virsh finds guests: lists with every filter, ids, names, uuids, what it knows of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.conftest import SMALL
from support.domains import tick_xml
from support.host import Host


@pytest.fixture
def zoo(host: Host, tick_elf: Path) -> Host:
    """Guests of every sort: shut off, running, paused, transient, with autostart, with a title."""

    def xml(name: str) -> str:
        return tick_xml(name, tick_elf, SMALL, metadata=f"<title>the {name} one</title>")

    for name in ("off", "auto", "runs"):
        host.define(xml(name))
    host.virsh("autostart", "auto").check()
    host.virsh("start", "runs").check()
    host.create(xml("held"), "--paused")
    return host


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"runs", "held"}),
        (["--all"], {"off", "auto", "runs", "held"}),
        (["--inactive"], {"off", "auto"}),
        (["--state-running"], {"runs"}),
        (["--state-paused"], {"held"}),
        (["--state-shutoff", "--all"], {"off", "auto"}),
        (["--state-other", "--all"], set()),
        (["--persistent"], {"runs"}),
        (["--transient"], {"held"}),
        (["--all", "--autostart"], {"auto"}),
        (["--all", "--no-autostart"], {"off", "runs", "held"}),
        (["--all", "--with-managed-save"], set()),
        (["--all", "--without-managed-save"], {"off", "auto", "runs", "held"}),
        (["--all", "--with-snapshot"], set()),
        (["--all", "--with-checkpoint"], set()),
    ],
)
def test_list(zoo: Host, options: list[str], expected: set[str]) -> None:
    assert zoo.guests(*options) == expected


def test_list_with_columns(zoo: Host) -> None:
    rows = [line.split(maxsplit=2) for line in zoo.said("list", "--all").splitlines()]
    assert {(name, state) for _, name, state in rows} == {
        ("runs", "running"),
        ("held", "paused"),
        ("off", "shut off"),
        ("auto", "shut off"),
    }
    assert {ident for ident, name, _ in rows if name in ("off", "auto")} == {"-"}
    titled = zoo.said("list", "--all", "--title")
    assert "the held one" in titled
    assert len(zoo.said("list", "--all", "--uuid").split()) == 4


def test_domid_domname_domuuid(paused: Host, guest_xml: str) -> None:
    ident = paused.said("domid", "web1")
    uuid = paused.said("domuuid", "web1")
    assert int(ident) >= 1
    assert uuid in guest_xml
    assert paused.said("domname", ident) == "web1"
    assert paused.said("domname", uuid) == "web1"
    assert paused.said("domid", uuid) == ident


def test_what_is_not_there_is_said_so(host: Host) -> None:
    assert "failed to get domain 'nobody'" in host.refused("dominfo", "nobody")


def test_domstate(paused: Host) -> None:
    assert paused.said("domstate", "web1") == "paused"
    assert paused.state("web1") == "paused (user)"


def test_dominfo(zoo: Host) -> None:
    def told(name: str) -> dict[str, str]:
        pairs = (line.partition(":") for line in zoo.said("dominfo", name).splitlines())
        return {key: value.strip() for key, _, value in pairs}

    runs, off = told("runs"), told("off")
    assert runs["State"] == "running"
    assert runs["OS Type"] == "hvm"
    assert runs["CPU(s)"] == "1"
    assert runs["Persistent"] == "yes"
    assert runs["Max memory"] == f"{SMALL.memory_mib * 1024} KiB"
    assert "CPU time" in runs
    assert off["Id"] == "-"
    assert off["State"] == "shut off"
    assert told("held")["Persistent"] == "no"
    assert told("auto")["Autostart"] == "enable"
