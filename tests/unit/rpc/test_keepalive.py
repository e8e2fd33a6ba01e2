"""When pings go out and when a peer is given up. Time is only an argument here."""

from __future__ import annotations

from sterna.rpc.calls import KEEPALIVE_PROGRAM, Keepalive
from sterna.rpc.frame import PacketType, build
from sterna.rpc.keepalive import Due, KeepaliveTimer
from sterna.rpc.session import Limits
from support.wire import call_packet, events, packets, server, take_output


def run(timer: KeepaliveTimer, until: float) -> list[tuple[float, Due]]:
    """Everything that falls due, if nothing is ever heard."""
    found = []
    while (now := timer.deadline()) is not None and now <= until:
        due = timer.tick(now)
        found.append((now, due))
        if due is Due.DEAD:
            break
    return found


def test_the_schedule_of_libvirtd() -> None:
    timer = KeepaliveTimer(0.0)
    timer.allow(5.0, 5, 0.0)
    assert run(timer, 100) == [(5.0 * n, Due.PING) for n in range(1, 6)] + [(30.0, Due.DEAD)]


def test_without_permission_nothing_is_sent() -> None:
    timer = KeepaliveTimer(0.0)
    timer.limit_silence(5.0, 0.0)
    assert timer.deadline() is None
    assert timer.tick(1000.0) is Due.NOTHING


def test_anything_heard_starts_anew() -> None:
    timer = KeepaliveTimer(0.0)
    timer.allow(5.0, 1, 0.0)
    assert timer.tick(5.0) is Due.PING
    timer.heard(7.0)
    assert timer.tick(11.9) is Due.NOTHING
    assert timer.tick(12.0) is Due.PING
    assert timer.tick(17.0) is Due.DEAD


def test_a_silence_limit_ends_within_its_budget() -> None:
    timer = KeepaliveTimer(0.0)
    timer.allow(5.0, 5, 0.0)
    timer.limit_silence(5.0, 0.0)
    found = run(timer, 100)
    assert [due for _, due in found] == [Due.PING] * 4 + [Due.DEAD]
    assert found[-1][0] <= 5.0 + 1e-9
    timer.limit_silence(None, 10.0)
    assert timer.deadline() == 15.0


def test_a_limit_longer_than_usual_changes_nothing() -> None:
    timer = KeepaliveTimer(0.0)
    timer.allow(1.0, 3, 0.0)
    timer.limit_silence(60.0, 0.0)
    assert run(timer, 100)[-1] == (4.0, Due.DEAD)


def test_our_own_sleep_is_not_the_peers_death() -> None:
    timer = KeepaliveTimer(0.0)
    timer.allow(5.0, 2, 0.0)
    assert timer.tick(3600.0) is Due.PING
    assert timer.tick(3600.0) is Due.NOTHING
    assert timer.tick(3605.0) is Due.PING
    assert timer.tick(3610.0) is Due.DEAD


def test_an_interval_of_zero_switches_off() -> None:
    timer = KeepaliveTimer(0.0)
    timer.allow(5.0, 5, 0.0)
    timer.allow(0.0, 5, 0.0)
    assert timer.deadline() is None


def ping() -> bytes:
    return bytes(build(KEEPALIVE_PROGRAM, Keepalive.PING, PacketType.MESSAGE, 0))


def test_pings_are_answered_though_no_more_calls_are_served() -> None:
    session = server(Limits(calls_running_max=2, calls_running_extra=0))
    calls = b"".join(call_packet("CONNECT_GET_CAPABILITIES", serial=n) for n in range(10))
    session.receive(calls + ping(), (), 0.0)
    assert len(list(events(session))) == 2
    (pong,) = packets(take_output(session))
    assert (pong.program, pong.procedure) == (KEEPALIVE_PROGRAM, Keepalive.PONG)


def test_unknown_keepalive_procedures_are_ignored() -> None:
    session = server()
    session.receive(bytes(build(KEEPALIVE_PROGRAM, 9, PacketType.MESSAGE, 0)), (), 0.0)
    assert list(events(session)) == []
    assert not session.output
    assert session.failure is None


def test_a_silent_peer_is_given_up() -> None:
    session = server()
    assert session.deadline() is None
    session.keepalive.allow(1.0, 2, 0.0)
    for now in (1.0, 2.0):
        assert session.deadline() == now
        session.tick(now)
        assert session.failure is None
    session.tick(3.0)
    assert "silent" in str(session.failure)
    assert session.deadline() is None
    session.tick(4.0)


def test_silence_proves_nothing_while_we_do_not_read() -> None:
    session = server(Limits(calls_running_max=1, calls_running_extra=0, calls_waiting_max=1))
    session.keepalive.allow(1.0, 0, 0.0)
    calls = [call_packet("CONNECT_GET_CAPABILITIES", serial=n) for n in range(3)]
    session.receive(b"".join(calls), (), 0.0)
    (call,) = events(session)
    assert not session.wants_input
    session.tick(1.0)
    assert session.failure is None
    from sterna.rpc.msg_connect import ConnectGetCapabilitiesRet

    session.reply(call, ConnectGetCapabilitiesRet("x"))
    take_output(session)
    list(events(session))
    session.tick(5.0)


def test_a_peer_that_does_not_read_is_given_up_as_well() -> None:
    session = server(Limits(output_bytes_high=10))
    session.keepalive.allow(1.0, 1, 0.0)
    session.receive(ping(), (), 0.0)
    list(events(session))
    assert not session.wants_input
    session.tick(1.0)
    session.sent(1)  # it took something: it lives
    session.tick(2.0)
    assert session.failure is None
    session.tick(3.0)
    session.tick(4.0)
    assert "silent" in str(session.failure)
