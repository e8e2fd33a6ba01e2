"""virt-install, virt-xml and virt-clone, unmodified."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.clients import Ran, run
from support.host import Host

pytestmark = pytest.mark.skipif(
    shutil.which("virt-install") is None, reason="virtinst is not installed"
)
PLAIN = ("--virt-type", "qemu", "--memory", "64", "--noautoconsole", "--check", "all=off")


def virt_install(host: Host, *words: str, **more: str) -> Ran:
    """virt-install to the end; its settings stay beside the host."""
    home = str(host.root.parent)
    argv = ["virt-install", "--connect", host.uri, *PLAIN, "--graphics", "none", *words]
    return run(argv, timeout_s=60, env={"HOME": home, **more})


@pytest.fixture
def image(host: Host) -> Path:
    path = host.root.with_name("system.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "16M"], check=True, timeout=20)
    path.chmod(0o666)
    return path


def disk(path: Path) -> str:
    return f"path={path},target.bus=virtio"


def test_an_image_is_imported_edited_and_started(host: Host, image: Path) -> None:
    options = ("--osinfo", "generic", "--network", "user", "--import", "--disk", disk(image))
    ran = virt_install(host, "--name", "one", *options).check()
    assert "Domain creation completed." in ran.out
    assert host.guests() == {"one"}
    host.said("destroy", "one")
    edit = ["virt-xml", "--connect", host.uri, "one", "--edit", "--memory", "96", "--define"]
    run(edit, env={"HOME": str(host.root.parent)}).check()
    assert "<memory unit='KiB'>98304</memory>" in host.said("dumpxml", "one")
    host.said("start", "one")
    assert host.state("one") == "running (booted)"


def test_a_system_is_installed_from_a_disc(host: Host) -> None:
    disc = host.file("disc.iso", "\0" * 2048 * 16)
    options = ("--osinfo", "generic", "--network", "none", "--disk", "none", "--cdrom", disc)
    virt_install(host, "--name", "two", *options, "--wait", "0").check()
    assert host.guests() == {"two"}
    assert disc in host.said("dumpxml", "two")


def test_an_image_is_made_for_a_guest_and_cloned(host: Host) -> None:
    new = host.root.with_name("new.qcow2")
    options = ("--osinfo", "generic", "--network", "user", "--import")
    virt_install(host, "--name", "five", *options, "--disk", f"path={new},size=0.01").check()
    host.said("destroy", "five")
    clone = ["virt-clone", "--connect", host.uri, "-o", "five", "-n", "six", "--auto-clone"]
    run(clone, env={"HOME": str(host.root.parent)}).check()
    host.said("start", "six", "--paused")
    assert str(new) in host.said("dumpxml", "five")
    assert str(new) not in host.said("dumpxml", "six")


@pytest.mark.parametrize(
    "options",
    [
        ("--osinfo", "win10", "--network", "user,model=e1000e"),
        ("--osinfo", "fedora35", "--network", "none", "--boot", "uefi"),
        ("--osinfo", "debian11", "--network", "user", "--console", "pty", "--machine", "pc"),
        ("--osinfo", "ubuntu20.04", "--network", "user", "--transient"),
    ],
    ids=["windows", "uefi", "pc", "transient"],
)
def test_systems_of_all_kinds(host: Host, image: Path, options: tuple[str, ...]) -> None:
    virt_install(host, "--name", "three", *options, "--import", "--disk", disk(image)).check()
    assert host.guests() == {"three"}


def test_what_is_said_without_networks(host: Host) -> None:
    ran = virt_install(host, "--name", "four", "--osinfo", "generic", "--import", "--disk", "none")
    assert ran.code
    assert "Network not found: no network with matching name 'default'" in ran.err + ran.out
