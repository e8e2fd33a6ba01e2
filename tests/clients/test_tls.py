"""TLS with unmodified virsh, with ours, and between ours and the real libvirtd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.certificates import Authority
from support.clients import Ran, run, start_virsh, virsh
from support.daemon import Daemon, free_port
from support.fixtures import Hosts
from support.processes import Watched, wait_for
from support.real_libvirtd import available, two_libvirtds


def sterna(*words: str) -> Ran:
    return run([sys.executable, "-m", "sterna.cli", *words])


@dataclass(frozen=True)
class Secure:
    """Hosts with certificates of one CA, and a client's."""

    hosts: Hosts
    authority: Authority
    directory: Path
    pkipath: Path

    def start(self, name: str, settings: str = "") -> tuple[Daemon, str]:
        """A host, and its URI for TLS."""
        pki = self.authority.server(self.directory / f"{name}.pki")
        config = self.directory / f"{name}.toml"
        port = free_port()
        config.write_text(
            f'tls = "127.0.0.1:{port}"\npki = "{pki}"\ndecision_port = {free_port()}\n{settings}'
        )
        daemon = self.hosts.start(name, "--config", str(config))
        daemon.tls_port = port
        return daemon, f"qemu+tls://127.0.0.1:{port}/system?pkipath={self.pkipath}"

    def identify(self, name: str) -> None:
        """Give a host a client's certificate of its own."""
        there = self.directory / f"{name}.pki" / "libvirt"
        made = self.authority.client(self.directory / f"{name}.client")
        (made / "clientcert.pem").rename(there / "clientcert.pem")
        (made / "clientkey.pem").rename(there / "private" / "clientkey.pem")


@pytest.fixture
def secure(hosts: Hosts, short_dir: Path) -> Secure:
    authority = Authority(short_dir / "ca").make()
    return Secure(hosts, authority, short_dir, authority.client(short_dir / "client"))


def test_virsh_and_ours(secure: Secure, guest_xml: str) -> None:
    alpha, uri = secure.start("alpha")
    alpha.create(guest_xml, "--paused")
    assert virsh(uri, "hostname").check().out.strip() == "alpha"
    # Without a transport a host's name means TLS.
    assert virsh(uri.replace("qemu+tls", "qemu"), "list", "--name").check().lines == ["web1"]
    for form in (uri, uri.replace("qemu+tls", "qemu")):
        assert "web1" in sterna("list", "-c", form).check().out
    assert len(virsh(uri, "dumpxml", "web1").check().out) > 1000


def test_the_hosts_name_is_checked(secure: Secure) -> None:
    _, uri = secure.start("alpha")
    elsewhere = uri.replace("127.0.0.1", "localhost")
    assert (
        "authentication failed: Failed to verify peer's certificate"
        in virsh(elsewhere, "hostname").err
    )
    ours = sterna("list", "-c", elsewhere)
    assert (ours.code, "certificate is not valid for 'localhost'" in ours.err) == (3, True)
    virsh(elsewhere + "&no_verify=1", "hostname").check()
    sterna("list", "-c", elsewhere + "&no_verify=1").check()


def test_clients_that_are_not_wanted(secure: Secure, short_dir: Path) -> None:
    alpha, uri = secure.start("alpha", 'tls_allowed_dn = ["C=GB,O=Sterna,CN=clien?"]\n')
    virsh(uri, "hostname").check()
    (short_dir / "none").mkdir()
    ca = secure.authority.certificate.read_bytes()
    (short_dir / "none" / "cacert.pem").write_bytes(ca)
    other = secure.authority.client(short_dir / "other", "other")
    for pkipath, ours in (
        (short_dir / "none", "certificate required"),
        (other, "the host does not accept our certificate"),
    ):
        unwanted = uri.replace(str(secure.pkipath), str(pkipath))
        assert "Unable to read TLS confirmation" in virsh(unwanted, "hostname").err
        assert ours in sterna("list", "-c", unwanted).err
    assert "tls.client_refused" in alpha.log_path.read_text()


def test_certificates_are_read_again(secure: Secure) -> None:
    alpha, uri = secure.start("alpha")
    pki = secure.directory / "alpha.pki"
    for text, event in (("broken", "tls.certificates_refused"), ("", "tls.certificates_loaded")):
        if text:
            (pki / "libvirt" / "servercert.pem").write_text(text)
        else:
            secure.authority.server(pki)
        os.kill(alpha.pid, signal.SIGHUP)
        wait_for(lambda event=event: event in alpha.log_path.read_text(), event)
        virsh(uri, "hostname").check()


def test_without_certificates_it_does_not_start(short_dir: Path) -> None:
    config = short_dir / "c.toml"
    config.write_text(f'tls = "127.0.0.1:{free_port()}"\npki = "{short_dir}/none"\n')
    words = ("--root", str(short_dir / "x"), "--config", str(config))
    ran = run([sys.executable, "-m", "sterna.server", *words])
    assert (ran.code, ran.err) == (
        1,
        f"sternad: cannot serve TLS: cannot use the CA certificate {short_dir}/none/CA/cacert.pem: "
        "No such file or directory\n",
    )


@pytest.mark.qemu
def test_a_guest_moves_over_it_and_dies_with_its_controller(secure: Secure, guest_xml: str) -> None:
    (alpha, from_here), (beta, to) = secure.start("alpha"), secure.start("beta")
    alpha.create(guest_xml)
    virsh(from_here, "migrate", "--live", "web1", to, timeout_s=60).check()
    assert beta.state("web1").startswith("running")
    # Too slow to end: the controller dies first, and with it the incoming guest (L3).
    virsh(to, "migrate-setspeed", "web1", "1").check()
    moving = start_virsh(to, "migrate", "--live", "web1", from_here)
    [incoming] = wait_for(alpha.qemus, "incoming QEMU")
    watched = Watched(incoming.pid)
    moving.process.kill()
    watched.wait_gone()
    watched.close()
    moving.process.communicate()
    assert beta.state("web1").startswith("running")


@pytest.mark.parametrize("road", [(), ("--tunnelled",)], ids=["direct", "tunnelled"])
def test_a_source_that_drives_shows_its_own_certificate(
    secure: Secure, guest_xml: str, road: tuple[str, ...]
) -> None:
    """That below its setting `pki`; nothing in the URI says where it is."""
    (alpha, from_here), (beta, to) = secure.start("alpha"), secure.start("beta")
    secure.identify("alpha")
    alpha.create(guest_xml)
    words = ("migrate", "--live", "--p2p", *road, "web1", to.partition("?")[0])
    virsh(from_here, *words, timeout_s=60).check()
    assert beta.state("web1") == "running (migrated)"


# -- the real one


@pytest.mark.skipif(not available(), reason="needs root and libvirt-daemon-system")
def test_ours_against_the_real_libvirtd(secure: Secure, short_dir: Path) -> None:
    """Its listener is served in its own network namespace; our client goes there."""
    with two_libvirtds(short_dir, tls=secure.authority) as (real, _):
        uri = f"qemu+tls://{real.address}/system?pkipath={secure.pkipath}"
        listing = [sys.executable, "-m", "sterna.cli", "list", "-c", uri]
        words = ["nsenter", "--target", str(real.pid), "--net", *listing]
        told = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        assert (told.returncode, told.stderr) == (0, "")
        strange = Authority(short_dir / "ca2", "other").make().client(short_dir / "c2")
        (strange / "cacert.pem").write_bytes(secure.authority.certificate.read_bytes())
        words[-1] = uri.replace(str(secure.pkipath), str(strange))
        told = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        assert told.returncode == 3
        assert "does not accept our certificate" in told.stderr
