"""The monitor's conversation, without any QEMU."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sterna.qemu import qmp_session
from sterna.qemu.qmp_session import Event, Phase, QmpSession, Ready, Reply

GREETING: dict[str, Any] = {
    "QMP": {
        "version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"},
        "capabilities": ["oob"],
    }
}


def line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


def sent(session: QmpSession) -> list[dict[str, Any]]:
    """What the session wants sent, parsed."""
    data = b"".join(item.data for item in session.data_to_send())
    return [json.loads(text) for text in data.splitlines()]


def ready_session(capabilities: list[str] | None = None) -> QmpSession:
    session = QmpSession()
    greeting = {"QMP": {**GREETING["QMP"], "capabilities": capabilities or []}}
    session.receive_data(line(greeting))
    session.data_to_send()
    session.receive_data(line({"return": {}, "id": 0}))
    assert session.phase is Phase.READY
    return session


def test_greeting_is_answered_and_commands_wait_for_the_negotiation() -> None:
    session = QmpSession()
    first = session.command("query-status")
    assert sent(session) == []
    assert session.receive_data(line(GREETING)) == []
    assert sent(session) == [
        {"execute": "qmp_capabilities", "id": 0, "arguments": {"enable": ["oob"]}}
    ]
    messages = session.receive_data(line({"return": {}, "id": 0}))
    assert messages == [Ready((7, 2, 22), "Debian", oob=True)]
    assert sent(session) == [{"execute": "query-status", "id": first}]


def test_replies_are_matched_by_id_whatever_their_order() -> None:
    session = ready_session()
    one, two = session.command("a"), session.command("b", {"x": 1})
    assert sent(session) == [
        {"execute": "a", "id": one},
        {"execute": "b", "id": two, "arguments": {"x": 1}},
    ]
    data = line({"return": [2], "id": two}) + line(
        {"error": {"class": "GenericError", "desc": "no"}, "id": one}
    )
    assert session.receive_data(data) == [
        Reply(two, [2]),
        Reply(one, error=("GenericError", "no")),
    ]


def test_events_come_between_replies_in_qemus_order() -> None:
    session = ready_session()
    one = session.command("stop")
    event = {"timestamp": {"seconds": 3, "microseconds": 5}, "event": "STOP"}
    messages = session.receive_data(line(event) + line({"return": {}, "id": one}))
    assert messages == [Event("STOP", {}, 3_000_005), Reply(one, {})]


@given(cuts=st.lists(st.integers(0, 400), max_size=8))
def test_the_cuts_of_the_stream_do_not_matter(cuts: list[int]) -> None:
    data = (
        line(GREETING)
        + line({"return": {}, "id": 0})
        + line({"timestamp": {"seconds": 1, "microseconds": 0}, "event": "E", "data": {"ü": "\n"}})
    )
    session, messages = QmpSession(), []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        messages += session.receive_data(data[start:end])
    assert messages == [Ready((7, 2, 22), "Debian", oob=True), Event("E", {"ü": "\n"}, 1_000_000)]


def test_at_most_eight_commands_are_in_flight() -> None:
    session = ready_session()
    ids = [session.command("query-block") for _ in range(20)]
    assert [message["id"] for message in sent(session)] == ids[: qmp_session.IN_FLIGHT_MAX]
    session.receive_data(line({"return": [], "id": ids[0]}))
    assert [message["id"] for message in sent(session)] == [ids[8]]


def test_out_of_band_overtakes_what_waits() -> None:
    session = ready_session(["oob"])
    for _ in range(20):
        session.command("query-block")
    session.data_to_send()
    urgent = session.command("yank", {"instances": []}, oob=True)
    assert sent(session) == [{"exec-oob": "yank", "id": urgent, "arguments": {"instances": []}}]


def test_out_of_band_is_sent_in_band_where_qemu_does_not_offer_it() -> None:
    session = ready_session()
    identity = session.command("yank", oob=True)
    assert sent(session) == [{"execute": "yank", "id": identity}]


def test_two_commands_with_descriptors_are_never_in_flight_together() -> None:
    session = ready_session()
    one = session.command("getfd", {"fdname": "a"}, fds=[5])
    session.command("query-status")
    two = session.command("getfd", {"fdname": "b"}, fds=[6])
    out = session.data_to_send()
    assert [item.fds for item in out] == [(5,), ()]
    assert session.data_to_send() == []
    session.receive_data(line({"return": {}, "id": one}))
    (item,) = session.data_to_send()
    assert item.fds == (6,)
    assert json.loads(item.data)["id"] == two


def test_a_command_not_yet_sent_can_be_withdrawn() -> None:
    session = ready_session()
    ids = [session.command("query-block") for _ in range(9)]
    assert session.withdraw(ids[8])
    assert not session.withdraw(ids[0])
    session.data_to_send()
    session.receive_data(line({"return": [], "id": ids[0]}))
    assert sent(session) == []


def test_too_many_waiting_commands_are_refused() -> None:
    session = QmpSession()
    for _ in range(qmp_session.WAITING_MAX):
        session.command("x")
    with pytest.raises(RuntimeError, match="wait"):
        session.command("x")


@pytest.mark.parametrize(
    "bad",
    [
        b"hello\n",
        b"[]\n",
        b'{"QMP": {}}\n',
        b'{"QMP": {"version": {"qemu": {}}, "capabilities": 3}}\n',
        b'{"return": {}, "id": 77}\n',
        b'{"return": {}}\n',
        b'{"event": "X"}\n',
        b'{"event": "X", "timestamp": {"seconds": "1"}}\n',
        b'{"error": "x", "id": 1}\n',
        b'{"error": {"class": "GenericError", "desc": "JSON parse error"}}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"greetings": 1}\n',
    ],
)
def test_a_breach_fails_the_session_and_the_rest_is_discarded(bad: bytes) -> None:
    session = QmpSession()
    assert session.receive_data(bad + line(GREETING)) == []
    assert session.phase is Phase.FAILED
    assert session.failure
    assert session.receive_data(line(GREETING)) == []
    with pytest.raises(RuntimeError):
        session.command("x")


def test_a_refused_negotiation_fails() -> None:
    session = QmpSession()
    session.receive_data(line(GREETING))
    session.receive_data(line({"error": {"class": "GenericError", "desc": "no"}, "id": 0}))
    assert session.failure == "QEMU refused to negotiate: no"


def test_a_second_greeting_is_a_breach() -> None:
    session = ready_session()
    session.receive_data(line(GREETING))
    assert session.phase is Phase.FAILED


def test_a_message_without_end_is_not_collected_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qmp_session, "LINE_BYTES_MAX", 1000)
    session = QmpSession()
    session.receive_data(b" " * 999)
    assert session.failure is None
    session.receive_data(b" " * 2)
    assert session.failure is not None


def test_the_end_of_the_stream_fails_it_once() -> None:
    session = ready_session()
    session.receive_eof()
    assert session.failure == "qemu unexpectedly closed the monitor"
    session.receive_eof()


@given(st.binary(max_size=300))
def test_no_input_raises(data: bytes) -> None:
    session = QmpSession()
    session.receive_data(data)
    ready = ready_session()
    ready.command("query-status")
    ready.receive_data(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["QMP", "return", "error", "event", "id", "data", "timestamp"]), inner
        )
    ),
    max_leaves=8,
)


@given(st.lists(_JSON, max_size=4))
def test_no_message_raises(messages: list[Any]) -> None:
    session = ready_session()
    session.command("query-status")
    for message in messages:
        session.receive_data(line(message))
