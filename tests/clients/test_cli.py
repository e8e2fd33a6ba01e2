"""`sterna`, as a user runs it: words, exit statuses, pipes, JSON and Ctrl-C."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qemu.moving import GUEST, LONG, QUICK, check_moved, check_stayed, is_copying
from support.clients import STERNA, Started, run, sterna
from support.domains import tick_xml
from support.fixtures import Hosts, MakeGuest, TwoDaemons
from support.processes import wait_for
from support.serial import SerialTap

pytestmark = [pytest.mark.clients, pytest.mark.timeout(120)]

SMALL = """<domain type='qemu'>
  <name>small</name><memory unit='MiB'>16</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
</domain>"""


def test_a_guest_s_day(hosts: Hosts) -> None:
    host = hosts.start("alpha")
    path = host.file("small.xml", SMALL)
    assert sterna(host.root, "define", path, "--start").check().out == "small is started: running\n"
    assert sterna(host.root, "list").check().lines[1].split() == [
        "1",
        "small",
        "running",
        "1",
        "16.0",
        "MiB",
    ]
    assert sterna(host.root, "pause", "small").check().out == "small is paused: paused\n"
    shown = sterna(host.root, "show", "small").check().out
    assert "State:      paused (user)\n" in shown
    assert sterna(host.root, "resume", "small").check().out == "small is resumed: running\n"
    assert sterna(host.root, "stop", "--force", "small").check().out == "small is stopped\n"
    assert sterna(host.root, "list").check().lines == ["ID  NAME  STATE  VCPUS  MEMORY"]
    assert sterna(host.root, "list", "--all", "--names").check().out == "small\n"
    assert sterna(host.root, "undefine", "small").check().out == "small is undefined\n"


def test_json_everywhere(hosts: Hosts) -> None:
    host = hosts.start("alpha")
    started = json.loads(
        sterna(host.root, "define", "-", "--start", "--json", stdin=SMALL).check().out
    )
    assert (started["name"], started["state"], started["id"]) == ("small", "running", 1)
    [listed] = json.loads(sterna(host.root, "list", "--json").check().out)
    assert listed["uuid"] == started["uuid"]
    assert json.loads(sterna(host.root, "show", "small", "--json").check().out)["job"] is None
    assert json.loads(sterna(host.root, "version", "--json").check().out)["host"] == "alpha"
    assert json.loads(sterna(host.root, "stop", "-f", "small", "--json").check().out)["stopped"]


def test_xml_comes_out_as_virsh_prints_it(hosts: Hosts) -> None:
    host = hosts.start("alpha")
    host.define(SMALL)
    ours = sterna(host.root, "show", "small", "--xml").check().out
    assert ours.strip() == host.said("dumpxml", "small")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["show", "nobody"], 4, "Domain not found: no domain with matching name 'nobody'"),
        (["start", "nobody"], 4, "Domain not found"),
        (["define", "/nonexistent.xml"], 1, "cannot read /nonexistent.xml: No such file"),
        (["migrate", "nobody", "/nonexistent"], 4, "Domain not found"),
        (["migrate", "nobody", "/nowhere", "--direct"], 3, "nobody listens at /nowhere"),
        (["migrate", "nobody", "/x", "--direct", "--detach"], 1, "not with --direct"),
        (["watch", "nobody"], 4, "Domain not found"),
    ],
)
def test_errors_are_one_sentence(hosts: Hosts, words: list[str], code: int, says: str) -> None:
    ran = sterna(hosts.start("alpha").root, *words)
    assert ran.code == code
    [line] = ran.err.splitlines()
    assert line.startswith("sterna: ")
    assert says in line
    assert ran.out == ""


def test_no_daemon(tmp_path: Path) -> None:
    ran = run([*STERNA, "list", "-c", str(tmp_path)])
    assert ran.code == 3
    assert ran.err.endswith("is sternad running?\n")


def test_bad_xml_is_refused_with_its_place(hosts: Hosts) -> None:
    ran = sterna(
        hosts.start("alpha").root, "define", "-", stdin="<domain type='qemu'><name>x</domain>"
    )
    assert ran.code == 1
    assert "(domain_definition):1" in ran.err


def test_a_closed_pipe_is_no_error(hosts: Hosts) -> None:
    host = hosts.start("alpha")
    words = " ".join([*STERNA, "list", "--all", "-c", str(host.root)])
    ran = run(["bash", "-c", f"set -o pipefail; {words} | true"])
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(shell: str) -> None:
    script = run([*STERNA, "completion", shell]).check().out
    assert "migrate" in script
    assert "sterna list --all --names" in script
    if shell == "bash":
        assert run(["bash", "-n"], stdin=script).check().err == ""


def test_events(hosts: Hosts) -> None:
    host = hosts.start("alpha")
    host.define(SMALL)
    with Started([*STERNA, "events", "--json", "--count", "2", "-c", str(host.root)]) as watching:
        assert watching.process.stderr is not None
        assert "listening" in watching.process.stderr.readline()
        host.said("start", "small")
        lines = watching.wait(30).check().out.splitlines()
    told = [json.loads(line) for line in lines]
    assert [(event["event"], event["detail"]) for event in told] == [
        ("resumed", "unpaused"),
        ("started", "booted"),
    ]


@pytest.mark.qemu
def test_console_in_a_pipe(two_daemons: TwoDaemons, tick_elf: Path) -> None:
    """What the guest prints comes out, as it is."""
    host = two_daemons.source
    host.create(tick_xml("talker", tick_elf, QUICK))
    with Started([*STERNA, "console", "talker", "-c", str(host.root)]) as console:
        assert console.process.stdout is not None
        assert any("tick " in console.process.stdout.readline() for _ in range(50))


DRIVERS = pytest.mark.parametrize("driver", [(), ("--direct",)], ids=["source", "client"])


@pytest.mark.qemu
@pytest.mark.parametrize("road", [(), ("--direct",), ("--tunnelled",)])
def test_migrate(
    two_daemons: TwoDaemons,
    serial_tap: SerialTap,
    tick_guest_xml: MakeGuest,
    road: tuple[str, ...],
) -> None:
    source, destination = two_daemons.source, two_daemons.destination
    source.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks(5)
    said = sterna(source.root, "migrate", GUEST, str(destination.root), *road).check().out
    assert "migrated to beta: " in sterna(source.root, "history", GUEST).check().out
    assert "migrated from alpha: " in sterna(destination.root, "history").check().out
    [there] = json.loads(sterna(destination.root, "history", "--json").check().out)
    assert there["detail"]["succeeded"]
    assert "committing" in [name for name, _ in there["detail"]["phases"]]
    assert said.startswith(f"{GUEST} moved to {destination.root} in ")
    assert " of silence, " in said
    assert said.endswith("sent.\n")
    check_moved(two_daemons, serial_tap)


@pytest.mark.qemu
def test_migrate_with_json(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    source, destination = two_daemons.source, two_daemons.destination
    source.define(tick_guest_xml(GUEST, QUICK))
    source.said("start", GUEST)
    serial_tap.wait_more_ticks(5)
    options = ["--json", "--persistent", "--undefine-source", "--bandwidth", "64"]
    out = sterna(source.root, "migrate", GUEST, str(destination.root), *options).check().out
    result = json.loads(out[out.index("{\n") :])
    assert result["guest"] == GUEST
    assert result["transferred_bytes"] > 0
    assert result["downtime_ms"] < result["total_ms"]
    check_moved(two_daemons, serial_tap)
    assert destination.said("dominfo", GUEST).count("Persistent:     yes") == 1
    assert source.guests("--all") == set()


@pytest.mark.qemu
@DRIVERS
def test_ctrl_c_aborts_and_says_where_the_guest_is(
    two_daemons: TwoDaemons,
    serial_tap: SerialTap,
    tick_guest_xml: MakeGuest,
    driver: tuple[str, ...],
) -> None:
    source, destination = two_daemons.source, two_daemons.destination
    source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks(5)
    words = ["migrate", GUEST, str(destination.root), "--bandwidth", "4", "-c", str(source.root)]
    with Started([*STERNA, *words, *driver]) as moving:
        wait_for(lambda: is_copying(source), "memory on its way")
        moving.interrupt()
        ended = moving.wait(30)
    assert ended.code == 5
    assert "the migration was aborted" in ended.err
    assert "the guest is running (" in ended.err
    check_stayed(two_daemons, serial_tap)


@pytest.mark.qemu
def test_detached_it_goes_on_and_can_be_watched(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    source, destination = two_daemons.source, two_daemons.destination
    source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks(5)
    words = ["migrate", GUEST, str(destination.root), "--bandwidth", "4", "--detach"]
    said = sterna(source.root, *words).check().out
    assert said == f"{GUEST} is on its way; `sterna watch {GUEST}` shows it.\n"
    assert is_copying(source)
    with Started([*STERNA, "watch", GUEST, "-c", str(source.root)]) as watching:
        assert watching.process.stderr is not None
        assert "remaining" in watching.process.stderr.readline()
        source.said("migrate-setspeed", GUEST, "4096")
        told = watching.wait(60).check().out
    assert told.startswith(f"{GUEST} moved to beta in ")
    check_moved(two_daemons, serial_tap)
    ran = sterna(destination.root, "watch", GUEST)
    assert (ran.code, "is not being migrated away" in ran.err) == (1, True)


@pytest.mark.qemu
def test_watching_a_migration_that_fails(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    source, destination = two_daemons.source, two_daemons.destination
    source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks(5)
    sterna(source.root, "migrate", GUEST, str(destination.root), "--bandwidth", "4", "--detach")
    with Started([*STERNA, "watch", GUEST, "-c", str(source.root)]) as watching:
        assert watching.process.stderr is not None
        assert "remaining" in watching.process.stderr.readline()
        source.said("domjobabort", GUEST)
        ended = watching.wait(30)
    assert ended.code == 5
    assert "canceled by client" in ended.err
    check_stayed(two_daemons, serial_tap)
