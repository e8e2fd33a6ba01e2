"""-m, memory backends, -numa, and memory devices."""

from __future__ import annotations

from typing import Any

from sterna.config.bitmaps import format_set, parse_set
from sterna.config.model import DimmAddress, HugePage, MemoryDevice, NumaCell
from sterna.errors import InternalError
from sterna.qemu.argv_build import Build, refuse, without_none

_POLICIES = {"strict": "bind", "preferred": "preferred", "interleave": "interleave"}


def _base_kib(build: Build) -> int:
    """Memory without the modules, in whole MiB as libvirt rounds it."""
    d = build.d
    if d.memory is None:
        raise InternalError("a definition without memory was not completed")
    modules = sum(module.size or 0 for module in d.devices.memories)
    return -(-(d.memory - modules) // 1024) * 1024


def memory(build: Build) -> None:
    """Append -m and, without NUMA cells, the backend of the guest's memory."""
    d = build.d
    base = _base_kib(build)
    if d.max_memory is not None:
        slots = d.max_memory_slots
        if not slots:
            raise refuse("maxMemory without slots")
        build.opt("-m", f"size={base}k,slots={slots},maxmem={d.max_memory}k")
    else:
        build.opt("-m", str(base // 1024))
    if not uses_numa(build):
        build.object(_backend(build, ram_id(build), base, cell=None, is_whole=True))


def ram_id(build: Build) -> str:
    """Name of the machine's memory in the migration stream; both sides must agree."""
    if build.machine is not None and build.machine.default_ram_id:
        return build.machine.default_ram_id
    return "pc.ram"


def uses_numa(build: Build) -> bool:
    cpu = build.d.cpu
    return cpu is not None and cpu.numa is not None and bool(cpu.numa.cells)


def _huge_page(build: Build, cell: int | None) -> HugePage | None:
    backing = build.d.memory_backing
    if backing is None or backing.hugepages is None:
        return None
    for page in backing.hugepages.pages:
        if page.nodeset is None or (cell or 0) in parse_set(page.nodeset):
            return page
    return HugePage() if not backing.hugepages.pages else None


def _node_policy(build: Build, cell: int | None) -> dict[str, Any]:
    tune = build.d.numatune
    if tune is None:
        return {}
    mode, nodeset = None, None
    node = next((n for n in tune.memnodes if n.cellid == cell), None)
    if node is not None:
        mode, nodeset = node.mode, node.nodeset
    elif tune.memory is not None and tune.memory.placement != "auto":
        mode, nodeset = tune.memory.mode, tune.memory.nodeset
    elif tune.memory is not None:
        raise refuse("automatic NUMA placement")
    if nodeset is None or mode == "restrictive":
        return {}
    return {"host-nodes": sorted(parse_set(nodeset)), "policy": _POLICIES[mode or "strict"]}


def _backend(
    build: Build, name: str, size_kib: int, *, cell: NumaCell | None, is_whole: bool
) -> dict[str, Any]:
    """The object that holds a piece of the guest's memory."""
    backing = build.d.memory_backing
    cell_id = None if cell is None else cell.id
    if _huge_page(build, cell_id) is not None:
        raise refuse("memory backed by huge pages")
    source = backing.source if backing else None
    access = (cell.mem_access if cell else None) or (backing.access if backing else None)
    discard = cell.discard if cell is not None and cell.discard is not None else None
    if discard is None and backing is not None and backing.discard:
        discard = True
    result: dict[str, Any] = {"qom-type": "memory-backend-ram", "id": name}
    if source == "memfd":
        result["qom-type"] = "memory-backend-memfd"
    elif source == "file" or access is not None:
        # Only files (and memfd) can be shared; libvirt 9.0 takes one in this directory.
        result["qom-type"] = "memory-backend-file"
        directory = f"{build.launch.state_dir}/ram"
        build.directories.add(directory)
        result["mem-path"] = f"{directory}/{name}"
        if discard is not None:
            result["discard-data"] = discard
    if access is not None:
        result["share"] = access == "shared"
    if is_whole and result["qom-type"] != "memory-backend-ram":
        # Otherwise the block's name in the migration stream would hold the path.
        result["x-use-canonical-path-for-ramblock-id"] = False
    if backing is not None and backing.allocation_mode == "immediate":
        result["prealloc"] = True
        if backing.allocation_threads:
            result["prealloc-threads"] = backing.allocation_threads
    result["size"] = size_kib * 1024
    result.update(_node_policy(build, cell_id))
    return result


def numa(build: Build) -> None:
    """Append a backend and -numa for each cell, and the distances."""
    if build.d.cpu is None or build.d.cpu.numa is None or not build.d.cpu.numa.cells:
        return
    if build.d.cpu.numa.interconnects is not None:
        raise refuse("<interconnects> between NUMA cells")
    cells = build.d.cpu.numa.cells
    for number, cell in enumerate(cells):
        if cell.caches:
            raise refuse("<cache> of a NUMA cell")
        if cell.memory is None:
            raise refuse("a NUMA cell without memory")
        cell_id = number if cell.id is None else cell.id
        name = f"ram-node{cell_id}"
        build.object(_backend(build, name, cell.memory, cell=cell, is_whole=False))
        parts = ["node", f"nodeid={cell_id}"]
        if cell.cpus:
            parts += [f"cpus={text}" for text in format_set(parse_set(cell.cpus)).split(",")]
        parts.append(f"memdev={name}")
        build.opt("-numa", ",".join(parts))
    _distances(build, cells)


def _distances(build: Build, cells: list[NumaCell]) -> None:
    if not any(cell.distances for cell in cells):
        return
    ids = [number if cell.id is None else cell.id for number, cell in enumerate(cells)]
    known = {
        (ids[number], sibling.id): sibling.value
        for number, cell in enumerate(cells)
        for sibling in cell.distances
    }
    for source in ids:
        for target in ids:
            value = known.get((source, target), known.get((target, source)))
            if value is None:
                value = 10 if source == target else 20
            build.opt("-numa", f"dist,src={source},dst={target},val={value}")


def memory_devices(build: Build) -> None:
    """Append the memory modules of <devices>."""
    for module in build.d.devices.memories:
        _memory_device(build, module)


def _memory_device(build: Build, module: MemoryDevice) -> None:
    if module.model not in ("dimm", "nvdimm"):
        raise refuse(f"memory device model '{module.model}'")
    alias = build.alias(module)
    source = module.source
    backend: dict[str, Any] = {"qom-type": "memory-backend-ram", "id": f"mem{alias}"}
    if module.model == "nvdimm":
        if source is None or source.path is None:
            raise refuse("an nvdimm without a source path")
        backend["qom-type"] = "memory-backend-file"
        backend["mem-path"] = source.path
        backend["share"] = module.access != "private" if module.access else False
        backend["prealloc"] = True
        backend |= without_none(pmem=True if source.pmem else None)
        if source.alignsize:
            backend["align"] = source.alignsize * 1024
    elif source is not None and (source.pagesize or source.nodemask):
        raise refuse("the source of a memory module")
    backend["size"] = (module.size or 0) * 1024
    build.object(backend)
    device: dict[str, Any] = {"driver": "nvdimm" if module.model == "nvdimm" else "pc-dimm"}
    if module.node is not None:
        device["node"] = module.node
    if module.label_size:
        device["label-size"] = module.label_size * 1024
    if module.uuid is not None:
        device["uuid"] = str(module.uuid)
    if module.readonly:
        device["unarmed"] = True
    device["memdev"] = backend["id"]
    device["id"] = alias
    if isinstance(module.address, DimmAddress):
        device |= without_none(slot=module.address.slot, addr=module.address.base)
    build.device(device)
