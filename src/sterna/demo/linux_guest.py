"""A small Linux guest, made on the spot: the distribution's cloud kernel and our own initramfs.

Nothing is installed and no root is needed: apt downloads the kernel's package, dpkg unpacks it into
the cache, and the initramfs is written here, device nodes and all. The guest counts ticks on its
serial console and keeps some memory dirty. Kernel command line, beside the kernel's own words:

    tick_ms=20     milliseconds from tick to tick
    dirty_mib=8    a file in memory of this size is written over and over; 0: not at all

A line typed at the console is answered; `poweroff` turns the guest off.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sterna.demo import initramfs

# In order of preference: Debian's kernel for clouds, Ubuntu's for virtual machines. Each depends on
# the package that really has it.
KERNEL_PACKAGES = ("linux-image-cloud-amd64", "linux-image-virtual", "linux-image-amd64")
KERNEL_WORDS = "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off no_timer_check"
MEMORY_MIB = 256
APT_TIMEOUT_S = 300
BUSYBOX_PLACES = ("/bin/busybox", "/usr/bin/busybox")


class LinuxGuestError(Exception):
    """The guest cannot be made here; the text says what is missing and what to do."""


@dataclass(frozen=True, slots=True)
class LinuxGuest:
    """Files to boot from."""

    kernel: Path
    initrd: Path


def cache_directory() -> Path:
    """Where downloads are kept, by the XDG base directory specification."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "sterna" / "demo"


def build(cache: Path | None = None, say: Callable[[str], None] = lambda _: None) -> LinuxGuest:
    """Make the guest, or find the one made before.

    Blocking: seconds, or as long as downloading some 30 MB takes.

    Args:
        cache: a directory that is kept; None for the user's.
        say: told, in a few words, what is going on when it takes a while.

    Raises:
        LinuxGuestError: there is no apt here, no network, or no such package.
    """
    directory = cache or cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    kernel, initrd = directory / "vmlinuz", directory / "initrd.img"
    if not kernel.exists():
        say("downloading a Linux kernel (about 30 MB, once)")
        _unpack_file(directory, _kernel_package(directory), "boot/vmlinuz-*", kernel)
    busybox = _static_busybox(directory, say)
    made = initramfs.archive(busybox.read_bytes())
    if not initrd.exists() or initrd.read_bytes() != made:
        _write(initrd, made)
    return LinuxGuest(kernel, initrd)


def domain_xml(
    guest: LinuxGuest,
    *,
    name: str,
    uuid: str,
    serial: Path,
    memory_mib: int = MEMORY_MIB,
    tick_ms: int = 20,
    dirty_mib: int = 8,
    emulator: str = "/usr/bin/qemu-system-x86_64",
) -> str:
    """The guest as a domain whose serial console connects to the unix socket `serial`."""
    return f"""<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{guest.kernel}</kernel>
    <initrd>{guest.initrd}</initrd>
    <cmdline>{KERNEL_WORDS} tick_ms={tick_ms} dirty_mib={dirty_mib}</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>{emulator}</emulator>
    <controller type='usb' model='none'/>
    <serial type='unix'><source mode='connect' path='{serial}'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def _static_busybox(directory: Path, say: Callable[[str], None]) -> Path:
    """The system's busybox if it needs no libraries, else one unpacked from its package."""
    unpacked = directory / "busybox"
    for place in (unpacked, *map(Path, BUSYBOX_PLACES)):
        # A dynamic program names its loader at the start of the file (ELF, PT_INTERP).
        if place.exists() and b"/ld-linux" not in place.read_bytes()[:4096]:
            return place
    say("downloading busybox")
    _unpack_file(directory, "busybox-static", "*bin/busybox", unpacked)
    return unpacked


def _apt_options(directory: Path) -> list[str]:
    """Options for apt's tools to find packages: the system's lists, else lists of our own.

    A fresh machine has never run `apt-get update`, and as an ordinary user we can't run it there.
    """
    own = directory / "apt"
    options = [f"-oDir::State={own}/state", f"-oDir::Cache={own}/cache"]
    options += ["-oDir::State::status=/var/lib/dpkg/status", "-oAPT::Sandbox::User="]
    if own.exists():
        return options
    if _dependency([], KERNEL_PACKAGES):
        return ["-oAPT::Sandbox::User="]
    for name in ("state/lists/partial", "cache/archives/partial"):
        (own / name).mkdir(parents=True)
    try:
        _run(["apt-get", "-q", *options, "update"])
    except LinuxGuestError:
        shutil.rmtree(own)
        raise
    return options


def _kernel_package(directory: Path) -> str:
    if package := _dependency(_apt_options(directory), KERNEL_PACKAGES):
        return package
    raise LinuxGuestError(
        f"apt knows none of {', '.join(KERNEL_PACKAGES)}: are main's package sources configured?"
    )


def _dependency(options: Sequence[str], metapackages: Sequence[str]) -> str | None:
    """The versioned kernel package that the first known of these depends on."""
    for metapackage in metapackages:
        try:
            told = _run(["apt-cache", *options, "depends", "--no-recommends", metapackage])
        except LinuxGuestError:
            continue
        for line in told.splitlines():
            kind, _, name = line.strip().partition(": ")
            if kind == "Depends" and name.startswith("linux-image-"):
                return name
    return None


def _unpack_file(directory: Path, package: str, pattern: str, target: Path) -> None:
    """Download a package, take one file out of it, throw the rest away."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        _run(["apt-get", "-q", *_apt_options(directory), "download", package], cwd=Path(scratch))
        [archive] = Path(scratch).glob("*.deb")
        _run(["dpkg", "-x", str(archive), "."], cwd=Path(scratch))
        found = sorted(Path(scratch).glob(pattern)) or sorted(Path(scratch).rglob(pattern))
        if not found:
            raise LinuxGuestError(f"package {package} has no {pattern}")
        _write(target, found[0].read_bytes())


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all; readable by QEMU, whoever it runs as."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    partial.chmod(0o644)
    partial.rename(path)


def _run(argv: Sequence[str], cwd: Path | None = None) -> str:
    """What a tool of the distribution answered."""
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=APT_TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError:
        raise LinuxGuestError(f"{argv[0]} is not here: the demo needs Debian or Ubuntu") from None
    except subprocess.TimeoutExpired:
        raise LinuxGuestError(f"{argv[0]} took more than {APT_TIMEOUT_S} s") from None
    if done.returncode:
        words = done.stderr.strip() or done.stdout.strip()
        raise LinuxGuestError(f"{' '.join(argv[:1])} failed: {words}")
    return done.stdout
