"""Real taps in a network namespace of the test's own; without the rights for one, only refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sterna.errors import InvalidArg, SystemCallError
from sterna.host import tap

SCRIPT = """
import os, subprocess
from sterna.errors import OperationFailed, SystemCallError
from sterna.host import tap
from sterna.host.netstat import interface_counters

def show(name):
    return subprocess.run(["ip", "-o", "link", "show", name], capture_output=True, text=True).stdout

def refused(call, *args):
    try:
        call(*args)
    except (SystemCallError, OperationFailed) as error:
        return str(error)
    raise AssertionError("it should have been refused")

one = tap.open_tap()
assert (one.name, len(one.fds)) == ("vnet0", 1), one
assert os.get_inheritable(one.fds[0]) is False
many = tap.open_tap("many", queues=3)
assert len(many.fds) == 3
assert "Device or resource busy" in refused(tap.open_tap, "vnet0")

tap.set_mac("vnet0", tap.tap_mac("52:54:00:AA:bb:cc"))
tap.set_mtu("vnet0", 1400)
tap.set_up("vnet0")
shown = show("vnet0")
assert "fe:54:00:aa:bb:cc" in shown and "mtu 1400" in shown and "UP" in shown, shown
tap.set_up("vnet0", False)
assert "UP" not in show("vnet0")

subprocess.run(["ip", "link", "add", "br0", "type", "bridge"], check=True)
tap.attach_to_bridge("br0", "vnet0")
assert "master br0" in show("vnet0")
assert "busy" in refused(tap.attach_to_bridge, "br0", "vnet0")
assert "No such device" in refused(tap.attach_to_bridge, "br1", "vnet0")
assert "not a bridge" in refused(tap.attach_to_bridge, "vnet0", "many")

assert "vnet0" in interface_counters()
one.close()
assert not show("vnet0")
many.close()
assert not show("many")
"""


def test_taps_in_a_namespace(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    apart = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "-r", "--net"]
    able = subprocess.run([*apart, "true"], check=False, capture_output=True)
    if able.returncode or not os.access(tap.TUN_DEVICE, os.R_OK | os.W_OK):
        pytest.skip("no network namespace or no tun driver here")
    done = subprocess.run(
        [*apart, sys.executable, script],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr


def test_no_tun_driver(tmp_path: Path) -> None:
    with pytest.raises(SystemCallError, match=r"Unable to open .*: No such file"):
        tap.open_tap(device=str(tmp_path / "tun"))


def test_no_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    (tmp_path / "tun").touch()
    monkeypatch.setattr("fcntl.ioctl", refuse)
    with pytest.raises(SystemCallError, match=r"needs root or CAP_NET_ADMIN.*not permitted"):
        tap.open_tap(device=str(tmp_path / "tun"))


@pytest.mark.parametrize("name", ["", "x" * 16, "a/b"])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidArg, match="network interface"):
        tap.set_up(name)


@pytest.mark.parametrize("mac", ["", "52:54", "zz:zz:zz:zz:zz:zz"])
def test_bad_macs(mac: str) -> None:
    with pytest.raises(InvalidArg, match="MAC address"):
        tap.set_mac("lo", mac)


def test_too_many_queues() -> None:
    with pytest.raises(InvalidArg, match="257 queues"):
        tap.open_tap(queues=257)
