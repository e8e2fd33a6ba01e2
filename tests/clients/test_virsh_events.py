"""virsh is told what happens, in order."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from support.clients import Started, start_virsh
from support.host import Host
from support.proxy import Packet, Proxy

REGISTER = 316  # CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY


@contextlib.contextmanager
def watching(host: Host, *words: str, subscriptions: int) -> Iterator[Started]:
    """`virsh event WORDS`, from the moment on when it has subscribed to everything it wants."""
    with Proxy(host.root.with_name("events.sock"), host.socket) as proxy:

        def subscribed(packet: Packet) -> bool:
            replies = [passed for passed in proxy.packets if passed.is_reply(REGISTER)]
            return packet.is_reply(REGISTER) and len(replies) >= subscriptions

        with start_virsh(proxy.uri, "event", *words) as watcher:
            proxy.wait_packet(subscribed)
            yield watcher


def test_event_all(host: Host, guest_xml: str) -> None:
    kinds = len(host.said("event", "--list").split())
    with watching(host, "--all", "--loop", "--timeout", "60", subscriptions=kinds) as watcher:
        path = host.file("guest.xml", guest_xml)
        host.virsh(
            f"define {path}; start web1 --paused; resume web1; suspend web1; destroy web1;"
            " undefine web1"
        ).check()
        watcher.interrupt()
        told = watcher.wait().out
    lifecycle = re.findall(r"event 'lifecycle' for domain '?web1'?: (.*)", told)
    # libvirt 9.0, observed: destroy is a SIGTERM there, and QEMU's farewell is passed on.
    lifecycle = [event for event in lifecycle if event != "Shutdown Finished after host request"]
    assert lifecycle == [
        "Defined Added",
        "Started Booted",
        "Suspended Paused",
        "Resumed Unpaused",
        "Suspended Paused",
        "Stopped Destroyed",
        "Undefined Removed",
    ]


def test_event_of_one_kind_and_guest(host: Host, guest_xml: str) -> None:
    host.define(guest_xml)
    words = ("--event", "lifecycle", "--domain", "web1", "--timeout", "60")
    with watching(host, *words, subscriptions=1) as watcher:
        host.virsh("start", "web1", "--paused").check()
        assert "Started Booted" in watcher.wait().out


def test_event_list(host: Host) -> None:
    assert {"lifecycle", "reboot", "job-completed"} <= set(host.said("event", "--list").split())
