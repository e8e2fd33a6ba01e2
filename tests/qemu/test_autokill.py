"""Who drives a migration dies: the incoming guest is gone at once, the other goes on. (L3)"""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Iterator

import pytest

from qemu.moving import (
    GUEST,
    LONG,
    QUICK,
    SLOWLY,
    check_moved,
    check_stayed,
    is_copying,
    migrate_words,
)
from support.clients import Started, start_virsh, virsh_argv
from support.fixtures import MakeGuest, TwoDaemons, TwoHosts, from_environment
from support.host import Host
from support.processes import Watched, wait_for
from support.proxy import HEADER, Gate, Packet, Proxy
from support.serial import SerialTap

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

KILL_MOMENTS = from_environment("STERNA_KILL_MOMENTS", 20)
REAP_MS_MEDIAN_MAX = 50
REAP_MS_MAX = 200
# The keepalive budget of L3 (5 s) and what a busy machine adds.
SILENCE_S_MAX = 8
FINISH = 306
PERFORM = 305


@pytest.fixture
def long_running(two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> TwoHosts:
    two_hosts.source.create(tick_guest_xml(GUEST, LONG))
    serial_tap.wait_more_ticks(5)
    return two_hosts


@pytest.fixture
def quick(two_hosts: TwoHosts, serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> TwoHosts:
    two_hosts.source.create(tick_guest_xml(GUEST, QUICK))
    serial_tap.wait_more_ticks(5)
    return two_hosts


def incoming(host: Host) -> Watched:
    """The QEMU that waits for the guest."""
    [qemu] = wait_for(host.qemus, "incoming QEMU", every_s=0.002)
    return Watched(qemu.pid)


def reap_ms(watched: Watched, since_ns: int) -> float:
    gone_ns = watched.wait_gone()
    watched.close()
    return (gone_ns - since_ns) / 1e6


def controller(hosts: TwoHosts, *options: str) -> Started:
    return hosts.source.start_virsh(*migrate_words(hosts.destination, *options))


@pytest.fixture
def gated_source(quick: TwoHosts) -> Iterator[tuple[Gate, Callable[[], Started]]]:
    """A controller that comes as far as Perform, which does not reach the source."""
    gate = Gate(PERFORM)
    with Proxy(quick.source.root.with_name("p.sock"), quick.source.socket, gate) as proxy:
        yield gate, lambda: start_virsh(proxy.uri, *migrate_words(quick.destination))
        gate.opened.set()


def test_sigkill_after_prepare(
    quick: TwoHosts, serial_tap: SerialTap, gated_source: tuple[Gate, Callable[[], Started]]
) -> None:
    gate, start = gated_source
    with start() as virsh:
        gate.wait_reached()
        watched = incoming(quick.destination)
        killed_ns = virsh.kill()
        assert reap_ms(watched, killed_ns) < REAP_MS_MAX
        gate.opened.set()
    check_stayed(quick, serial_tap)
    # Port, name and uuid are free again.
    quick.source.virsh(*migrate_words(quick.destination), timeout_s=60).check()
    check_moved(quick, serial_tap)


@pytest.mark.timing
@pytest.mark.timeout(600)
def test_sigkill_at_many_moments_of_perform(long_running: TwoHosts, serial_tap: SerialTap) -> None:
    took = []
    for moment in range(KILL_MOMENTS):
        with controller(long_running, *SLOWLY) as virsh:
            watched = incoming(long_running.destination)
            wait_for(lambda: is_copying(long_running.source), "memory on its way")
            # Not a wait for something: the moment itself is what varies.
            time.sleep(moment * 0.02)
            took.append(reap_ms(watched, virsh.kill()))
        check_stayed(long_running, serial_tap)
    assert statistics.median(took) <= REAP_MS_MEDIAN_MAX, took
    assert max(took) <= REAP_MS_MAX, took


def test_sigkill_between_perform_and_finish(quick: TwoHosts, serial_tap: SerialTap) -> None:
    """The destination reaps as fast, and the source, which asks it, goes on by itself. (L2, L5)"""
    gate = Gate(FINISH)
    path = quick.destination.root.with_name("p.sock")
    with Proxy(path, quick.destination.socket, gate) as proxy:
        words = ["migrate", "--live", GUEST, proxy.uri]
        with quick.source.start_virsh(*words) as virsh:
            gate.wait_reached()
            watched = incoming(quick.destination)
            virsh.kill()
            at_ns = time.monotonic_ns()
            gate.opened.set()
            assert reap_ms(watched, at_ns) < REAP_MS_MAX
    assert quick.destination.guests("--all") == set()
    check_stayed(quick, serial_tap)


def test_sigkill_while_the_incoming_qemu_hangs(
    long_running: TwoHosts, serial_tap: SerialTap
) -> None:
    """No answer of QEMU's is needed to kill it."""
    with controller(long_running, *SLOWLY) as virsh:
        watched = incoming(long_running.destination)
        wait_for(lambda: is_copying(long_running.source), "memory on its way")
        watched.signal(signal.SIGSTOP)
        assert reap_ms(watched, virsh.kill()) < REAP_MS_MAX
    check_stayed(long_running, serial_tap)


def pretend_success(packet: Packet) -> bytes:
    """What the client sees of a Perform that failed: a good one, with an empty cookie."""
    if not (packet.is_reply(PERFORM) and packet.status):
        return packet.data
    length = HEADER.size + 4
    fields = (length, packet.program, 1, PERFORM, packet.kind, packet.serial, 0)
    return HEADER.pack(*fields) + bytes(4)


def test_a_finish_without_proof_is_refused(long_running: TwoHosts, serial_tap: SerialTap) -> None:
    """A controller that believes in a Perform that failed cannot start a half-copied guest."""
    source = long_running.source
    with (
        Proxy(source.root.with_name("a.sock"), source.socket, pretend_success) as proxy,
        start_virsh(proxy.uri, *migrate_words(long_running.destination, *SLOWLY)) as virsh,
    ):
        watched = incoming(long_running.destination)
        wait_for(lambda: is_copying(source), "memory on its way")
        watched.signal(signal.SIGSTOP)
        source.virsh("domjobabort", GUEST).check()
        assert virsh.wait().code
        watched.wait_gone(1)
        watched.close()
    check_stayed(long_running, serial_tap)


def test_sigkill_while_finish_waits_for_a_hung_qemu(quick: TwoHosts, serial_tap: SerialTap) -> None:
    """Finish waits for a QEMU that hangs, the controller dies: the hung QEMU dies with it. (W7)

    The source asks what was decided, and goes on. (L5)
    """
    gate = Gate(FINISH, cuts=False)
    path = quick.destination.root.with_name("p.sock")
    with (
        Proxy(path, quick.destination.socket, gate) as proxy,
        quick.source.start_virsh("migrate", "--live", GUEST, proxy.uri) as virsh,
    ):
        gate.wait_reached()
        watched = incoming(quick.destination)
        watched.signal(signal.SIGSTOP)
        gate.opened.set()
        proxy.wait_packet(lambda packet: packet.is_call(FINISH))
        assert reap_ms(watched, virsh.kill()) < REAP_MS_MAX
    check_stayed(quick, serial_tap)


def test_a_controller_that_falls_silent(long_running: TwoHosts, serial_tap: SerialTap) -> None:
    """SIGSTOP: no close, no reset, only silence. The keepalive budget is all it gets."""
    with controller(long_running, *SLOWLY) as virsh:
        watched = incoming(long_running.destination)
        wait_for(lambda: is_copying(long_running.source), "memory on its way")
        stopped_ns = time.monotonic_ns()
        virsh.process.send_signal(signal.SIGSTOP)
        assert reap_ms(watched, stopped_ns) < SILENCE_S_MAX * 1000
    check_stayed(long_running, serial_tap)


def test_the_incoming_qemu_dies(long_running: TwoHosts, serial_tap: SerialTap) -> None:
    with controller(long_running, *SLOWLY) as virsh:
        watched = incoming(long_running.destination)
        wait_for(lambda: is_copying(long_running.source), "memory on its way")
        watched.signal(signal.SIGKILL)
        ended = virsh.wait()
    assert ended.code
    assert ended.err.strip()
    check_stayed(long_running, serial_tap)


def test_the_source_qemu_dies(long_running: TwoHosts) -> None:
    """The guest is lost with its host's process; what waited for it goes too."""
    [qemu] = long_running.source.qemus()
    with controller(long_running, *SLOWLY) as virsh:
        watched = incoming(long_running.destination)
        wait_for(lambda: is_copying(long_running.source), "memory on its way")
        source_qemu = Watched(qemu.pid)
        source_qemu.signal(signal.SIGKILL)
        source_qemu.close()
        assert virsh.wait().code
        watched.wait_gone()
        watched.close()
    assert long_running.destination.guests("--all") == set()
    assert long_running.source.guests("--all") == set()


def test_a_close_after_finish_touches_nothing(quick: TwoHosts, serial_tap: SerialTap) -> None:
    """Finish took the registration back: the connection of Prepare may end as it likes."""
    words = " ".join(migrate_words(quick.destination))
    script = f"{words}; event --all --timeout 60"
    with Started(virsh_argv(quick.source.uri, script)) as virsh:
        wait_for(lambda: not quick.source.qemus(), "the move")
        virsh.kill()
    check_moved(quick, serial_tap)


# ---- the destination's daemon itself dies ----


def test_sigkill_of_the_destination_daemon(
    two_daemons: TwoDaemons, serial_tap: SerialTap, tick_guest_xml: MakeGuest
) -> None:
    """The guardian kills what was not decided, at once, and nothing else."""
    two_daemons.source.create(tick_guest_xml(GUEST, LONG))
    bystander = tick_guest_xml("bystander").replace("<serial type='unix'>", "<serial type='null'>")
    two_daemons.destination.create(bystander, "--paused")
    [other] = two_daemons.destination.qemus()
    serial_tap.wait_more_ticks(5)
    with controller(two_daemons, *SLOWLY) as virsh:
        wait_for(lambda: len(two_daemons.destination.qemus()) == 2, "incoming QEMU")
        [new] = [qemu for qemu in two_daemons.destination.qemus() if qemu != other]
        watched = Watched(new.pid)
        wait_for(lambda: is_copying(two_daemons.source), "memory on its way")
        assert reap_ms(watched, two_daemons.destination.kill()) < REAP_MS_MAX
        assert virsh.wait().code
    two_daemons.destination.start()
    assert two_daemons.destination.qemus() == [other]
    assert two_daemons.destination.guests() == {"bystander"}
    assert two_daemons.source.state(GUEST).startswith("running")
    serial_tap.wait_more_ticks(10).check_one_history()
