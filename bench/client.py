"""Times calls through libvirt-python, in one process and over one connection; prints JSON.

Run by the distribution's Python, which has the binding: `client.py WHAT URI [XML COUNT]`.
Times are milliseconds, `small` is microseconds for a call.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import libvirt

SMALL_CALLS = 2000


def timed_ms(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = call()
    return (time.perf_counter() - start) * 1000, answer


def cycle(connection: Any, xml: str, count: int) -> dict[str, Any]:
    """Create a guest, paused, and destroy it."""
    created, destroyed = [], []
    for _ in range(count):
        took, domain = timed_ms(lambda: connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED))
        created.append(took)
        destroyed.append(timed_ms(domain.destroy)[0])
    return {"create": created, "destroy": destroyed}


def crowd(connection: Any, xml: str, count: int) -> dict[str, Any]:
    """Many guests, paused."""
    for number in range(count):
        connection.createXML(xml.replace("NUMBER", str(number)), libvirt.VIR_DOMAIN_START_PAUSED)
    return {}


def stats(connection: Any, _xml: str, count: int) -> dict[str, Any]:
    """All statistics of all guests in one call."""
    took = []
    for _ in range(count):
        spent, answer = timed_ms(connection.getAllDomainStats)
        took.append(spent)
    return {"stats": took, "guests": len(answer)}


def disperse(connection: Any, _xml: str, _count: int) -> dict[str, Any]:
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        domain.destroy()
    return {}


def small(connection: Any, _xml: str, rounds: int) -> dict[str, Any]:
    """The smallest calls; needs one guest."""
    [domain, *_] = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    found: dict[str, list[float]] = {"hostname": [], "state": []}
    for _ in range(rounds):
        for name, call in (("hostname", connection.getHostname), ("state", domain.state)):
            start = time.perf_counter()
            for _ in range(SMALL_CALLS):
                call()
            found[name].append((time.perf_counter() - start) / SMALL_CALLS * 1e6)
    return {"small": [statistics.mean(pair) for pair in zip(*found.values(), strict=True)]}


def main() -> None:
    what, uri, path, count = sys.argv[1:]
    with open(path) as file:
        xml = file.read()
    connection = libvirt.open(uri)
    print(json.dumps(globals()[what](connection, xml, int(count))))
    connection.close()


main()
