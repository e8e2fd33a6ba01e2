"""`virsh migrate --tls`: QEMU encrypts what it sends, and trusts nobody else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qemu.moving import GUEST, QUICK, check_moved, check_stayed, is_copying, migrate_words
from support.clients import sterna
from support.daemon import Daemon
from support.fixtures import Hosts, MakeGuest, TwoDaemons
from support.processes import wait_for
from support.qemu_certificates import make_authority, make_host
from support.relay import Relay
from support.serial import SerialTap

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(180)]

TLS = ("--tls", "--tls-destination", "moves.test")
MAGIC = b"QEVM"
"""What QEMU's migration stream begins with (docs/devel/migration.rst, 7.2)."""


def start(hosts: Hosts, name: str, tls_dir: Path, *, force: bool = False) -> Daemon:
    config = hosts.directory / f"{name}.toml"
    config.write_text(
        f'migration_tls_dir = "{tls_dir}"\nmigration_tls_force = {str(force).lower()}\n'
    )
    return hosts.start(name, "--config", str(config))


@pytest.fixture
def authority(short_dir: Path) -> Path:
    return make_authority(short_dir / "ca")


@pytest.fixture
def pki(short_dir: Path, authority: Path) -> Path:
    """Both daemons are on this machine, so one set of certificates does for both."""
    return make_host(authority, short_dir / "pki", "DNS:moves.test,IP:127.0.0.1")


@pytest.fixture
def run_at(serial_tap: SerialTap, tick_guest_xml: MakeGuest) -> Callable[[Daemon], None]:
    def run(source: Daemon) -> None:
        source.create(tick_guest_xml(GUEST, QUICK))
        serial_tap.wait_more_ticks(5)

    return run


def migrate(hosts: TwoDaemons, *options: str) -> None:
    hosts.source.said(*migrate_words(hosts.destination, *options), timeout_s=90)


def refused(hosts: TwoDaemons, *options: str) -> str:
    return hosts.source.refused(*migrate_words(hosts.destination, *options), timeout_s=90)


def overheard(hosts: TwoDaemons, *options: str) -> bytes:
    """Migrate; what anybody on the way has seen."""
    heard: list[bytes] = []
    relay = Relay("127.0.0.1", ("127.0.0.2", 0), heard.append)
    relay.target = ("127.0.0.2", relay.port)
    try:
        uri = f"tcp://127.0.0.1:{relay.port}"
        migrate(hosts, "--migrateuri", uri, "--listen-address", "127.0.0.2", *options)
    finally:
        relay.close()
    return b"".join(heard)


def test_nobody_on_the_way_can_read_it(
    hosts: Hosts, pki: Path, serial_tap: SerialTap, run_at: Callable[[Daemon], None]
) -> None:
    two = TwoDaemons(start(hosts, "alpha", pki), start(hosts, "beta", pki))
    run_at(two.source)
    heard = overheard(two, *TLS)
    check_moved(two, serial_tap)
    serial_tap.wait_verified(time.monotonic_ns())
    assert len(heard) > 1 << 20
    assert MAGIC not in heard
    back = TwoDaemons(two.destination, two.source)
    assert MAGIC in overheard(back)  # in the clear it is there, and nothing of TLS stays set
    check_moved(back, serial_tap)
    migrate(two, *TLS, "--parallel")
    check_moved(two, serial_tap)
    migrate(back, *TLS)
    check_moved(back, serial_tap)


def test_another_name_in_the_certificate(
    hosts: Hosts, pki: Path, serial_tap: SerialTap, run_at: Callable[[Daemon], None]
) -> None:
    two = TwoDaemons(start(hosts, "alpha", pki), start(hosts, "beta", pki))
    run_at(two.source)
    told = refused(two, "--tls", "--tls-destination", "other.test")
    # virsh shows the destination's words instead of the source's, which `sterna history` has.
    assert "Cannot read from TLS channel" in told
    assert "Certificate does not match the hostname other.test" in two.source.log_text()
    check_stayed(two, serial_tap)
    # Its credentials were taken away again: they can be given anew.
    migrate(two, *TLS)
    check_moved(two, serial_tap)


def test_another_authority(
    hosts: Hosts, pki: Path, serial_tap: SerialTap, run_at: Callable[[Daemon], None]
) -> None:
    other = make_authority(pki.with_name("ca2"))
    strange = make_host(other, pki.with_name("pki2"), "DNS:moves.test")
    two = TwoDaemons(start(hosts, "alpha", pki), start(hosts, "beta", strange))
    run_at(two.source)
    assert "certificate" in refused(two, *TLS).lower()
    check_stayed(two, serial_tap)


@pytest.mark.parametrize("lacking", ["alpha", "beta"])
def test_missing_certificates(
    hosts: Hosts,
    pki: Path,
    serial_tap: SerialTap,
    run_at: Callable[[Daemon], None],
    lacking: str,
) -> None:
    places = dict.fromkeys(("alpha", "beta"), pki)
    places[lacking] = pki.with_name("nowhere")
    two = TwoDaemons(*(start(hosts, name, place) for name, place in places.items()))
    run_at(two.source)
    told = refused(two, *TLS)
    assert "unable to execute QEMU command 'object-add': Unable to access credentials" in told
    check_stayed(two, serial_tap)
    migrate(two)
    check_moved(two, serial_tap)


def test_a_host_that_wants_nothing_in_the_clear(
    hosts: Hosts, pki: Path, serial_tap: SerialTap, run_at: Callable[[Daemon], None]
) -> None:
    two = TwoDaemons(start(hosts, "alpha", pki), start(hosts, "beta", pki, force=True))
    run_at(two.source)
    assert "host beta migrates guests only encrypted" in refused(two)
    check_stayed(two, serial_tap)
    words = ("migrate", GUEST, str(two.destination.root), "--tls", "--tls-name", "moves.test")
    sterna(two.source.root, *words).check()
    check_moved(two, serial_tap)
    back = TwoDaemons(two.destination, two.source)
    assert "host beta migrates guests only encrypted" in refused(back)
    check_stayed(back, serial_tap)


def test_an_encrypted_post_copy_is_taken_back(
    hosts: Hosts, pki: Path, run_at: Callable[[Daemon], None], serial_tap: SerialTap
) -> None:
    """The destination dies before it decided. Whom the source's QEMU is joined to then, to let go
    of the migration, has no certificate. (L2)"""
    pair = TwoDaemons(start(hosts, "alpha", pki), start(hosts, "beta", pki))
    run_at(pair.source)
    words = migrate_words(pair.destination, *TLS, "--postcopy", "--bandwidth", "4")
    with pair.source.start_virsh(*words, "--postcopy-bandwidth", "2") as controller:
        wait_for(lambda: is_copying(pair.source), "memory on its way")
        pair.destination.freeze()
        pair.source.said("migrate-postcopy", GUEST)
        wait_for(lambda: pair.source.state(GUEST) == "paused (post-copy)", "post-copy")
        pair.destination.kill()
        assert controller.wait().code != 0
    wait_for(lambda: pair.destination.qemus() == [], "the guardian's work")
    pair.destination.start()
    wait_for(lambda: pair.source.state(GUEST).startswith("running"), "the guest again")
    check_stayed(pair, serial_tap)
