"""The real libvirtd, two hosts of it on this machine: the other side of comparisons.

Each has mount, network and UTS namespaces of its own, so that both believe to be alone in /etc,
/run and /var, and a veth pair between them. Needs root and the package libvirt-daemon-system; the
system's own libvirtd, running or not, is not touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from sterna.host.pki import server_files
from support.certificates import Authority
from support.clients import virsh
from support.host import Host
from support.processes import Process, end_all, processes, wait_for

LIBVIRTD = "/usr/sbin/libvirtd"
NAMESPACES = ("unshare", "--mount", "--net", "--uts")
# What libvirtd takes for its own, and where it really is below the host's root.
BINDS = {
    "etc": "/etc/libvirt",
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}
CACHE = Path("build/libvirtd-cache").absolute()
SCRIPT = """
hostname "$NAME"
ip link set lo up
{ binds }
exec "$LIBVIRTD" $LISTEN -f /etc/libvirt/libvirtd.conf -p /run/libvirt/libvirtd.pid
"""


def available() -> bool:
    """Whether there is a libvirtd that we may run in namespaces."""
    return os.geteuid() == 0 and all(map(shutil.which, (LIBVIRTD, "unshare", "nsenter", "ip")))


def network_namespace(pid: int) -> str | None:
    """Its identity, or None when the process is gone."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


def named(process: Process) -> bool:
    """Whether a QEMU has a guest: probes of capabilities run without one."""
    return any(word.startswith("guest=") for word in process.argv)


class RealLibvirtd(Host):
    """One libvirtd. `address` is where its incoming guests are reached."""

    def __init__(
        self, root: Path, *, name: str, address: str, tls: Authority | None = None
    ) -> None:
        """With a CA it listens for TLS, too."""
        self.root = root
        self.name = name
        self.address = address
        self.tls = tls
        self.socket = root / "run" / "libvirt-sock"
        self.uri = f"qemu+unix:///system?socket={self.socket}"
        self.process: subprocess.Popen[bytes] | None = None
        self._network: str | None = None

    def start(self) -> None:
        for name, place in BINDS.items():
            (self.root / name).mkdir(parents=True, exist_ok=True)
            # The mount points themselves must exist; where the package is, they do.
            Path(place).mkdir(parents=True, exist_ok=True)
        self._configure()
        # What it found out about QEMU takes seconds to find out again: kept from run to run.
        CACHE.mkdir(parents=True, exist_ok=True)
        (self.root / "cache").rmdir()
        (self.root / "cache").symlink_to(CACHE)
        binds = "\n".join(f'mount --bind "$ROOT/{name}" {BINDS[name]}' for name in BINDS)
        environment = {
            "NAME": self.name,
            "ROOT": str(self.root),
            "LIBVIRTD": LIBVIRTD,
            "LISTEN": "--listen" if self.tls else "",
        }
        with (self.root / "output.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*NAMESPACES, "sh", "-euc", SCRIPT.replace("{ binds }", binds)],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._network = wait_for(self._namespace, "namespaces of its own")
        wait_for(self._answers, f"{self.name}'s libvirtd answers", timeout_s=60, every_s=0.1)

    def _namespace(self) -> str | None:
        """Names our network namespace, by which all processes of this host are known."""
        mine = network_namespace(self.pid)
        return mine if mine != network_namespace(os.getpid()) else None

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError((self.root / "output.log").read_text())
        return self.socket.exists() and virsh(self.uri, "uri").code == 0

    def _configure(self) -> None:
        (self.root / "etc" / "libvirtd.conf").write_text(
            f'host_uuid = "{uuid.uuid4()}"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n'
            'unix_sock_group = "root"\nlog_level = 3\n' + self._tls_configuration()
        )
        (self.root / "etc" / "qemu.conf").write_text(
            'security_driver = "none"\nuser = "root"\ngroup = "root"\nstdio_handler = "file"\n'
            "dynamic_ownership = 0\nremember_owner = 0\nnamespaces = []\ncgroup_controllers = []\n"
            f'migration_host = "{self.address}"\nmigration_address = "{self.address}"\n'
        )

    def _tls_configuration(self) -> str:
        if self.tls is None:
            return "listen_tls = 0\n"
        pki = self.tls.server(self.root / "pki", names=f"IP:{self.address}")
        files = server_files(pki)
        return (
            f'listen_tls = 1\nca_file = "{files.ca}"\ncert_file = "{files.certificate}"\n'
            f'key_file = "{files.key}"\n'
        )

    @property
    def pid(self) -> int:
        """libvirtd's: the shell that made the namespaces became it."""
        assert self.process is not None
        return self.process.pid

    def qemus(self) -> list[Process]:
        return [process for process in self._processes() if process.is_qemu and named(process)]

    def _processes(self) -> list[Process]:
        # libvirtd gives QEMU a clean environment and paths that only its mount namespace has.
        return [
            p for p in processes() if self._network and network_namespace(p.pid) == self._network
        ]

    def end_everything(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
            self.process.kill()
            self.process.wait()
        end_all(self._processes())


def inside(libvirtd: RealLibvirtd, *words: str) -> None:
    """Run a command in its network namespace."""
    subprocess.run(
        ["nsenter", "--target", str(libvirtd.pid), "--net", *words], check=True, timeout=20
    )


def link(first: RealLibvirtd, second: RealLibvirtd) -> None:
    """A cable between the two; it goes with their namespaces."""
    pids = str(first.pid), str(second.pid)
    subprocess.run(
        [
            *("ip", "link", "add", "eth0", "netns", pids[0], "type", "veth"),
            *("peer", "name", "eth0", "netns", pids[1]),
        ],
        check=True,
        timeout=20,
    )
    for end in (first, second):
        inside(end, "ip", "address", "add", f"{end.address}/24", "dev", "eth0")
        inside(end, "ip", "link", "set", "eth0", "up")


@contextlib.contextmanager
def two_libvirtds(
    directory: Path, *, tls: Authority | None = None
) -> Iterator[tuple[RealLibvirtd, RealLibvirtd]]:
    """Two hosts that reach each other; everything of theirs is gone afterwards."""
    hosts = (
        RealLibvirtd(directory / "real-a", name="real-a", address="192.0.2.1", tls=tls),
        RealLibvirtd(directory / "real-b", name="real-b", address="192.0.2.2", tls=tls),
    )
    try:
        for host in hosts:
            host.start()
        link(*hosts)
        yield hosts
    finally:
        for host in hosts:
            host.end_everything()
