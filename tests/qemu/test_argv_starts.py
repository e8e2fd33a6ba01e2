"""The observed machines really start: QEMU takes each of our command lines."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sterna.config.alias import assign_aliases
from sterna.config.document import parse_domain
from sterna.config.model import DomainDef
from sterna.qemu.argv import LaunchSpec
from sterna.qemu.caps import QemuCaps
from sterna.qemu.probe import probe
from support import argv_cases, argv_start

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(argv_start.QEMU is None, reason="no qemu-system-x86_64 here"),
]

NOT_HERE = {
    "channel-path": "needs a server",
    "kernel": "needs a kernel that is one",
    "disk-block": "needs block devices of the host",
    "disk-lun": "needs block devices of the host",
    "disk-network": "needs servers",
    "disk-volume-missing": "its image is missing on purpose",
    "disk-scsi-models": "this QEMU has no dc-390",
    "net-sockets2": "takes ports",
    "hostdev-pci": "needs the device",
    "hostdev-usb": "needs the device",
    "input-virtio": "needs input devices of the host",
    "smartcard": "needs certificates",
    "vsock": "needs vhost-vsock",
    "memory-locked": "needs the right to lock memory",
    "redirdev": "needs a server",
    "spice-auto": "a display of its own kind of port",
    "serial-types3": "needs a serial port and a pipe",
    "uefi-loader-secure": "needs its variables",
}
"""Machines that need something of the host which a test must not count on."""

TAKES = ("<interface type='bridge'", "<interface type='ethernet'", "type='tcp'", "type='udp'")
"""What takes taps or ports of the host: tested where hosts of their own are made."""

_STARTABLE = [
    name
    for name in argv_cases.names()
    if name not in NOT_HERE
    and not any(word in (case := argv_cases.load(name)).xml for word in TAKES)
    and "<domain type='kvm'" not in case.xml
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("argv") / "images"
    argv_start.make_images(directory)
    return directory


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caps")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shared = Path("/dev/shm")
    for name in ("sh0", "sh1"):
        (shared / f"{name}-{os.getpid()}").unlink(missing_ok=True)


async def caps_of(cache: Path) -> QemuCaps:
    assert argv_start.QEMU is not None
    return await probe(argv_start.QEMU, cache_dir=cache, kvm=False)


def _own_files(d: DomainDef, state: Path) -> None:
    """Directories of sockets, and the guest's own copy of UEFI's variables."""
    for device in d.devices.channels:
        if device.path is not None and device.path.startswith(str(state)):
            Path(device.path).parent.mkdir(parents=True, exist_ok=True)
    if d.os is not None and d.os.nvram is not None and d.os.nvram.template is not None:
        if not Path(d.os.nvram.template).exists():
            pytest.skip("this firmware is not installed here")
        d.os.nvram.path = str(state / "vars.fd")
        shutil.copyfile(d.os.nvram.template, d.os.nvram.path)


@pytest.mark.parametrize("name", _STARTABLE)
async def test_it_starts(name: str, images: Path, cache: Path, state: Path) -> None:
    case = argv_cases.load(name)
    caps = await caps_of(cache)
    if "spice" in case.xml and not caps.spice:
        pytest.skip("this QEMU has no SPICE")
    if "<model type='qxl'" in case.xml and "qxl-vga" not in caps.devices:
        pytest.skip("this QEMU has no QXL")
    xml = case.xml.replace("/images/", f"{images}/").replace("/state/", f"{state}/")
    for shared in ("sh0", "sh1"):
        xml = xml.replace(f"name='{shared}'", f"name='{shared}-{os.getpid()}'")
    d = parse_domain(xml)
    if not case.started:
        assign_aliases(d)
    _own_files(d, state)
    argv_start.keep_off_the_network(d, state)
    assert d.os is not None
    if d.os.machine not in caps.machines_by_name:
        pytest.skip(f"this QEMU has no machine {d.os.machine}")
    spec = LaunchSpec(monitor_fd=-1, state_dir=str(state), now=argv_cases.NOW)
    async with argv_start.started(d, caps, spec) as qemu:
        status = await qemu.execute("query-status", timeout_s=10)
        assert status["status"] == "prelaunch"
        assert (await qemu.execute("query-uuid", timeout_s=10))["UUID"] == str(d.uuid)
