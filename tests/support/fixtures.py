"""Hosts for tests, and what happens around them: leak checks, papers of a failed test."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support import tick_guest
from support.daemon import Daemon, free_port
from support.domains import tick_xml
from support.host import Host
from support.leaks import check_no_leaks, remove_guests, taps
from support.real_libvirtd import two_libvirtds
from support.serial import SerialTap
from support.tick_guest import TickParameters

FAILED = pytest.StashKey[bool]()
PAPERS = Path("build/failed-tests")
COPIED_BYTES_MAX = 16 << 20


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember failures for the fixtures, whose teardown comes after."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How much the explorer looked at; `tell` of tests/model collected it."""
    told = [
        str(text)
        for report in terminalreporter.getreports("passed")
        for name, text in report.user_properties
        if name == "explored" and report.when == "call"
    ]
    if told:
        terminalreporter.section("explored by the model")
        for line in sorted(told):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def tick_elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tick guest, assembled once a session."""
    directory = tmp_path_factory.mktemp("tick")
    # QEMU may run as another user than the test.
    for path in (directory, *directory.parents[:2]):
        path.chmod(path.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
    return tick_guest.build(directory)


@pytest.fixture
def short_dir(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory with a short path, for sockets; kept in build/failed-tests if the test fails."""
    directory = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    if request.node.stash.get(FAILED, False):
        keep_papers(directory, request.node.nodeid)
    shutil.rmtree(directory)


def keep_papers(directory: Path, nodeid: str) -> None:
    """Copy logs, stores and serial output; sockets and memory images stay behind."""
    target = PAPERS / re.sub(r"[^\w.-]+", "_", nodeid)[-150:]
    shutil.rmtree(target, ignore_errors=True)
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_size <= COPIED_BYTES_MAX:
                copy = target / path.relative_to(directory)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


@pytest.fixture
def serial_tap(short_dir: Path) -> Iterator[SerialTap]:
    """A listener for this test's guest."""
    with SerialTap(short_dir / "serial.sock") as tap:
        yield tap
        tap.save(short_dir / "serial.txt")


@dataclass(slots=True)
class Hosts:
    """Makes hosts and ends them: `hosts.start("alpha")`. Each name once a test."""

    directory: Path
    cache: Path
    daemons: list[Daemon] = field(default_factory=list)

    def start(self, name: str, *options: str, **more: Any) -> Daemon:
        """A running host; `more` as for `Daemon`."""
        daemon = Daemon(self.directory / name[:8], name=name, options=options, **more)
        # Asking QEMU what it can do takes two seconds; once a session is enough.
        daemon.root.mkdir()
        (daemon.root / "cache").symlink_to(self.cache)
        self.daemons.append(daemon)
        daemon.start()
        return daemon

    def end(self, *, check: bool) -> None:
        """Remove guests, look for leaks (if nothing failed before), stop the daemons."""
        try:
            for daemon in self.daemons:
                if daemon.alive:
                    remove_guests(daemon)
            for daemon in self.daemons if check else []:
                if daemon.alive:
                    check_no_leaks(daemon)
            for daemon in self.daemons if check else []:
                if daemon.alive:
                    assert daemon.stop() == 0, f"{daemon.name} stopped with a failure"
                    left = [f"{p.pid} {p.argv[:3]}" for p in daemon.processes()]
                    assert not left, f"{daemon.name} left processes: {left}"
        finally:
            for daemon in self.daemons:
                daemon.end_everything()


@pytest.fixture(scope="session")
def qemu_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the daemons of this session found out about QEMU."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def hosts(short_dir: Path, qemu_cache: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """The factory of hosts; afterwards no guest, process, port, tap, descriptor or file is left."""
    taps_before = taps()
    made = Hosts(short_dir, qemu_cache)
    yield made
    failed = request.node.stash.get(FAILED, False)
    if failed:
        for daemon in made.daemons:
            request.node.add_report_section("call", f"log of {daemon.name}", daemon.log_tail(80))
    made.end(check=not failed)
    assert failed or taps() <= taps_before


# With this set, the tests that compare clients' words run against the real libvirtd: what they
# expect of us is then seen to be what it does. Tests of what only we promise fail there.
ORACLE = "STERNA_TEST_ORACLE" in os.environ


@pytest.fixture
def host(request: pytest.FixtureRequest, short_dir: Path) -> Iterator[Host]:
    """One host."""
    if ORACLE:
        with two_libvirtds(short_dir) as (alone, _):
            yield alone
    else:
        yield request.getfixturevalue("hosts").start("alpha")


@dataclass(frozen=True, slots=True)
class TwoHosts:
    source: Host
    destination: Host

    def migrate(self, guest: str, *options: str, back: bool = False) -> list[str]:
        """virsh's words to move that guest, after `virsh -c SOURCE`."""
        to = self.source if back else self.destination
        return ["migrate", "--live", guest, to.uri, *options]


@pytest.fixture
def two_hosts(request: pytest.FixtureRequest, short_dir: Path) -> Iterator[TwoHosts]:
    """Two hosts that reach each other."""
    if ORACLE:
        with two_libvirtds(short_dir) as pair:
            yield TwoHosts(*pair)
    else:
        hosts = request.getfixturevalue("hosts")
        yield TwoHosts(hosts.start("alpha"), hosts.start("beta"))


@dataclass(frozen=True, slots=True)
class TwoDaemons(TwoHosts):
    """Two of ours: what can be done to a daemon can be done to them."""

    source: Daemon
    destination: Daemon


@pytest.fixture
def two_daemons(hosts: Hosts) -> TwoDaemons:
    """Each with a port of its own for questions: while one is dead, a daemon of another worker's
    test would take the usual one."""

    def start(name: str) -> Daemon:
        config = hosts.directory / f"{name}.toml"
        config.write_text(f"decision_port = {free_port()}\n")
        return hosts.start(name, "--config", str(config))

    return TwoDaemons(start("alpha"), start("beta"))


MakeGuest = Callable[..., str]


@pytest.fixture
def tick_guest_xml(tick_elf: Path, serial_tap: SerialTap) -> MakeGuest:
    """`tick_guest_xml(name, TickParameters(…), machine=…)`: a guest heard by `serial_tap`."""

    def make(name: str = "tick", parameters: TickParameters | None = None, **more: Any) -> str:
        return tick_xml(name, tick_elf, parameters, serial=serial_tap.path, **more)

    return make


def from_environment(name: str, default: int) -> int:
    """A test's size, which `make soak` raises."""
    return int(os.environ.get(name, default))
