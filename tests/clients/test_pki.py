"""Two hosts paired by `sterna pki`: daemons, unmodified virsh and QEMU believe what it makes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.clients import Ran, run, virsh
from support.daemon import free_port
from support.fixtures import Hosts


def sterna(*words: str) -> Ran:
    return run([sys.executable, "-m", "sterna.cli", *words]).check()


def as_client(pki: Path, pkipath: Path) -> Path:
    """A host's client certificate where `?pkipath=` finds it."""
    pkipath.mkdir()
    for name in ("CA/cacert.pem", "libvirt/clientcert.pem", "libvirt/private/clientkey.pem"):
        shutil.copy(pki / name, pkipath)
    return pkipath


@pytest.fixture
def pair(short_dir: Path) -> tuple[Path, Path]:
    """Both hosts' /etc/pki."""
    first, second = short_dir / "pa", short_dir / "pb"
    file = short_dir / "host-b.pki"
    sterna("pki", "init", "--name", "host-a", "--dir", str(first))
    sterna("pki", "host", "host-b", "--dir", str(first), "--out", str(file))
    sterna("pki", "install", str(file), "--dir", str(second))
    return first, second


@pytest.mark.qemu
def test_a_guest_moves_between_them(
    pair: tuple[Path, Path], hosts: Hosts, short_dir: Path, guest_xml: str
) -> None:
    uris = []
    for name, pki in zip(("alpha", "beta"), pair, strict=True):
        port = free_port()
        config = short_dir / f"{name}.toml"
        config.write_text(
            f'tls = "127.0.0.1:{port}"\npki = "{pki}"\ndecision_port = {free_port()}\n'
            'tls_allowed_dn = ["CN=host-a", "CN=host-b"]\n'
        )
        hosts.start(name, "--config", str(config)).tls_port = port
        uris.append(f"qemu+tls://localhost:{port}/system?pkipath={short_dir}/client")
    as_client(pair[1], short_dir / "client")
    alpha, beta = hosts.daemons
    alpha.create(guest_xml)
    virsh(uris[0], "migrate", "--live", "web1", uris[1], timeout_s=60).check()
    assert beta.state("web1").startswith("running")
    sterna("migrate", "web1", uris[0], "-c", uris[1])
    assert alpha.state("web1").startswith("running")


@pytest.mark.qemu
@pytest.mark.parametrize("endpoint", ["server", "client"])
def test_qemu_takes_them(pair: tuple[Path, Path], endpoint: str) -> None:
    """It checks its own certificates when it is given them."""
    credentials = f"tls-creds-x509,id=tls0,dir={pair[1]}/qemu,endpoint={endpoint},verify-peer=on"
    ran = subprocess.run(
        [
            *("qemu-system-x86_64", "-M", "none", "-display", "none", "-nodefaults"),
            *("-monitor", "stdio", "-object", credentials),
        ],
        input="quit\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
