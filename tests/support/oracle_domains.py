"""Record what a real libvirtd makes of our test machines.

Run as root on a machine with libvirtd 9.0, QEMU 7.2 and python3-libvirt::

    /usr/bin/python3 tests/support/oracle_domains.py

It starts a libvirtd of its own in fresh mount, network and UTS namespaces, with empty directories,
so that the machine's own libvirt is not touched. For each tests/data/domains/in/NAME.xml it writes
inactive/NAME.xml (define, dumpxml --inactive), or refused/NAME.txt (code and text), and for
machines that start here live/NAME.xml and migratable/NAME.xml. It answers each case of small.json
in place.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent.parent / "data" / "domains"
EMPTY_DIRS = ("/etc/libvirt", "/var/lib/libvirt", "/run/libvirt", "/var/log/libvirt",
              "/var/cache/libvirt")  # fmt: skip
IMAGES = "/var/lib/libvirt/images"
LIBVIRTD_CONF = 'host_uuid = "11111111-2222-3333-4444-555555555555"\nauth_unix_rw = "none"\n'
QEMU_CONF = """\
security_driver = "none"
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
user = "root"
group = "root"
remember_owner = 0
"""
START_TIMEOUT_S = 20


def main() -> None:
    parser = argparse.ArgumentParser(description="record libvirt's answers")
    parser.add_argument("--inside", action="store_true", help="already in the namespaces")
    parser.add_argument("--no-live", action="store_true", help="do not start machines")
    parser.add_argument("names", nargs="*", help="only these machines")
    options = parser.parse_args()
    if not options.inside:
        command = ["unshare", "-m", "-n", "-u", sys.executable, __file__, "--inside"]
        os.execvp(command[0], [*command, *sys.argv[1:]])
    daemon = start_libvirtd()
    try:
        record(connect(), options.names, live=not options.no_live)
    finally:
        daemon.terminate()
        daemon.wait(START_TIMEOUT_S)


def start_libvirtd() -> subprocess.Popen[bytes]:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for path in EMPTY_DIRS:
        Path(path).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
    Path("/etc/libvirt/libvirtd.conf").write_text(LIBVIRTD_CONF)
    Path("/etc/libvirt/qemu.conf").write_text(QEMU_CONF)
    Path(IMAGES).mkdir()
    return subprocess.Popen(
        ["libvirtd", "--pid-file", "/run/libvirt/oracle.pid"], stderr=subprocess.DEVNULL
    )


def connect() -> Any:
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return libvirt.open("qemu:///system")
        except libvirt.libvirtError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def record(connection: Any, names: list[str], *, live: bool) -> None:
    for kind in ("inactive", "refused", "live", "migratable"):
        (DATA / kind).mkdir(exist_ok=True)
    for source in sorted((DATA / "in").glob("*.xml")):
        if not names or source.stem in names:
            record_machine(connection, source, live=live)
    if not names:
        path = DATA / "small.json"
        cases = json.loads(path.read_text()) if path.exists() else []
        answered = [answer(connection, case) for case in cases]
        lines = ",\n".join(json.dumps(case) for case in answered)
        path.write_text(f"[\n{lines}\n]\n")


def answer(connection: Any, case: dict[str, Any]) -> dict[str, Any]:
    """One small case: the text libvirt keeps, or its refusal."""
    kept, refusal = define(connection, case["xml"])
    if kept is None:
        return {"xml": case["xml"], "refused": refusal}
    return {"xml": case["xml"], "inactive": kept}


def define(connection: Any, xml: str) -> tuple[str | None, list[Any]]:
    import libvirt

    try:
        domain = connection.defineXMLFlags(xml, 0)
    except libvirt.libvirtError as why:
        return None, [why.get_error_code(), why.get_error_domain(), str(why)]
    flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    try:
        return domain.XMLDesc(flags), []
    finally:
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)


def record_machine(connection: Any, source: Path, *, live: bool) -> None:
    xml = source.read_text()
    kept, refusal = define(connection, xml)
    for kind in ("inactive", "refused"):
        (DATA / kind / source.with_suffix(".txt" if kind == "refused" else ".xml").name).unlink(
            missing_ok=True
        )
    if kept is None:
        (DATA / "refused" / f"{source.stem}.txt").write_text(f"{refusal[0]} {refusal[2]}\n")
        print(source.stem, "refused:", refusal[2])
        return
    (DATA / "inactive" / source.name).write_text(kept)
    if live:
        record_live(connection, source, kept)


def record_live(connection: Any, source: Path, kept: str) -> None:
    """Start it paused, if it can be started here; keep its live and its migratable text."""
    import libvirt

    for image in re.findall(rf"'({IMAGES}/[^']+)'", kept):
        if not Path(image).exists():
            subprocess.run(["qemu-img", "create", "-q", image, "16M"], check=True)
    for kind in ("live", "migratable"):
        (DATA / kind / source.name).unlink(missing_ok=True)
    try:
        domain = connection.createXML(source.read_text(), libvirt.VIR_DOMAIN_START_PAUSED)
    except libvirt.libvirtError as why:
        print(source.stem, "does not start here:", str(why)[:120])
        return
    try:
        flags = libvirt.VIR_DOMAIN_XML_SECURE
        (DATA / "live" / source.name).write_text(domain.XMLDesc(flags))
        flags |= libvirt.VIR_DOMAIN_XML_MIGRATABLE
        (DATA / "migratable" / source.name).write_text(domain.XMLDesc(flags))
    finally:
        domain.destroy()


if __name__ == "__main__":
    main()
