"""libvirt-python, unmodified, against a host: the calls programs make, by method."""

from __future__ import annotations

import textwrap
from typing import Any

from support.clients import py_client
from support.host import Host

PRELUDE = """
import json, sys, threading, time
import libvirt
libvirt.registerErrorHandler(lambda *_: None, None)

def answer(function, *arguments):
    # A value, or what a program catches: code, domain and text.
    try:
        return function(*arguments)
    except libvirt.libvirtError as error:
        return [error.get_error_code(), error.get_error_domain(), error.get_error_message()]
"""


def asked(uri: str, body: str, *words: str) -> Any:
    """What a script prints as JSON; `uri` is its first argument, then `words`."""
    return py_client(PRELUDE + textwrap.dedent(body), uri, *words)


def test_a_host_is_described(host: Host) -> None:
    said = asked(
        host.uri,
        """
        host = libvirt.open(sys.argv[1])
        print(json.dumps({
            "type": host.getType(), "lib": host.getLibVersion(), "secure": host.isSecure(),
            "alive": host.isAlive(), "name": host.getHostname(), "cpus": host.getInfo()[2],
            "map": len(host.getCPUMap()[1]), "model": host.getSecurityModel(),
            "free": host.getFreeMemory(), "cells": len(host.getCellsFreeMemory(0, 1)),
            "stats": sorted(host.getCPUStats(-1)), "memory": sorted(host.getMemoryStats(-1)),
            "caps": host.getCapabilities()[:14], "domcaps": host.getDomainCapabilities()[:20],
            "version": host.getVersion() // 1000000,
        }))
        """,
    )
    assert said["type"] == "QEMU"
    assert said["lib"] >= 9_000_000
    assert said["secure"] == said["alive"] == 1
    assert said["cpus"] == said["map"] > 0
    assert said["model"] == ["none", "0"]
    assert said["free"] > 1 << 20
    assert said["cells"] == 1
    assert said["stats"] == ["idle", "iowait", "kernel", "user"]
    assert said["memory"] == ["buffers", "cached", "free", "total"]
    assert said["caps"] == "<capabilities>"
    assert said["domcaps"] == "<domainCapabilities>"
    assert said["version"] >= 5


def test_what_a_host_has_none_of(host: Host) -> None:
    said = asked(
        host.uri,
        """
        host = libvirt.open(sys.argv[1])
        uuid = "11111111-2222-3333-4444-555555555556"
        print(json.dumps({
            "lists": [len(f()) for f in (
                host.listAllNetworks, host.listAllStoragePools, host.listAllSecrets,
                host.listAllNWFilters, host.listAllNWFilterBindings, host.listNetworks,
                host.listDefinedNetworks, host.listDefinedStoragePools, host.listNWFilters,
                host.listSecrets)],
            "lookups": [answer(f, a)[::2] for f, a in (
                (host.networkLookupByName, "zz"), (host.networkLookupByUUIDString, uuid),
                (host.storagePoolLookupByName, "zz"), (host.storageVolLookupByPath, "/zz"),
                (host.nodeDeviceLookupByName, "zz"), (host.secretLookupByUUIDString, uuid),
                (host.interfaceLookupByName, "zz"), (host.nwfilterLookupByName, "zz"))],
        }))
        """,
    )
    assert said["lists"] == [0] * 10
    uuid = "11111111-2222-3333-4444-555555555556"
    assert said["lookups"] == [
        [43, "Network not found: no network with matching name 'zz'"],
        [43, f"Network not found: no network with matching uuid '{uuid}'"],
        [49, "Storage pool not found: no storage pool with matching name 'zz'"],
        [50, "Storage volume not found: no storage vol with matching path '/zz'"],
        [53, "Node device not found: no node device with matching name 'zz'"],
        [66, f"Secret not found: no secret with matching uuid '{uuid}'"],
        [57, "Interface not found: couldn't find interface named 'zz'"],
        [62, "Network filter not found: no nwfilter with matching name 'zz'"],
    ]


def test_a_guests_life(host: Host, guest_xml: str) -> None:
    said = asked(
        host.uri,
        """
        host = libvirt.open(sys.argv[1])
        guest = host.defineXML(sys.argv[2])
        seen = [guest.ID(), guest.isActive(), guest.isPersistent(), guest.state(), guest.OSType()]
        guest.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        seen += [guest.ID() > 0, guest.isActive(), guest.state(), guest.info()[0]]
        seen += [host.lookupByID(guest.ID()).name(), host.lookupByUUID(guest.UUID()).name()]
        seen += [host.numOfDomains(), len(host.listDomainsID()), host.listDefinedDomains()]
        guest.resume()
        seen.append(guest.state())
        guest.suspend()
        seen.append(guest.state())
        guest.destroy()
        seen += [guest.state(), host.listDefinedDomains()]
        guest.undefine()
        seen.append(answer(guest.state))
        print(json.dumps(seen))
        """,
        guest_xml,
    )
    uuid = said[-1][2].split("'")[1]
    assert said == [
        *(-1, 0, 1, [5, 0], "hvm"),
        *(True, 1, [3, 1], 3),
        *("web1", "web1"),
        *(1, 1, []),
        [1, 5],
        [3, 1],
        *([5, 2], ["web1"]),
        [42, 10, f"Domain not found: no domain with matching uuid '{uuid}' (web1)"],
    ]


def test_wrong_states_are_refused_in_known_words(defined: Host) -> None:
    said = asked(
        defined.uri,
        """
        guest = libvirt.open(sys.argv[1]).lookupByName("web1")
        calls = (guest.destroy, guest.suspend, guest.resume, guest.shutdown, guest.reset,
                 guest.jobInfo, guest.abortJob, guest.memoryStats, guest.controlInfo)
        print(json.dumps([answer(call)[::2] for call in calls] + [answer(guest.managedSave)[::2]]))
        """,
    )
    assert said == [[55, "Requested operation is not valid: domain is not running"]] * 10


def test_arguments_no_caller_should_pass(paused: Host) -> None:
    said = asked(
        paused.uri,
        """
        guest = libvirt.open(sys.argv[1]).lookupByName("web1")
        print(json.dumps([answer(f, *a)[::2] for f, a in (
            (guest.state, (99,)), (guest.XMLDesc, (1024,)), (guest.destroyFlags, (64,)),
            (guest.jobStats, (64,)), (guest.reboot, (8,)),
            (guest.setMetadata, (9, "x", None, None, 1)),
            (guest.setMetadata, (2, "<a/>", None, "http://x", 1)),
            (guest.setMetadata, (1, "a\\nb", None, None, 1)),
            (guest.metadata, (1, "x", 0)),
            (guest.setVcpusFlags, (0, 1)), (guest.setVcpusFlags, (1, 5)),
            (guest.saveFlags, ("/tmp/x", None, 6)),
            (guest.sendKey, (99, 10, [30], 1, 0)), (guest.sendKey, (0, 10, [999], 1, 0)),
        )]))
        """,
    )
    assert said == [
        [8, "unsupported flags (0x63) in function qemuDomainGetState"],
        [8, "unsupported flags (0x400) in function qemuDomainGetXMLDesc"],
        [8, "unsupported flags (0x40) in function qemuDomainDestroyFlags"],
        [8, "unsupported flags (0x40) in function qemuDomainGetJobStats"],
        [8, "unsupported flags (0x8) in function qemuDomainReboot"],
        [8, "invalid argument: unknown metadata type '9'"],
        [8, "key in virDomainSetMetadata must not be NULL"],
        [8, "metadata title can't contain newlines"],
        [8, "uri in virDomainGetMetadata must be NULL"],
        [8, "nvcpus in virDomainSetVcpusFlags must not be zero"],
        [8, "Flag 'VIR_DOMAIN_AFFECT_CONFIG' is required by flag 'VIR_DOMAIN_VCPU_MAXIMUM'"],
        [8, "Flags 'VIR_DOMAIN_SAVE_RUNNING' and 'VIR_DOMAIN_SAVE_PAUSED' are mutually exclusive"],
        [8, "Unsupported codeset '99'"],
        [1, "internal error: cannot translate keycode 999 of linux codeset to qnum keycode"],
    ]


def test_statistics_of_all_guests_in_one_call(paused: Host) -> None:
    said = asked(
        paused.uri,
        """
        host = libvirt.open(sys.argv[1])
        ((guest, stats),) = host.getAllDomainStats()
        ((_, few),) = host.domainListGetStats([guest], libvirt.VIR_DOMAIN_STATS_STATE)
        print(json.dumps([guest.name(), stats, few]))
        """,
    )
    name, stats, few = said
    assert name == "web1"
    assert few == {"state.state": 3, "state.reason": 1}
    assert stats["vcpu.maximum"] >= 1
    assert stats["balloon.rss"] > 0
    assert stats["block.count"] == 0
    assert stats["cpu.time"] > 0


def test_events_reach_every_listener(host: Host, guest_xml: str) -> None:
    """Callbacks for all guests, for one, and the oldest way, on one connection."""
    said = asked(
        host.uri,
        """
        libvirt.virEventRegisterDefaultImpl()
        stop = threading.Event()
        def loop():
            while not stop.is_set():
                libvirt.virEventRunDefaultImpl()
        threading.Thread(target=loop, daemon=True).start()
        host = libvirt.open(sys.argv[1])
        guest = host.defineXML(sys.argv[2])
        seen, done = [], threading.Event()
        def lifecycle(_host, guest, event, detail, who):
            seen.append([who, guest.name(), event, detail])
            if [who, event] == ["one", 5] and len(seen) >= 10:
                done.set()
        kind = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        ids = [host.domainEventRegisterAny(None, kind, lifecycle, "all"),
               host.domainEventRegisterAny(guest, kind, lifecycle, "one")]
        guest.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        guest.resume()
        guest.suspend()
        guest.destroy()
        done.wait(20)
        for number in ids:
            host.domainEventDeregisterAny(number)
        guest.undefine()
        print(json.dumps(seen))
        """,
        guest_xml,
    )
    for who in ("all", "one"):
        mine = [entry[2:] for entry in said if entry[0] == who]
        # started booted, suspended paused, resumed, suspended paused, shutdown by the host, stopped
        assert mine == [[2, 0], [3, 0], [4, 0], [3, 0], [6, 2], [5, 1]], who


def test_many_threads_share_one_connection(paused: Host) -> None:
    said = asked(
        paused.uri,
        """
        host = libvirt.open(sys.argv[1])
        guest = host.lookupByName("web1")
        counts, problems = [], []
        def work():
            try:
                for _ in range(200):
                    guest.state(); host.getHostname(); host.listAllDomains(); guest.XMLDesc()
                counts.append(800)
            except Exception as problem:
                problems.append(repr(problem))
        threads = [threading.Thread(target=work) for _ in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        print(json.dumps([sum(counts), problems]))
        """,
    )
    assert said == [6400, []]


def test_console_by_stream(paused: Host) -> None:
    """Opened once, refused to a second, taken over by force; it ends when the guest does."""
    said = asked(
        paused.uri,
        """
        host = libvirt.open(sys.argv[1])
        guest = host.createXML(sys.argv[2], libvirt.VIR_DOMAIN_START_PAUSED)
        first, second, third = host.newStream(), host.newStream(), host.newStream()
        said = [answer(guest.openConsole, "nosuch", first)[::2]]
        first = host.newStream()
        guest.openConsole(None, first)
        said.append(answer(guest.openConsole, None, second))
        guest.openConsole(None, third, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
        said.append(answer(first.recv, 100))
        guest.destroy()
        said.append(third.recv(100).decode())
        third.finish()
        print(json.dumps(said))
        """,
        PTY_GUEST,
    )
    assert said == [
        [1, "internal error: cannot find character device nosuch"],
        [9, 10, "operation failed: Active console session exists for this domain"],
        [39, 38, "stream had I/O failure"],
        "",
    ]


PTY_GUEST = """
<domain type='qemu'>
  <name>pty1</name>
  <memory unit='MiB'>16</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><serial type='pty'/><console type='pty'/></devices>
</domain>
"""


def test_a_display_through_a_descriptor(host: Host) -> None:
    """Viewers on this machine need no port: they bring a socket, or get one."""
    said = asked(
        host.uri,
        """
        import os, socket
        host = libvirt.open(sys.argv[1])
        guest = host.createXML(sys.argv[2], libvirt.VIR_DOMAIN_START_PAUSED)
        given = guest.openGraphicsFD(0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
        ours, theirs = socket.socketpair()
        guest.openGraphics(0, theirs.fileno(), 0)
        ours.settimeout(10)
        said = [os.read(given, 12).decode(), ours.recv(12).decode(),
                answer(guest.openGraphicsFD, 5, 0), answer(guest.openGraphicsFD, 0, 8)]
        guest.destroy()
        print(json.dumps(said))
        """,
        PTY_GUEST.replace("</devices>", "<graphics type='vnc'/><video/></devices>"),
    )
    assert said == [
        "RFB 003.008\n",
        "RFB 003.008\n",
        [1, 10, "internal error: No graphics backend with index 5"],
        [8, 10, "unsupported flags (0x8) in function qemuDomainOpenGraphicsFD"],
    ]


def test_balloon_statistics_period(paused: Host) -> None:
    said = asked(
        paused.uri,
        """
        host = libvirt.open(sys.argv[1])
        xml = sys.argv[2].replace("</devices>", "<memballoon model='virtio'/></devices>")
        guest = host.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)
        said = [answer(guest.setMemoryStatsPeriod, -1, 1)[::2],
                answer(guest.setMemoryStatsPeriod, 5, 1), "period='5'" in guest.XMLDesc(),
                answer(guest.setMemoryStatsPeriod, 0, 1), "period=" in guest.XMLDesc(),
                answer(guest.pMWakeup)[0]]
        guest.destroy()
        print(json.dumps(said))
        """,
        PTY_GUEST,
    )
    refused = [8, "period in virDomainSetMemoryStatsPeriod must be zero or greater"]
    assert said == [refused, 0, True, 0, False, 1]


def test_read_only_connections(paused: Host) -> None:
    said = asked(
        paused.uri,
        """
        host = libvirt.openReadOnly(sys.argv[1])
        guest = host.lookupByName("web1")
        print(json.dumps([guest.state(), len(guest.XMLDesc()) > 100, answer(guest.destroy)[::2],
                          answer(guest.XMLDesc, libvirt.VIR_DOMAIN_XML_SECURE)[::2]]))
        """,
    )
    assert said == [
        [3, 1],
        True,
        [29, "operation forbidden: read only access prevents virDomainDestroy"],
        [29, "operation forbidden: virDomainGetXMLDesc with secure flag"],
    ]


def test_autodestroy_ends_with_its_connection(host: Host, guest_xml: str) -> None:
    said = asked(
        host.uri,
        """
        watcher = libvirt.open(sys.argv[1])
        owner = libvirt.open(sys.argv[1])
        flags = libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_PAUSED
        guest = owner.createXML(sys.argv[2], flags)
        before = watcher.listDomainsID()
        del guest
        owner.close()
        deadline = time.monotonic() + 10
        while watcher.listDomainsID() and time.monotonic() < deadline:
            pass
        print(json.dumps([len(before), watcher.listDomainsID()]))
        """,
        guest_xml,
    )
    assert said == [1, []]
    assert host.qemus() == []
