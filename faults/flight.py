"""One guest on its way: driven through gates that stop it in the phase that is wanted."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from pathlib import Path
from typing import Final

from faults import dying
from faults.cases import (
    ABORTED,
    DESTINATION,
    DIRECT,
    LEFT,
    PERSISTENT,
    SOURCE,
    TUNNELLED,
    Case,
)
from faults.world import World
from support.clients import STERNA, Started
from support.daemon import Daemon
from support.domains import tick_xml
from support.processes import Watched, wait_for
from support.proxy import Gate, Kind, Packet, Proxy
from support.relay import Relay
from support.serial import SerialTap
from support.tick_guest import TickParameters

GUEST: Final = "mover"
QUICK: Final = TickParameters(region_mib=16, dirty_mib_s=4, check_mib_s=32, disk_every_ticks=3)
LONG: Final = TickParameters(region_mib=32, dirty_mib_s=1, check_mib_s=32, disk_every_ticks=3)
SLOWLY: Final = ("--bandwidth", "4")
FAST_MIB: Final = "1000"
BEGIN, PREPARE, PREPARE_TUNNEL, PERFORM, FINISH, CONFIRM = 302, 303, 304, 305, 306, 307
GATES: Final = {
    "begin": (SOURCE, BEGIN, Kind.REPLY),
    "prepare": (DESTINATION, PREPARE, Kind.REPLY),
    "performed": (DESTINATION, FINISH, Kind.CALL),
    "finished": (DESTINATION, FINISH, Kind.REPLY),
    "confirm": (SOURCE, CONFIRM, Kind.CALL),
    "confirmed": (SOURCE, CONFIRM, Kind.REPLY),
}
PLACE = re.compile(rb"(\d+\.\d+\.\d+\.\d+):(\d{5})\b")
"""An address and a port that Prepare's answer names; ours have as many digits."""
SIDES: Final = {SOURCE: "Outgoing", DESTINATION: "Incoming"}
AFTERWARDS_S: Final = 0.5
KEEPALIVE: Final = ("-k", "1", "-K", "3")
"""The client notices a silent daemon, as virsh's own default does a little later."""


def make_disk(path: Path) -> None:
    """An image that every user's QEMU may write."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "4M"], check=True, timeout=20)
    path.chmod(0o666)


def disk_xml(path: Path) -> str:
    """As the tick guest wants it: the primary master."""
    return (
        "<disk type='file'><driver name='qemu' type='qcow2' cache='none'/>"
        f"<source file='{path}'/><target dev='hda' bus='ide'/></disk>"
    )


class Flight:
    """The guest runs at the source; `take_off` sends it, up to the phase of its case."""

    def __init__(self, world: World, case: Case) -> None:
        self.world, self.case = world, case
        self.source, self.destination = world.source, world.destination
        self.persistent = case.way == PERSISTENT
        self.slow = case.phase == "copying" or case.way == ABORTED
        self.relays: dict[str, Relay] = {}
        self.virsh: Started
        self.hurt_at = 0.0
        self._aborted = False
        self._open = contextlib.ExitStack()
        side, procedure, kind = GATES.get(case.phase, ("", 0, Kind.CALL))
        if case.road == TUNNELLED and procedure == PREPARE:
            procedure = PREPARE_TUNNEL
        if case.way == LEFT:
            side, procedure, kind = DESTINATION, FINISH, Kind.CALL
        self.gate = Gate(procedure, kind, cuts=case.lost)
        self._gate_side = side

    def __enter__(self) -> Flight:
        try:
            self._prepare()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.opened.set()
        self._open.close()

    def _prepare(self) -> None:
        directory = self.world.directory
        self.tap = self._open.enter_context(SerialTap(directory / "serial.sock"))
        self.disk = directory / "disk.qcow2"
        make_disk(self.disk)
        self._create(LONG if self.slow else QUICK)
        self.tap.wait_more_ticks(5)
        self.to_source = self._proxy(self.source, SOURCE)
        self.to_destination = self._proxy(self.destination, DESTINATION)

    def _create(self, parameters: TickParameters) -> None:
        disk = disk_xml(self.disk)
        xml = tick_xml(GUEST, self.world.elf, parameters, serial=self.tap.path, devices=disk)
        if self.persistent:
            self.source.define(xml)
            self.source.virsh("start", GUEST, timeout_s=60).check()
        else:
            self.source.create(xml)

    def _proxy(self, host: Daemon, side: str) -> Proxy:
        path = host.root.with_name(f"{host.name}.proxy")
        gated = side == self._gate_side

        def rule(packet: Packet) -> bytes:
            packet = self._rerouted(packet) if side == DESTINATION else packet
            return self.gate(packet) if gated else packet.data

        return self._open.enter_context(Proxy(path, (host.address, host.tcp_port), rule))

    def _rerouted(self, packet: Packet) -> Packet:
        """Prepare's answer names the data's port and the door's: the source shall go through us."""
        if not (packet.is_reply(PREPARE) or packet.is_reply(PREPARE_TUNNEL)):
            return packet
        cables = self.world.place(self.source).hosts
        ours = cables.ours if cables else "127.0.0.1"

        def through_us(found: re.Match[bytes]) -> bytes:
            target = found[1].decode(), int(found[2])
            # QEMU's own form has no slashes.
            name = "question" if packet.data[: found.start()].endswith(b"//") else "data"
            if name not in self.relays:
                self.relays[name] = relay = Relay(ours, target)
                self._open.callback(relay.close)
            return f"{ours}:{self.relays[name].port}".encode()

        data = PLACE.sub(through_us, packet.data)
        assert len(data) == len(packet.data), "an address of another length"
        return Packet(
            *(packet.at_ns, packet.connection, packet.program, packet.procedure),
            *(packet.kind, packet.serial, packet.status, data),
        )

    # -- the way there -------------------------------------------------------------------------

    def start(self) -> None:
        argv = self._client()
        # Both hosts are one machine: the disk is shared, though it does not look so.
        argv += ["--unsafe", *(SLOWLY if self.slow else ())]
        self.virsh = self._open.enter_context(Started(argv))

    def _client(self) -> list[str]:
        """Whoever asks for the migration. virsh lets no source drive to a host without a name."""
        here, there = self.to_source.uri, self.to_destination.uri
        if self.case.road == DIRECT:
            keeps = ("--persistent", "--undefinesource") if self.persistent else ()
            argv = ["virsh", "-q", *KEEPALIVE, "-c", here, "migrate", "--live", GUEST, there]
        else:
            keeps = ("--persistent", "--undefine-source") if self.persistent else ()
            argv = [*STERNA, "migrate", "-c", here, GUEST, there]
            argv += ("--tunnelled",) if self.case.road == TUNNELLED else ()
        return [*argv, *keeps]

    def take_off(self) -> None:
        """Up to the moment of the fault. AssertionError, with virsh's words, if it ends before."""
        self.start()
        try:
            self._reach()
        except (AssertionError, TimeoutError) as exc:
            raise AssertionError(f"{exc}; virsh said: {self.virsh.end()}") from exc

    def _reach(self) -> None:
        match self.case.phase:
            case "copying":
                wait_for(lambda: self.source.is_sending(GUEST), "memory on its way")
                time.sleep(self.case.chance("moment") * 0.5)
            case "perform":
                self.to_source.wait_packet(lambda packet: packet.is_call(PERFORM))
                time.sleep(self.case.chance("moment") * 0.12)
            case "finish":
                self.to_destination.wait_packet(lambda packet: packet.is_call(FINISH))
                time.sleep(self.case.chance("moment") * 0.02)
            case _:
                self.gate.wait_reached()
        for packet in self.to_source.packets:
            assert not (packet.is_reply(PERFORM) and packet.status), "it failed before the fault"

    def hurry(self) -> None:
        """A copy that goes on need not take its time any more."""
        if self.slow:
            self.source.virsh("migrate-setspeed", GUEST, FAST_MIB)

    @property
    def victim(self) -> Daemon:
        """The daemon that the case is about."""
        return self.source if self.case.party == SOURCE else self.destination

    # -- a daemon's own death ------------------------------------------------------------------

    def fly_to_death(self) -> float | None:
        """The daemon of the case dies at its moment: when (monotonic). None if it outlived it."""
        host = self.victim
        file = host.root / dying.FILE
        file.write_text(f"{SIDES[self.case.party]} {self.case.moment}")
        watched = Watched(host.pid)
        try:
            self.start()
            ended = wait_for(
                lambda: not watched.alive or self._meanwhile(), "the daemon's death, or an end", 60
            )
            if ended and watched.alive:
                # What its core does after the answer takes some time of its own.
                with contextlib.suppress(TimeoutError):
                    watched.wait_gone(AFTERWARDS_S)
            return None if watched.alive else time.monotonic()
        finally:
            watched.close()
            file.unlink(missing_ok=True)

    def _meanwhile(self) -> bool:
        """What else happens in this way of a migration. True once the controller has ended."""
        if self.case.way == LEFT and self.gate.reached.is_set():
            self.virsh.kill()
            self.gate.opened.set()
        elif self.case.way == ABORTED and not self._aborted and self.source.is_sending(GUEST):
            self._aborted = True
            self.source.virsh("domjobabort", GUEST)
        return self.virsh.process.poll() is not None


def save(flight: Flight, directory: Path) -> None:
    """What a person needs to see why a case failed."""
    directory.mkdir(parents=True, exist_ok=True)
    flight.tap.save(directory / "serial.txt")
    for host in (flight.source, flight.destination):
        (directory / f"{host.name}.log").write_text(host.log_text())
