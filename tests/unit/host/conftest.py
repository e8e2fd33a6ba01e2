"""Machines made of files: /proc and /sys trees below a temporary root."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sterna.host.support import CpuDefinition, CpuExpansion, GuestSupport, MachineSupport

CPUINFO = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 23
model\t\t: 1
stepping\t: 2
microcode\t: 0x8001250
cpu MHz\t\t: 2596.122
flags\t\t: fpu sse sse2 sse4_1 pclmulqdq nonstop_tsc constant_tsc xsave avx ibpb stibp
address sizes\t: 48 bits physical, 48 bits virtual

processor\t: 1
vendor_id\t: AuthenticAMD
"""


def write(root: Path, files: dict[str, object]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[dict[str, object]], Path]:
    """Write files below a root of this test; returns the root."""

    def make(files: dict[str, object]) -> Path:
        write(tmp_path, files)
        return tmp_path

    return make


@pytest.fixture
def two_cells(tmp_path: Path) -> Path:
    """A machine of two cells, one socket each, two cores each, two threads each: CPUs 0-7."""
    cpus = {
        # core 0 of cell 0 has threads 0 and 4, and so on.
        cpu: {"socket": (cpu % 4) // 2, "core": cpu % 2, "siblings": f"{cpu % 4},{cpu % 4 + 4}"}
        for cpu in range(8)
    }
    files: dict[str, object] = {
        "proc/cpuinfo": CPUINFO,
        "proc/meminfo": "MemTotal: 8192 kB\nMemFree: 4096 kB\nBuffers: 10 kB\nCached: 20 kB",
        "proc/stat": "cpu  10 1 5 100 7 2 3 0 0 0\ncpu0 4 1 2 50 3 1 1 0 0 0\nintr 1 2 3",
        "sys/devices/system/cpu/present": "0-7",
        "sys/devices/system/cpu/online": "0-7",
        "sys/devices/system/node/online": "0-1",
    }
    for number, members in ((0, "0-1,4-5"), (1, "2-3,6-7")):
        node = f"sys/devices/system/node/node{number}"
        files |= {
            f"{node}/meminfo": f"Node {number} MemTotal: 4096 kB\nNode {number} MemFree: 1024 kB",
            f"{node}/distance": "10 21" if number == 0 else "21 10",
            f"{node}/cpulist": members,
            f"{node}/hugepages/hugepages-2048kB/nr_hugepages": 1,
            f"{node}/hugepages/hugepages-2048kB/free_hugepages": number,
        }
    for cpu, place in cpus.items():
        folder = f"sys/devices/system/cpu/cpu{cpu}"
        files |= {
            f"{folder}/topology/physical_package_id": place["socket"],
            f"{folder}/topology/die_id": 65535,
            f"{folder}/topology/core_id": place["core"],
            f"{folder}/topology/thread_siblings_list": place["siblings"],
            f"{folder}/cache/index0/level": 1,
            f"{folder}/cache/index0/type": "Data",
            f"{folder}/cache/index0/size": "32K",
            f"{folder}/cache/index3/level": 3,
            f"{folder}/cache/index3/id": place["socket"],
            f"{folder}/cache/index3/type": "Unified",
            f"{folder}/cache/index3/size": "32768K",
            f"{folder}/cache/index3/shared_cpu_list": "0-1,4-5"
            if place["socket"] == 0
            else "2-3,6-7",
        }
    write(tmp_path, files)
    return tmp_path


def expansion(vendor: str, family: int, model: int, *features: str) -> CpuExpansion:
    return CpuExpansion(vendor, family, model, 0, frozenset(features) | {"hypervisor", "kvmclock"})


@pytest.fixture
def emulator() -> GuestSupport:
    """A small emulator: two machine types with aliases, four CPU models, KVM and TCG."""
    amd, intel = "AuthenticAMD", "GenuineIntel"
    tcg = {
        "kvm64": expansion(intel, 15, 6, "fpu", "sse"),
        "EPYC-Genoa": expansion(amd, 23, 1, "fpu", "sse", "sse2", "sse4.1", "pclmulqdq", "svm"),
        "Opteron_G1": expansion(amd, 15, 6, "fpu", "sse", "sse2"),
        "Nehalem": expansion(intel, 6, 26, "fpu", "sse", "sse2", "sse4.1", "pclmulqdq"),
        "max": expansion(amd, 15, 107, "fpu", "sse", "sse2", "sse4.1", "svm", "lahf-lm", "vmx-ept"),
    }
    # As KVM does: every model gets the host's vendor.
    kvm = {
        name: expansion(amd, model.family, model.model, *(model.features - {"svm"}))
        for name, model in tcg.items()
    }
    kvm["host"] = expansion(amd, 23, 1, "fpu", "sse", "sse2", "sse4.1", "pclmulqdq", "x2apic")
    names = ("max", "host", "kvm64", "EPYC-Genoa", "EPYC-Genoa-v1", "Opteron_G1", "Nehalem")
    definitions = tuple(
        CpuDefinition(name, ("svm",) if name.startswith("EPYC-Genoa") else ()) for name in names
    )
    return GuestSupport(
        emulator="/usr/bin/qemu-system-x86_64",
        arch="x86_64",
        virt_types=("qemu", "kvm"),
        machines=(
            MachineSupport("pc-q35-7.2", 288),
            MachineSupport("q35", 288, canonical="pc-q35-7.2"),
            MachineSupport("pc-i440fx-1.4", 255, deprecated=True),
            MachineSupport("pc-i440fx-7.2", 255, default=True),
            MachineSupport("pc", 255, canonical="pc-i440fx-7.2"),
        ),
        cpu_definitions={"qemu": definitions, "kvm": definitions},
        cpu_models={"qemu": tcg, "kvm": kvm},
        devices=frozenset({"VGA", "virtio-gpu-pci", "vmgenid"}),
        objects=frozenset({"iothread", "memory-backend-memfd", "rng-random"}),
        displays=frozenset({"vnc"}),
    )
