"""Where libvirt 9.0 is weak, by name: the same case given to it and to us, and what is seen then.

`python -m faults.weaknesses FILE [W…]` runs them against two hosts of ours and, where it is
installed, two of the real libvirtd, and adds what it saw to FILE, for the page.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sterna
from faults.flight import CONFIRM, FINISH, GUEST, LONG, QUICK, SLOWLY, disk_xml, make_disk
from faults.world import World
from sterna.client.migrate import MigrateOptions, Migration
from sterna.errors import SternaError
from sterna.rpc.msg_common import Dom, TypedParam
from sterna.rpc.msg_migration import DomainMigrateFinish3ParamsRet
from support import tick_guest
from support.clients import Started, start_virsh
from support.daemon import Daemon
from support.domains import tick_xml
from support.host import Host
from support.processes import Watched, wait_for
from support.proxy import Cut, Gate, Packet, Proxy, Rule
from support.real_libvirtd import RealLibvirtd, available, inside, two_libvirtds
from support.serial import SerialTap
from support.tick_guest import TickParameters

LOOK_S: Final = 8.0
"""How long after a fault it is looked at what has become of the guest, without anybody's help."""
HEARD_S: Final = 1.0
KEEPALIVE: Final = ("-k", "1", "-K", "3")
OFD_SETLK: Final = 37
"""fcntl(2); the module has no name for it."""


@dataclass(slots=True)
class Stage:
    """Two hosts, a guest that runs at the first, and the ways to both."""

    source: Host
    destination: Host
    tap: SerialTap
    directory: Path
    cut_data: Callable[[], None]
    heal_data: Callable[[], None]
    open: contextlib.ExitStack

    def proxy(self, host: Host, rule: Rule | None = None) -> Proxy:
        path = self.directory / f"w{len(list(self.directory.iterdir()))}.sock"
        return self.open.enter_context(Proxy(path, host.socket, rule))

    def virsh(self, source: str, destination: str, *options: str) -> Started:
        words = ["migrate", "--live", "--unsafe", GUEST, destination, *options]
        argv = ["virsh", "-q", *KEEPALIVE, "-c", source, *words]
        return self.open.enter_context(Started(argv))

    def copying(self, *options: str) -> Started:
        """In the middle of a slow Perform."""
        virsh = self.virsh(self.source.uri, self.destination.uri, *SLOWLY, *options)
        self.wait_copying()
        return virsh

    def wait_copying(self) -> None:
        wait_for(lambda: self.source.is_sending(GUEST), "memory on its way")

    def running(self) -> list[str]:
        """At which hosts the guest ticks now."""
        began = time.monotonic_ns()
        time.sleep(HEARD_S)
        speakers = {tick.speaker for tick in self.tap.history().since(began)}
        pids = {self.tap.pids[speaker] for speaker in speakers}
        hosts = (("source", self.source), ("destination", self.destination))
        return [name for name, host in hosts if pids & {p.pid for p in host.qemus()}]

    def seen(self, after_s: float = LOOK_S) -> str:
        """What a person would find, in words."""
        time.sleep(after_s)
        running = self.running()
        words = f"runs at its {running[0]}" if len(running) == 1 else "runs nowhere"
        words = "**runs on both hosts**" if len(running) == 2 else words
        words = f"**{words}**" if words == "runs nowhere" else words
        left = []
        for name, host in (("source", self.source), ("destination", self.destination)):
            if host.qemus() and name not in running:
                left.append(f"a paused QEMU left at the {name}")
        return "; ".join([words, *left])


def pid_of(host: Host) -> int:
    """Its daemon's."""
    assert isinstance(host, Daemon | RealLibvirtd)
    return host.pid


# -- the cases -------------------------------------------------------------------------------------


def finishes_answer_is_lost(stage: Stage) -> str:
    def lose(packet: Packet) -> bytes:
        if packet.is_reply(FINISH):
            raise Cut
        return packet.data

    stage.virsh(stage.source.uri, stage.proxy(stage.destination, lose).uri).wait()
    return stage.seen()


def controller_dies_before_finish(stage: Stage) -> str:
    gate = Gate(FINISH)
    virsh = stage.virsh(stage.source.uri, stage.proxy(stage.destination, gate).uri)
    gate.wait_reached()
    virsh.kill()
    gate.opened.set()
    return stage.seen()


def confirm_is_lost(stage: Stage) -> str:
    gate = Gate(CONFIRM)
    virsh = stage.virsh(stage.proxy(stage.source, gate).uri, stage.destination.uri)
    gate.wait_reached()
    gate.opened.set()
    virsh.wait()
    seen = stage.seen()
    stage.source.virsh("resume", GUEST)
    return f"{seen}; after `resume` at the source it {stage.seen(0)}"


def finish_is_carried_out_late(stage: Stage) -> str:
    """The destination's daemon is frozen as Finish arrives, and wakes when nobody waits."""
    gate = Gate(FINISH, cuts=False)
    virsh = stage.virsh(stage.source.uri, stage.proxy(stage.destination, gate).uri)
    gate.wait_reached()
    os.kill(pid_of(stage.destination), signal.SIGSTOP)
    gate.opened.set()
    virsh.wait()
    time.sleep(1)
    os.kill(pid_of(stage.destination), signal.SIGCONT)
    return stage.seen()


def source_daemon_dies_before_the_switchover(stage: Stage) -> str:
    """Nobody lets QEMU go on then; the controller is frozen, so it does not end it either."""
    virsh = stage.copying()
    virsh.process.send_signal(signal.SIGSTOP)
    stage.source.virsh("migrate-setspeed", GUEST, "1000")
    os.kill(pid_of(stage.source), signal.SIGKILL)
    return stage.seen()


def destination_daemon_dies(stage: Stage) -> str:
    stage.copying()
    os.kill(pid_of(stage.destination), signal.SIGKILL)
    return stage.seen()


def finish_waits_for_a_hung_qemu(stage: Stage) -> str:
    gate = Gate(FINISH, cuts=False)
    virsh = stage.virsh(stage.source.uri, stage.proxy(stage.destination, gate).uri)
    gate.wait_reached()
    [qemu] = stage.destination.qemus()
    os.kill(qemu.pid, signal.SIGSTOP)
    gate.opened.set()
    time.sleep(1)
    virsh.kill()
    return stage.seen()


def data_path_dies(stage: Stage) -> str:
    virsh = stage.copying()
    stage.cut_data()
    seen = stage.seen()
    waits = "still waits" if virsh.process.poll() is None else "was told that it failed"
    return f"{seen}; after {LOOK_S:.0f} s the client {waits}"


def finish_fails_with_a_definition(stage: Stage) -> str:
    """Somebody else has the disk as the destination wants it, for a moment."""
    gate = Gate(FINISH, cuts=False)
    way = stage.proxy(stage.destination, gate).uri
    stage.virsh(stage.source.uri, way, "--persistent")
    gate.wait_reached()
    with holding(stage.directory / "disk.qcow2"):
        gate.opened.set()
        time.sleep(3)
    seen = stage.seen()
    if "destination" in stage.running():
        return f"{seen}, once the lock was free"
    left = GUEST in stage.destination.guests("--all")
    return f"{seen}; {'**a definition is left**' if left else 'no definition'} at the destination"


def abort_comes_too_late(stage: Stage) -> str:
    gate = Gate(FINISH, cuts=False)
    virsh = stage.virsh(stage.source.uri, stage.proxy(stage.destination, gate).uri)
    gate.wait_reached()
    aborted = stage.source.virsh("domjobabort", GUEST)
    gate.opened.set()
    virsh.wait()
    told = "is refused" if aborted.code else "is said to have succeeded"
    return f"the abort {told}; the guest {stage.seen(1)}"


def users_pause_on_the_way(stage: Stage) -> str:
    virsh = stage.copying()
    stage.source.virsh("suspend", GUEST)
    stage.source.virsh("migrate-setspeed", GUEST, "1000")
    virsh.wait()
    state = stage.destination.virsh("domstate", GUEST).out.strip()
    return f"paused at the source on its way, it is {state} at the destination"


def client_falls_silent(stage: Stage) -> str:
    """No close and no reset: what a host that lost its power looks like."""
    way = stage.proxy(stage.destination)
    stage.virsh(stage.source.uri, way.uri, *SLOWLY)
    stage.wait_copying()
    [qemu] = stage.destination.qemus()
    watched = Watched(qemu.pid)
    way.silence()
    began = time.monotonic()
    with contextlib.suppress(TimeoutError):
        watched.wait_gone(LOOK_S)
    gone = f"gone after {time.monotonic() - began:.1f} s" if not watched.alive else "still there"
    watched.close()
    return f"the incoming QEMU is {gone}"


class Forgetful(Migration):
    """A controller that believes in a Finish which it never called."""

    async def _finish(self, dom: Dom, cookie: bytes, params: list[TypedParam]) -> Any:
        return DomainMigrateFinish3ParamsRet(dom, b"")


class Careless(Migration):
    """A controller that sends an empty cookie to Prepare."""

    async def _prepare(self, dom: Dom, cookie: bytes, params: list[TypedParam]) -> Any:
        return await super()._prepare(dom, b"", params)


def drive(stage: Stage, controller: type[Migration]) -> None:
    """Our own client in such a one's place; whatever it meets, what counts is the guest."""

    async def go() -> None:
        source, destination = stage.source.uri, stage.destination.uri
        async with sterna.connect(source) as here, sterna.connect(destination) as there:
            options = MigrateOptions(unsafe=True)
            await controller(here.guest(GUEST), there, options, None).run()

    with contextlib.suppress(SternaError):
        asyncio.run(go())


def confirm_without_proof(stage: Stage) -> str:
    drive(stage, Forgetful)
    return stage.seen()


def empty_cookie(stage: Stage) -> str:
    drive(stage, Careless)
    answers = stage.destination.virsh("uri").code == 0
    return f"the destination's daemon {'answers on' if answers else '**has crashed**'}"


def offline_prepare(stage: Stage) -> str:
    stage.source.define(stage.source.said("dumpxml", GUEST))
    stage.source.said("destroy", GUEST)
    gate = Gate(FINISH)
    words = ("migrate", "--offline", "--persistent", GUEST)
    way = stage.proxy(stage.destination, gate).uri
    virsh = stage.open.enter_context(start_virsh(stage.source.uri, *words, way))
    gate.wait_reached()
    gate.opened.set()
    virsh.wait()
    time.sleep(2)
    ghost = GUEST in stage.destination.guests("--all")
    return f"{'**a ghost**' if ghost else 'nothing'} is left at the destination"


@contextlib.contextmanager
def holding(disk: Path) -> Iterator[None]:
    """Keep others from writing to an image, as a QEMU that shares it for reading does."""
    with disk.open("r+b") as file:
        # QEMU's byte for "I do not let others write" (block/file-posix: 200 + the permission).
        held = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 201, 1, 0)
        fcntl.fcntl(file, OFD_SETLK, held)
        yield


@dataclass(frozen=True, slots=True)
class Weakness:
    """One of them: what it is, how it is made, and the guest it wants."""

    name: str
    what: str
    run: Callable[[Stage], str]
    guest: TickParameters = QUICK
    disk: bool = False


WEAKNESSES: Final = (
    Weakness("W1", "Finish's answer is lost", finishes_answer_is_lost),
    Weakness("W2", "the controller dies between Perform and Finish", controller_dies_before_finish),
    Weakness("W3", "Confirm is lost; then somebody resumes the source's copy", confirm_is_lost),
    Weakness(
        "W4", "a Finish is carried out after its controller gave up", finish_is_carried_out_late
    ),
    Weakness(
        "W5",
        "the source's daemon dies before the switchover, its controller hangs",
        source_daemon_dies_before_the_switchover,
        LONG,
    ),
    Weakness("W6", "the destination's daemon dies in Perform", destination_daemon_dies, LONG),
    Weakness(
        "W7", "Finish meets a QEMU that hangs; the controller dies", finish_waits_for_a_hung_qemu
    ),
    Weakness("W8", "the path of the data dies in Perform", data_path_dies, LONG),
    Weakness(
        "W9",
        "Finish fails at the disk's lock, with a definition to be written",
        finish_fails_with_a_definition,
        disk=True,
    ),
    Weakness("W10", "Finish of an offline migration is lost", offline_prepare),
    Weakness("W11", "an abort between Perform and Finish", abort_comes_too_late),
    Weakness("W12", "an empty cookie in Prepare", empty_cookie),
    Weakness("W13", "a user pauses the guest on its way", users_pause_on_the_way, LONG),
    Weakness("W14", "the controller falls silent in Perform", client_falls_silent, LONG),
    Weakness("W15", "Confirm says success, without a Finish", confirm_without_proof),
)


# -- running them ----------------------------------------------------------------------------------


@contextlib.contextmanager
def ours(_directory: Path) -> Iterator[tuple[Host, Host, Callable[[], None], Callable[[], None]]]:
    with World(alone=True) as world:
        cable = world.place(world.destination).hosts
        assert cable is not None
        # Between hosts there is no way but through the cables' ends, so those forward.
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for place in (world.place(world.source), world.place(world.destination)):
            place.route()
        yield world.source, world.destination, cable.cut, cable.heal


@contextlib.contextmanager
def theirs(directory: Path) -> Iterator[tuple[Host, Host, Callable[[], None], Callable[[], None]]]:
    with two_libvirtds(directory) as (source, destination):

        def rule(how: str) -> None:
            """A filter, so that the link is silent and not down."""
            route = ("ip", "route", how, "blackhole", f"{destination.address}/32")
            inside(source, *route)
            inside(destination, "ip", "route", how, "blackhole", f"{source.address}/32")

        yield source, destination, lambda: rule("add"), lambda: rule("del")


SIDES: Final = {"Sterna": ours, "libvirtd 9.0": theirs}


def look(weakness: Weakness, side: str) -> str:
    """What is seen of one weakness at one of the two; nothing of it is left."""
    directory = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    directory.chmod(0o755)
    try:
        with contextlib.ExitStack() as undo:
            elf = tick_guest.build(directory)
            tap = undo.enter_context(SerialTap(directory / "serial.sock"))
            source, destination, cut, heal = undo.enter_context(SIDES[side](directory))
            disk = ""
            if weakness.disk:
                make_disk(directory / "disk.qcow2")
                disk = disk_xml(directory / "disk.qcow2")
            source.create(tick_xml(GUEST, elf, weakness.guest, serial=tap.path, devices=disk))
            tap.wait_more_ticks(5)
            stage = Stage(source, destination, tap, directory, cut, heal, undo)
            return weakness.run(stage)
    finally:
        shutil.rmtree(directory)


def main(path: Path, names: list[str]) -> None:
    sides = [side for side in SIDES if side == "Sterna" or available()]
    results = json.loads(path.read_text()) if path.exists() else {}
    for weakness in WEAKNESSES:
        if names and weakness.name not in names:
            continue
        seen = results.setdefault(weakness.name, {"what": weakness.what})
        for side in sides:
            try:
                seen[side] = look(weakness, side)
            except Exception as exc:  # one that cannot be made must not keep the others from it
                traceback.print_exc()
                seen[side] = f"could not be made: {exc}"
            print(f"{weakness.name} {weakness.what}: {side}: {seen[side]}", flush=True)
        path.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
