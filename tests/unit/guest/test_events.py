"""The bus: everybody is told everything, in order, whatever the others do."""

from __future__ import annotations

import logging
from uuid import UUID

import pytest

from sterna.guest import audit
from sterna.guest.events import EventBus, GuestEvent, GuestRef, LifecycleEvent, RebootEvent
from sterna.guest.states import STOPPED_BY, Lifecycle, ShutoffReason, Started

WEB = GuestRef("web", UUID(int=1), 1)


def test_every_listener_hears_every_event_in_order() -> None:
    bus = EventBus()
    first: list[GuestEvent] = []
    second: list[GuestEvent] = []
    bus.subscribe(first.append)
    handle = bus.subscribe(second.append)
    started = LifecycleEvent(WEB, Lifecycle.STARTED, Started.BOOTED)
    bus.emit(started)
    handle.cancel()
    handle.cancel()
    bus.emit(RebootEvent(WEB))
    assert first == [started, RebootEvent(WEB)]
    assert second == [started]


def test_a_failing_listener_keeps_nothing_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = EventBus()
    heard: list[GuestEvent] = []

    def fail(_: GuestEvent) -> None:
        raise RuntimeError("planted")

    bus.subscribe(fail)
    bus.subscribe(heard.append)
    bus.emit(RebootEvent(WEB))
    assert len(heard) == 1
    assert "events.listener_failed" in caplog.text


def test_every_way_to_stop_has_its_word() -> None:
    assert set(STOPPED_BY) == set(ShutoffReason)


def test_an_audit_line_cannot_be_forged_by_a_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "sterna.audit"):
        audit.record("start", "booted", name='a"\nop=x', uuid=UUID(int=1), pid=7, success=True)
    assert caplog.messages == [
        'virt=kvm op=start reason=booted vm="a\\x22\\nop=x"'
        " uuid=00000000-0000-0000-0000-000000000001 vm-pid=7 res=success"
    ]
