"""The installed QEMU, asked what it can do."""

from __future__ import annotations

from pathlib import Path

import pytest

from sterna.errors import InternalError
from sterna.qemu import kvm
from sterna.qemu.probe import probe
from support import argv_start

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(argv_start.QEMU is None, reason="no qemu-system-x86_64 here"),
]
QEMU = argv_start.QEMU or ""


async def test_it_tells_what_a_definition_needs(tmp_path: Path) -> None:
    caps = await probe(QEMU, cache_dir=tmp_path, kvm=False)
    assert caps.arch == "x86_64"
    assert caps.default_machine is not None
    assert caps.default_machine.name == caps.machines_by_name["pc"].name
    assert caps.machines_by_name["q35"].default_ram_id == "pc.ram"
    assert {"virtio-blk-pci", "ich9-ahci", "pcie-root-port"} <= caps.devices
    assert {"memory-backend-ram", "iothread", "secret"} <= caps.objects
    assert "qemu64" in {model.name for model in caps.cpus_tcg}
    assert caps.cpus_kvm == ()
    assert "sse2" in caps.host_features_tcg
    assert {"return-path", "pause-before-switchover"} <= caps.migration_capabilities
    assert "migrate-incoming" in caps.commands
    assert not caps.kvm_usable


async def test_it_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await probe(QEMU, cache_dir=tmp_path, kvm=False)
    monkeypatch.setattr("sterna.qemu.probe.QemuProcess.spawn", None)
    assert await probe(QEMU, cache_dir=tmp_path, kvm=False) == first


def cut(directory: Path) -> int:
    """Leave only the beginning of the cached answer; tells how much."""
    (cached,) = directory.iterdir()
    cached.write_text(cached.read_text()[:5000])
    return cached.stat().st_size


async def test_a_broken_cache_is_asked_again(tmp_path: Path) -> None:
    first = await probe(QEMU, cache_dir=tmp_path, kvm=False)
    assert cut(tmp_path) == 5000
    assert await probe(QEMU, cache_dir=tmp_path, kvm=False) == first
    assert cut(tmp_path) == 5000


async def test_a_changed_binary_is_asked_again(tmp_path: Path) -> None:
    binary = tmp_path / "qemu"
    binary.write_text(f'#!/bin/sh\nexec {QEMU} "$@"\n')
    binary.chmod(0o755)
    first = await probe(str(binary), cache_dir=tmp_path / "c", kvm=False)
    binary.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    with pytest.raises(InternalError, match="broken"):
        await probe(str(binary), cache_dir=tmp_path / "c", kvm=False)
    assert first.binary == str(binary)


async def test_what_cannot_be_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="No such file"):
        await probe("/nonexistent/qemu", cache_dir=tmp_path)
    with pytest.raises(InternalError, match="Failed to probe"):
        await probe("/bin/true", cache_dir=tmp_path, kvm=False)


async def test_the_proof_of_kvm_is_a_guest_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The little guest really ends, shown with TCG, for which it needs a longer deadline."""
    monkeypatch.setattr(kvm, "DEADLINE_S", 30.0)
    assert await kvm.runs_guests(QEMU, "tcg")


async def test_a_guest_that_does_not_end_in_time_is_no_proof(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kvm, "DEADLINE_S", 0.0)
    assert not await kvm.runs_guests(QEMU, "tcg")
    assert not await kvm.runs_guests("/bin/true", "tcg")
    assert not await kvm.runs_guests("/nonexistent", "tcg")
