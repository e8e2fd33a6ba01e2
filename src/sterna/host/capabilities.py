"""CONNECT_GET_CAPABILITIES: what this host is and which guests it can run."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sterna.host.cpu import VENDORS, BestModel, HostCpu, best_model, host_cpu, named_models
from sterna.host.files import ROOT, format_cpu_list
from sterna.host.node import NodeInfo, node_info
from sterna.host.support import GuestSupport
from sterna.host.topology import Cell, cache_banks, cells
from sterna.host.xmltext import XmlText

_WORD_BITS = {"i686": 32, "x86_64": 64}


@dataclass(frozen=True, slots=True)
class TscCounter:
    """The host's time stamp counter: its rate, and whether KVM can give guests another."""

    frequency_hz: int
    scaling: bool


def capabilities_xml(
    host_uuid: uuid.UUID,
    supports: Sequence[GuestSupport],
    *,
    guest_ids: tuple[int, int] | None = None,
    tsc: TscCounter | None = None,
    root: Path = ROOT,
) -> str:
    """Return the `<capabilities>` document.

    Args:
        supports: the emulators found here, the host's own architecture first.
        guest_ids: user and group of QEMU processes, None where the daemon can't choose them.
        tsc: the time stamp counter as KVM tells it (`sterna.host.kvm`), None if unknown.
    """
    xml = XmlText()
    with xml.element("capabilities"):
        xml.blank()
        with xml.element("host"):
            xml.leaf("uuid", host_uuid)
            found = cells(root)
            _cpu(xml, supports, tsc, found, root)
            # No suspend states: NODE_SUSPEND_FOR_DURATION isn't served.
            xml.leaf("power_management")
            iommu = root / "sys/class/iommu"
            has_iommu = iommu.is_dir() and any(iommu.iterdir())
            xml.leaf("iommu", support="yes" if has_iommu else "no")
            with xml.element("migration_features"):
                xml.leaf("live")
                with xml.element("uri_transports"):
                    xml.leaf("uri_transport", "tcp")
            _topology(xml, found)
            _cache(xml, root)
            _security(xml, guest_ids)
        xml.blank()
        for support in supports:
            _guest(xml, support)
            xml.blank()
    return str(xml)


@functools.lru_cache(maxsize=2)
def _named(support: GuestSupport, cpu: HostCpu) -> BestModel | None:
    """The host's CPU by a model's name; the search takes some milliseconds."""
    models = named_models(support, "qemu").values()
    return best_model(models, cpu.features, cpu.vendor, cpu.signature)


def _cpu(
    xml: XmlText,
    supports: Sequence[GuestSupport],
    tsc: TscCounter | None,
    found: tuple[Cell, ...],
    root: Path,
) -> None:
    cpu = host_cpu(root)
    info = node_info(root)
    with xml.element("cpu"):
        xml.leaf("arch", info.model)
        best = _named(supports[0], cpu) if supports else None
        if best:
            xml.leaf("model", best.model.name)
        if cpu.vendor in VENDORS:
            xml.leaf("vendor", VENDORS[cpu.vendor])
        if cpu.microcode is not None:
            xml.leaf("microcode", version=cpu.microcode)
        signature = cpu.signature
        xml.leaf(
            "signature",
            family=signature.family,
            model=signature.model,
            stepping=signature.stepping,
        )
        if tsc:
            scaling = "yes" if tsc.scaling else "no"
            xml.leaf("counter", name="tsc", frequency=tsc.frequency_hz, scaling=scaling)
        dies = _dies(info, found)
        xml.leaf(
            "topology",
            sockets=info.sockets,
            dies=dies,
            cores=info.cores // dies,
            threads=info.threads,
        )
        if cpu.address_bits:
            xml.leaf("maxphysaddr", mode="emulate", bits=cpu.address_bits)
        for feature in best.require if best else ():
            xml.leaf("feature", name=feature)
        for size in sorted({pool.size_kib for cell in found for pool in cell.pages}):
            xml.leaf("pages", unit="KiB", size=size)


def _dies(info: NodeInfo, found: tuple[Cell, ...]) -> int:
    """Return the dies of a socket, 1 unless its cores divide evenly among them."""
    per_socket: dict[int, set[int]] = {}
    for cell in found:
        for cpu in cell.cpus:
            per_socket.setdefault(cpu.socket, set()).add(cpu.die)
    dies = max((len(ids) for ids in per_socket.values()), default=1)
    return dies if info.cores % dies == 0 else 1


def _topology(xml: XmlText, found: tuple[Cell, ...]) -> None:
    with xml.element("topology"), xml.element("cells", num=len(found)):
        for cell in found:
            with xml.element("cell", id=cell.id):
                xml.leaf("memory", cell.memory_kib, unit="KiB")
                for pool in cell.pages:
                    xml.leaf("pages", pool.total, unit="KiB", size=pool.size_kib)
                with xml.element("distances"):
                    for other, distance in cell.distances.items():
                        xml.leaf("sibling", id=other, value=distance)
                with xml.element("cpus", num=len(cell.cpus)):
                    for cpu in cell.cpus:
                        xml.leaf(
                            "cpu",
                            id=cpu.id,
                            socket_id=cpu.socket,
                            die_id=cpu.die,
                            core_id=cpu.core,
                            siblings=format_cpu_list(cpu.siblings),
                        )


def _cache(xml: XmlText, root: Path) -> None:
    banks = cache_banks(root)
    if not banks:
        return
    with xml.element("cache"):
        for bank in banks:
            size, unit = bank.size_kib, "KiB"
            if size and size % 1024 == 0:
                size, unit = size // 1024, "MiB"
            xml.leaf(
                "bank",
                id=bank.id,
                level=bank.level,
                type=bank.kind,
                size=size,
                unit=unit,
                cpus=format_cpu_list(bank.cpus),
            )


def _security(xml: XmlText, guest_ids: tuple[int, int] | None) -> None:
    with xml.element("secmodel"):
        xml.leaf("model", "none")
        xml.leaf("doi", 0)
    if guest_ids is None:
        return
    with xml.element("secmodel"):
        xml.leaf("model", "dac")
        xml.leaf("doi", 0)
        label = f"+{guest_ids[0]}:+{guest_ids[1]}"
        for virt_type in ("kvm", "qemu"):
            xml.leaf("baselabel", label, type=virt_type)


def _guest(xml: XmlText, support: GuestSupport) -> None:
    with xml.element("guest"):
        xml.leaf("os_type", "hvm")
        with xml.element("arch", name=support.arch):
            xml.leaf("wordsize", _WORD_BITS.get(support.arch, 64))
            xml.leaf("emulator", support.emulator)
            for machine in support.machines_default_first:
                xml.leaf(
                    "machine",
                    machine.name,
                    canonical=machine.canonical,
                    maxCpus=machine.cpus_max,
                    deprecated="yes" if machine.deprecated else None,
                )
            for virt_type in support.virt_types:
                xml.leaf("domain", type=virt_type)
        with xml.element("features"):
            if support.arch == "i686":
                xml.leaf("pae")
                xml.leaf("nonpae")
            xml.leaf("acpi", default="on", toggle="yes")
            xml.leaf("apic", default="on", toggle="no")
            xml.leaf("cpuselection")
            xml.leaf("deviceboot")
